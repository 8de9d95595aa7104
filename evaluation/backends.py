"""The runtimes that speed is measured on: one entry for each, which file it runs and how.

Imported by the measured process before its runtime, so nothing heavy at the top.
Axes: B batch, L sequence length.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Forward = Callable[[], object]
"""One pass of the encoder, begun and finished; returns the last hidden state (B, L, D)."""
Session = Callable[[NDArray[np.int64]], Forward]
"""From token ids (B, L), all of them real tokens, to a pass over them; inputs are on the device by then."""


@dataclasses.dataclass(frozen=True)
class Backend:
    """A runtime and number format.

    Attributes:
        files: the file that it runs, by its path in a model folder; the first that is there.
        open: from folder, device and threads to a session.
        devices: on which it can run.
    """

    files: tuple[str, ...]
    open: Callable[[Path, str, int], Session]
    devices: tuple[str, ...] = ("cpu",)


def _open_pytorch(folder: Path, device: str, threads: int, dtype: str) -> Session:
    import torch
    from transformers import AutoModel
    from transformers.utils import logging

    logging.set_verbosity_error()
    torch.set_num_threads(threads)
    model = AutoModel.from_pretrained(folder, dtype=getattr(torch, dtype), attn_implementation="sdpa")
    model.eval().to(device)

    def prepare(ids_BL: NDArray[np.int64]) -> Forward:
        inputs = {
            "input_ids": torch.from_numpy(ids_BL).to(device),
            "attention_mask": torch.ones(ids_BL.shape, dtype=torch.long, device=device),
        }

        @torch.inference_mode()
        def forward() -> object:
            hidden_BLD = model(**inputs).last_hidden_state
            if device == "cuda":
                torch.cuda.synchronize()
            return hidden_BLD

        return forward

    return prepare


def _open_pytorch_fp32(folder: Path, device: str, threads: int) -> Session:
    return _open_pytorch(folder, device, threads, "float32")


def _open_pytorch_bf16(folder: Path, device: str, threads: int) -> Session:
    return _open_pytorch(folder, device, threads, "bfloat16")


def _open_onnx(path: Path, threads: int) -> Session:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = {graph_input.name for graph_input in session.get_inputs()}

    def prepare(ids_BL: NDArray[np.int64]) -> Forward:
        everything = {
            "input_ids": ids_BL,
            "attention_mask": np.ones_like(ids_BL),
            "token_type_ids": np.zeros_like(ids_BL),
        }
        inputs = {name: array for name, array in everything.items() if name in names}
        return lambda: session.run(None, inputs)[0]

    return prepare


def _open_onnx_fp32(folder: Path, device: str, threads: int) -> Session:
    return _open_onnx(folder / "onnx/model.onnx", threads)


def _open_onnx_int8(folder: Path, device: str, threads: int) -> Session:
    return _open_onnx(folder / "onnx/model_quantized.onnx", threads)


CHECKPOINT = ("model.safetensors", "pytorch_model.bin")
BACKENDS = {
    "pytorch-fp32": Backend(CHECKPOINT, _open_pytorch_fp32, devices=("cpu", "cuda")),
    "pytorch-bf16": Backend(CHECKPOINT, _open_pytorch_bf16, devices=("cpu", "cuda")),
    "onnx-fp32": Backend(("onnx/model.onnx",), _open_onnx_fp32),
    "onnx-int8": Backend(("onnx/model_quantized.onnx",), _open_onnx_int8),
}
