"""Which arithmetic the processor at hand does natively."""

from typing import Literal

import torch

from distilrubert.modeling.reports import Environment

Precision = Literal["fp32", "bf16"]


def choose_precision(wanted: Literal["auto", "fp32", "bf16"], device: torch.device) -> Precision:
    """`wanted`, with ``auto`` resolved: bf16 where `device` multiplies bf16 natively, else fp32.

    Emulated bf16 is several times slower than fp32, so it is never chosen by itself.
    """
    if wanted != "auto":
        return wanted
    return "bf16" if _has_native_bf16(device) else "fp32"


def _has_native_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        # `bf16` is how Linux names the instructions on ARM.
        return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(Environment.capture().instruction_sets)
    return False
