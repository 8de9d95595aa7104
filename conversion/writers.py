"""How each file format is written: one entry for each of :data:`~distilrubert.common.formats.FORMATS`."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from transformers import PreTrainedModel, PreTrainedTokenizerFast

from distilrubert.common.errors import UserError
from distilrubert.common.formats import FORMATS
from distilrubert.conversion.conversion_settings import ConversionSettings
from distilrubert.conversion.export_source import ExportSource
from distilrubert.conversion.onnx import export_onnx
from distilrubert.conversion.openvino import export_openvino, quantize_openvino, save_openvino
from distilrubert.conversion.quantization import quantize_onnx
from distilrubert.modeling.checkpoints import save_checkpoint
from distilrubert.modeling.families import has_windows
from distilrubert.modeling.runtimes import OpenModel, inputs_of_graph, open_model

if TYPE_CHECKING:
    import openvino

VERSION = 4
"""To be raised with every change by which the same model becomes another file, or parity is measured otherwise.

Runs convert their student again then, and cached scores of files are measured again.
"""

PACKAGES = {
    "onnx": ("ONNX", "onnxruntime", "optimum.exporters.onnx", "optimum.onnxruntime"),
    "openvino": ("OpenVINO", "nncf", "openvino", "optimum.exporters.openvino"),
}
"""The title of a runtime whose files need packages of an extra, and these packages."""


def require_packages(runtime: str) -> None:
    """Raise a UserError that names the extra if packages for the files of a runtime are missing."""
    title, *packages = PACKAGES.get(runtime, ("",))
    try:
        for package in packages:
            importlib.import_module(package)
    except ImportError as error:
        raise UserError(
            f'{title} files need packages that are missing ({error}): pip install "distilrubert[{runtime}]"'
        ) from error


def write_file(case: str, source: ExportSource, folder: Path) -> None:
    """Write the file of a model for a key of FORMATS, and its companions, at its place in the model's folder."""
    entry = FORMATS[case]
    WRITERS[case](source.for_task(entry.task or source.task), folder / entry.path)


def _write_safetensors(source: ExportSource, target: Path) -> None:
    save_checkpoint(source.model, source.tokenizer, target.parent)


def _write_onnx(source: ExportSource, target: Path) -> None:
    export_onnx(source.exported, target, source.task)


def _write_onnx_int8(source: ExportSource, target: Path, **weights: bool) -> None:
    quantize_onnx(source.smoothed_graph, target, source.maps_in_fp32, embedding_bits=source.embedding_bits, **weights)


def _write_openvino(source: ExportSource, target: Path, half: bool = False) -> None:
    _save_openvino(export_openvino(source.exported, source.task), source, target, half)


def _write_openvino_int8(source: ExportSource, target: Path) -> None:
    graph = export_openvino(source.smoothed, source.task)
    names = {graph_input.get_any_name() for graph_input in graph.inputs}
    batches = [{name: tensor.numpy() for name, tensor in batch.items()} for batch in source.calibration]
    inputs = [inputs_of_graph(batch, names) for batch in batches]
    quantized = quantize_openvino(graph, inputs, source.maps_in_fp32, source.embedding_bits)
    _save_openvino(quantized, source, target)


def _save_openvino(graph: "openvino.Model", source: ExportSource, target: Path, half: bool = False) -> None:
    one_mask = not has_windows(source.model.config)
    save_openvino(graph, target.with_suffix(".xml"), one_mask=one_mask, half=half)


WRITERS: dict[str, Callable[[ExportSource, Path], None]] = {
    "pytorch-fp32": _write_safetensors,
    "onnx-fp32": _write_onnx,
    # Before VNNI (AVX2, AVX-512 without it) x86 multiplies bytes with VPMADDUBSW, which adds two products u8 × s8 in
    # 16 bits: with |w| ≤ 64 the sum is at most 2 · 255 · 64 = 32640 < 32767 and cannot saturate. Emulated with
    # ``qemu-x86_64 -cpu Haswell`` such a file gives the same vectors as on a CPU with VNNI and AMX to 4e-7; with eight
    # bits they differ by 0.29. The seventh bit costs 0.0017 of cosine: the error is mostly that of the activations.
    "onnx-int8": partial(_write_onnx_int8, seven_bits=True),
    # Unsigned bytes are widened to 16 bits before they are multiplied, so that all eight bits are safe.
    "onnx-int8-avx2": partial(_write_onnx_int8, signed=False),
    # VNNI and ARM's dot products add in 32 bits.
    "onnx-int8-avx512-vnni": _write_onnx_int8,
    "onnx-int8-arm64": _write_onnx_int8,
    "onnx-masked-lm-int8": partial(_write_onnx_int8, seven_bits=True),
    "openvino-fp32": _write_openvino,
    "openvino-fp16": partial(_write_openvino, half=True),
    "openvino-int8": _write_openvino_int8,
}


def export_finetuned(
    case: str,
    settings: ConversionSettings,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    task: str,
    examples: Sequence[Mapping[str, Sequence[int]]],
    folder: Path,
) -> OpenModel:
    """Write one file of a fine-tuned model, made in the same way as those that are published, and open it.

    Args:
        case: a key of :data:`~distilrubert.common.formats.FORMATS`.
        settings: how int8 is made.
        model: in fp32 on the CPU, in evaluation mode, with its head.
        tokenizer: the model's.
        task: a key of :data:`~distilrubert.modeling.runtimes.OUTPUTS`.
        examples: the model's inputs, each of one sequence; ``settings.calibration_sentences`` of them, evenly chosen,
            calibrate int8.
        folder: to write to; the file must stay there while the model is used.

    Returns:
        The file, opened for fp32 arithmetic.
    """
    write_file(case, ExportSource.of_examples(model, tokenizer, settings, examples, task), folder)
    return open_model(folder, FORMATS[case], task)
