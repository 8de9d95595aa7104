"""How each file format is written: one entry for each of :data:`~distilrubert.common.formats.FORMATS`."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

from distilrubert.common.formats import FORMATS
from distilrubert.conversion import quantization
from distilrubert.conversion.export_source import ExportSource
from distilrubert.conversion.onnx import export_onnx, require_onnx
from distilrubert.conversion.openvino import export_openvino, quantize_openvino, require_openvino, save_openvino
from distilrubert.modeling.checkpoints import save_checkpoint

VERSION = 1
"""To be raised with every change by which the same model becomes another file, or parity is measured otherwise.

Runs convert their student again then, and cached scores of files are measured again.
"""


@dataclasses.dataclass(frozen=True)
class Writer:
    """How a format is written.

    Attributes:
        write: makes the file of a model at a path, and the companions beside it.
        require: raises a UserError if packages are missing.
    """

    write: Callable[[ExportSource, Path], None]
    require: Callable[[], None] = lambda: None


def _write_safetensors(source: ExportSource, target: Path) -> None:
    save_checkpoint(source.checkpoint.model, source.checkpoint.tokenizer, target.parent)


def _write_onnx(source: ExportSource, target: Path) -> None:
    export_onnx(source.exported, target, source.task)


def _write_onnx_int8(source: ExportSource, target: Path, weights: quantization.Weights) -> None:
    quantization.quantize_onnx(source.smoothed_graph, target, weights, source.maps_in_fp32)


def _write_openvino(source: ExportSource, target: Path, half: bool = False) -> None:
    save_openvino(export_openvino(source.exported, source.task), target.with_suffix(".xml"), half=half)


def _write_openvino_int8(source: ExportSource, target: Path) -> None:
    graph = export_openvino(source.smoothed, source.task)
    inputs = [{name: tensor.numpy() for name, tensor in batch.items()} for batch in source.calibration]
    save_openvino(quantize_openvino(graph, inputs, source.maps_in_fp32), target.with_suffix(".xml"))


def _onnx_int8(weights: quantization.Weights) -> Writer:
    return Writer(functools.partial(_write_onnx_int8, weights=weights), require_onnx)


WRITERS = {
    "pytorch-fp32": Writer(_write_safetensors),
    "onnx-fp32": Writer(_write_onnx, require_onnx),
    "onnx-int8": _onnx_int8(quantization.EVERYWHERE),
    "onnx-int8-avx2": _onnx_int8(quantization.AVX2),
    "onnx-int8-avx512-vnni": _onnx_int8(quantization.AVX512_VNNI),
    "onnx-int8-arm64": _onnx_int8(quantization.ARM64),
    "openvino-fp32": Writer(_write_openvino, require_openvino),
    "openvino-fp16": Writer(functools.partial(_write_openvino, half=True), require_openvino),
    "openvino-int8": Writer(_write_openvino_int8, require_openvino),
}


def write_file(case: str, source: ExportSource, folder: Path) -> None:
    """Write one file of a model at its place in a folder.

    Args:
        case: a key of :data:`~distilrubert.common.formats.FORMATS`.
        source: what it is made of.
        folder: of the model.
    """
    WRITERS[case].write(source, folder / FORMATS[case].path)
