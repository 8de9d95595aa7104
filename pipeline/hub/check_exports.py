"""Checks of the ONNX and OpenVINO files: complete, finite, and with the inputs that the tokenizer gives."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from distilrubert.pipeline.hub.check_files import find_absolute_paths
from distilrubert.pipeline.hub.files import ModelFolder
from distilrubert.pipeline.statement import Statement, first_line, problem


def check_exports(folder: ModelFolder) -> Iterator[Statement]:
    """Every .onnx and every OpenVINO .xml can be read."""
    for path in folder.ending(".onnx"):
        yield from (problem(path, message) for message in _onnx_problems(folder, path))
    for path in folder.ending(".xml"):
        yield from (problem(path, message) for message in _openvino_problems(folder, path))


def _onnx_problems(folder: ModelFolder, path: str) -> Iterator[str]:
    try:
        import onnx
    except ImportError:
        yield 'cannot be checked without onnx: pip install "distilrubert[onnx]"'
        return
    try:
        onnx.checker.check_model(str(folder / path))
        model = onnx.load(str(folder / path))
    except Exception as error:  # onnx raises protobuf's, its checker's and plain errors for broken files
        yield f"cannot be opened: {first_line(error)}"
        return
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            yield f"{tensor.name} holds NaN or infinity"
    yield from _input_problems(folder, [item.name for item in model.graph.input])
    texts = [item.value for holder in (model, *model.graph.node) for item in holder.metadata_props]
    texts += [holder.doc_string for holder in (model, model.graph, *model.graph.node)]
    yield from (found.reason for found in find_absolute_paths(path, "\n".join(texts)))


def _openvino_problems(folder: ModelFolder, path: str) -> Iterator[str]:
    try:
        import openvino
    except ImportError:
        yield 'cannot be checked without openvino: pip install "distilrubert[openvino]"'
        return
    try:
        model = openvino.Core().read_model(folder / path)
    except Exception as error:  # openvino raises RuntimeError of its own for broken files
        yield f"cannot be opened: {first_line(error)}"
        return
    yield from _input_problems(folder, [item.get_any_name() for item in model.inputs])
    for constant in model.get_ops():
        if constant.get_type_name() == "Constant" and not _is_finite(constant):
            yield f"{constant.get_friendly_name()} holds NaN or infinity"


def _is_finite(constant: Any) -> bool:
    values = constant.data
    return values.dtype.kind != "f" or bool(np.isfinite(values).all())


def _input_problems(folder: ModelFolder, inputs: list[str]) -> Iterator[str]:
    names = folder.json_object("tokenizer_config.json").get("model_input_names", ["input_ids", "attention_mask"])
    if sorted(inputs) != sorted(names):
        yield f"takes {', '.join(inputs)}, but the tokenizer gives {', '.join(names)}"
