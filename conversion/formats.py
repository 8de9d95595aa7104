"""The kinds of files that a checkpoint becomes: one entry for each, how to write it and how to run it.

Axes: B batch, L padded length, D width.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from distilrubert.conversion.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from distilrubert.conversion.onnx import export_onnx
from distilrubert.conversion.quantization import quantize_onnx

Inputs = dict[str, NDArray[np.int64]]
Encoder = Callable[[Inputs], NDArray[np.float32]]
"""From the tokenizer's arrays (B, L) to the last hidden state (B, L, D)."""


@dataclasses.dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
        case: its name in reports.
        path: where it lies in the published folder.
        precision: the field of the tolerances that it must hold.
        write: makes it of the checkpoint, inside a folder.
        open: runs the file at a path.
        source: case of the format that must have been written before, None where there is none.
    """

    case: str
    path: str
    precision: str
    write: Callable[[Checkpoint, Path], None]
    open: Callable[[Path], Encoder]
    source: str | None = None


def run_model(model: torch.nn.Module) -> Encoder:
    """The encoder of a PyTorch model."""

    @torch.inference_mode()
    def encode(inputs: Inputs) -> NDArray[np.float32]:
        tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
        hidden_BLD: NDArray[np.float32] = model(**tensors).last_hidden_state.numpy()
        return hidden_BLD

    return encode


def _open_safetensors(path: Path) -> Encoder:
    return run_model(load_checkpoint(path.parent).model.base_model)


def _open_onnx(path: Path) -> Encoder:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [graph_input.name for graph_input in session.get_inputs()]

    def encode(inputs: Inputs) -> NDArray[np.float32]:
        hidden_BLD: NDArray[np.float32] = session.run(["last_hidden_state"], {name: inputs[name] for name in names})[0]
        return hidden_BLD

    return encode


def _write_onnx(checkpoint: Checkpoint, folder: Path) -> None:
    export_onnx(checkpoint.model, folder / "onnx/model.onnx")


def _write_quantized_onnx(checkpoint: Checkpoint, folder: Path) -> None:
    quantize_onnx(folder / "onnx/model.onnx", folder / "onnx/model_quantized.onnx", checkpoint.model.config)


FORMATS = {
    entry.case: entry
    for entry in (
        Format("pytorch-fp32", "model.safetensors", "fp32", save_checkpoint, _open_safetensors),
        Format("onnx-fp32", "onnx/model.onnx", "fp32", _write_onnx, _open_onnx),
        Format("onnx-int8", "onnx/model_quantized.onnx", "int8", _write_quantized_onnx, _open_onnx, source="onnx-fp32"),
    )
}
