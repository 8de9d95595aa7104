"""Which arithmetic is the faster one on the processor at hand."""

import functools
import time
from typing import Literal

import torch

Precision = Literal["fp32", "bf16", "fp16"]

# Rows, inputs and outputs of the product that is timed: a linear map of a BERT, some milliseconds in fp32.
PRODUCT = (512, 768, 768)
ROUNDS = 5
# What bf16 must gain in one product. It gains 5.3 with AMX, 2.3 on a Zen 4 and 0.53 on a Xeon without AMX
# (details.ceiling_gflop_per_s of benchmarks/results/inference*.json).
WORTHWHILE = 1.25


def choose_precision(wanted: Literal["auto"] | Precision, device: torch.device) -> Precision:
    """`wanted`, with ``auto`` resolved: bf16 where a GPU has it or the CPU is clearly faster in it, else fp32."""
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if device.type == "cpu" and bf16_gain() >= WORTHWHILE else "fp32"


@functools.cache
def bf16_gain() -> float:
    """How many times faster a product in bf16 is than in fp32 on this CPU, timed once a process.

    What the processor says of itself does not decide it. A Xeon whose AMX is not passed on to the virtual machine has
    the older bf16 instructions, and takes twice as long with them as in fp32; emulated bf16 takes ten times as long.
    """
    rows, inputs, outputs = PRODUCT
    best = dict.fromkeys((torch.float32, torch.bfloat16), float("inf"))
    with torch.inference_mode():
        shapes = ((rows, inputs), (inputs, outputs), (rows, outputs))
        operands = {dtype: [torch.ones(shape, dtype=dtype) for shape in shapes] for dtype in best}
        for _ in range(ROUNDS):
            for dtype, (left, right, product) in operands.items():
                started = time.perf_counter()
                torch.matmul(left, right, out=product)
                best[dtype] = min(best[dtype], time.perf_counter() - started)
    return best[torch.float32] / best[torch.bfloat16]
