"""The kinds of files that a checkpoint becomes: one entry for each, how to write it and how to run it.

Axes: B batch, L padded length, D width.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from distilrubert.conversion import quantization
from distilrubert.conversion.checkpoint import load_checkpoint
from distilrubert.conversion.material import OUTPUTS, Material
from distilrubert.conversion.onnx import export_onnx, require_onnx
from distilrubert.conversion.openvino import export_openvino, quantize_openvino, require_openvino, save_openvino
from distilrubert.modeling.checkpoints import save_checkpoint

Inputs = dict[str, NDArray[np.int64]]
Encoder = Callable[[Inputs], tuple[NDArray[np.float32], ...]]
"""From the tokenizer's arrays (B, L) to what :data:`~distilrubert.conversion.material.OUTPUTS` names: the last hidden
state (B, L, D) or, with a head, the logits: (B, L, V), (B, V) where the whole text has one class, or twice (B, L)."""


@dataclasses.dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
        case: its name in reports.
        path: where it lies in the published folder.
        precision: the field of the tolerances that it must hold.
        write: makes it of the material, inside a folder.
        open: runs the file at a path for a task.
        require: raises a UserError where packages are missing.
        companions: paths of other files that it needs.
        scratch: path of a file that writing it leaves behind and nobody publishes.
    """

    case: str
    path: str
    precision: str
    write: Callable[[Material, Path], None]
    open: Callable[[Path, str], Encoder]
    require: Callable[[], None] = lambda: None
    companions: tuple[str, ...] = ()
    scratch: str | None = None

    def size_mib(self, folder: Path) -> float:
        """Size of the file in a folder with those that it needs, MiB."""
        return sum((folder / path).stat().st_size for path in (self.path, *self.companions)) / 2**20


def run_model(model: torch.nn.Module, task: str) -> Encoder:
    """A PyTorch model, by its outputs for a task."""

    @torch.inference_mode()
    def encode(inputs: Inputs) -> tuple[NDArray[np.float32], ...]:
        found = model(**{name: torch.from_numpy(array) for name, array in inputs.items()})
        return tuple(found[output].numpy() for output in OUTPUTS[task])

    return encode


def _open_safetensors(path: Path, task: str) -> Encoder:
    model = load_checkpoint(path.parent).model
    return run_model(model if task == "fill-mask" else model.base_model, task)


def _write_safetensors(material: Material, folder: Path) -> None:
    save_checkpoint(material.checkpoint.model, material.checkpoint.tokenizer, folder)


def _open_onnx(path: Path, task: str) -> Encoder:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [graph_input.name for graph_input in session.get_inputs()]

    def encode(inputs: Inputs) -> tuple[NDArray[np.float32], ...]:
        return tuple(session.run(OUTPUTS[task], {name: inputs[name] for name in names}))

    return encode


def _write_onnx(material: Material, folder: Path) -> None:
    export_onnx(material.exported, folder / "onnx/model.onnx", material.task)


# Between the smoothed model and the int8 files that are made of its graph.
SMOOTHED = "onnx/smoothed.onnx"


def _write_quantized_onnx(material: Material, folder: Path, name: str, weights: quantization.Weights) -> None:
    if not (folder / SMOOTHED).exists():
        export_onnx(material.smoothed, folder / SMOOTHED, material.task, mask_in_keys=True)
    config = material.checkpoint.model.config
    quantization.quantize_onnx(folder / SMOOTHED, folder / "onnx" / name, config, weights, material.kept)


def _quantized_onnx(case: str, name: str, weights: quantization.Weights) -> Format:
    write = functools.partial(_write_quantized_onnx, name=name, weights=weights)
    return Format(case, f"onnx/{name}", "int8", write, _open_onnx, require_onnx, scratch=SMOOTHED)


def _open_openvino(path: Path, task: str) -> Encoder:
    import openvino

    # In fp32 around the int8 products, whatever the CPU has: what bf16 adds is the CPU's, not the file's.
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    names = [graph_input.get_any_name() for graph_input in compiled.inputs]

    def encode(inputs: Inputs) -> tuple[NDArray[np.float32], ...]:
        found = compiled({name: inputs[name] for name in names})
        return tuple(found[output] for output in OUTPUTS[task])

    return encode


def _write_openvino(material: Material, folder: Path, name: str, half: bool) -> None:
    graph = export_openvino(material.exported, material.task)
    save_openvino(graph, folder / "openvino" / f"{name}.xml", half=half)


def _write_quantized_openvino(material: Material, folder: Path, name: str) -> None:
    graph = export_openvino(material.smoothed, material.task)
    inputs = [{name: tensor.numpy() for name, tensor in batch.items()} for batch in material.calibration]
    save_openvino(quantize_openvino(graph, inputs, material.kept), folder / "openvino" / f"{name}.xml")


def _openvino(case: str, name: str, precision: str, write: Callable[..., None]) -> Format:
    return Format(
        case,
        f"openvino/{name}.bin",
        precision,
        functools.partial(write, name=name),
        lambda path, task: _open_openvino(path.with_suffix(".xml"), task),
        require_openvino,
        companions=(f"openvino/{name}.xml",),
    )


FORMATS = {
    entry.case: entry
    for entry in (
        Format("pytorch-fp32", "model.safetensors", "fp32", _write_safetensors, _open_safetensors),
        Format("onnx-fp32", "onnx/model.onnx", "fp32", _write_onnx, _open_onnx, require_onnx),
        _quantized_onnx("onnx-int8", "model_quantized.onnx", quantization.EVERYWHERE),
        _quantized_onnx("onnx-int8-avx2", "model_quint8_avx2.onnx", quantization.AVX2),
        _quantized_onnx("onnx-int8-avx512-vnni", "model_qint8_avx512_vnni.onnx", quantization.AVX512_VNNI),
        _quantized_onnx("onnx-int8-arm64", "model_qint8_arm64.onnx", quantization.ARM64),
        _openvino("openvino-fp32", "openvino_model", "fp32", functools.partial(_write_openvino, half=False)),
        _openvino("openvino-fp16", "openvino_model_fp16", "fp16", functools.partial(_write_openvino, half=True)),
        _openvino("openvino-int8", "openvino_model_qint8_quantized", "int8", _write_quantized_openvino),
    )
}
