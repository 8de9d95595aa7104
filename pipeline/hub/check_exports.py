"""Checks of the ONNX and OpenVINO files: complete, finite, and with the inputs that the tokenizer gives."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from distilrubert.pipeline.hub.check_files import find_absolute_paths
from distilrubert.pipeline.hub.files import ModelFolder
from distilrubert.pipeline.statement import Statement, first_line, problem


class _Graph(NamedTuple):
    inputs: list[str]
    constants: Iterable[tuple[str, Any]]  # by name
    texts: str  # what the tools that made it have written into it


def check_exports(folder: ModelFolder) -> Iterator[Statement]:
    """Every .onnx and every OpenVINO .xml can be read."""
    for path in folder.ending(".onnx", ".xml"):
        package, read = ("onnx", _read_onnx) if path.endswith(".onnx") else ("openvino", _read_openvino)
        try:
            graph = read(folder / path)
        except ImportError:
            yield problem(path, f'cannot be checked without {package}: pip install "distilrubert[{package}]"')
        except Exception as error:  # broken files raise protobuf's errors, the checkers' own and plain ones
            yield problem(path, f"cannot be opened: {first_line(error)}")
        else:
            yield from _check_graph(folder, path, graph)


def _check_graph(folder: ModelFolder, path: str, graph: _Graph) -> Iterator[Statement]:
    for name, values in graph.constants:
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            yield problem(path, f"{name} holds NaN or infinity")
    names = folder.json_object("tokenizer_config.json").get("model_input_names", ["input_ids", "attention_mask"])
    if sorted(graph.inputs) != sorted(names):
        yield problem(path, f"takes {', '.join(graph.inputs)}, but the tokenizer gives {', '.join(names)}")
    yield from find_absolute_paths(path, graph.texts)


def _read_onnx(path: Path) -> _Graph:
    import onnx

    onnx.checker.check_model(str(path))
    model = onnx.load(str(path))
    constants = ((tensor.name, onnx.numpy_helper.to_array(tensor)) for tensor in model.graph.initializer)
    texts = [item.value for holder in (model, *model.graph.node) for item in holder.metadata_props]
    texts += [holder.doc_string for holder in (model, model.graph, *model.graph.node)]
    return _Graph([item.name for item in model.graph.input], constants, "\n".join(texts))


def _read_openvino(path: Path) -> _Graph:
    import openvino

    model = openvino.Core().read_model(path)
    constants = [operation for operation in model.get_ops() if operation.get_type_name() == "Constant"]
    by_name = ((constant.get_friendly_name(), constant.data) for constant in constants)
    # Its .xml is text, which is checked as such.
    return _Graph([item.get_any_name() for item in model.inputs], by_name, "")
