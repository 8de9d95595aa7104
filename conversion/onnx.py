"""A model as an ONNX graph, through optimum's exporter.

Axes: B batch, L padded length; 1 is an axis of one.
"""

import contextlib
import math
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from distilrubert.common.errors import UserError
from distilrubert.common.persistence import atomic_file
from distilrubert.conversion.fused_attention import fuse_attention
from distilrubert.modeling.checkpoints import quiet_transformers
from distilrubert.modeling.families import has_windows

if TYPE_CHECKING:
    import onnx

# LayerNormalization is one operator from 17 on; optimum's own default.
OPSET = 18
# A protobuf message, and so a graph in one file, cannot be larger.
LARGEST_GRAPH_BYTES = 2**31 - 2**20


def export_onnx(model: PreTrainedModel, target: Path, task: str) -> None:
    """Write the graph of a model, see :func:`graph_of`; its folder is made.

    Raises:
        UserError: if the file cannot be written, or the model is too large for one file.
    """
    import onnx

    graph = graph_of(model, task)
    with atomic_file(target) as beside:
        onnx.save(graph, beside)


def graph_of(model: PreTrainedModel, task: str, *, fused_attention: bool = False) -> "onnx.ModelProto":
    """The graph of a model: input_ids and attention_mask to the task's outputs.

    Where a model takes token_type_ids, as a BERT does, its graph does. Batch and sequence length are free. The model is
    an encoder, or with the head of the task, in fp32 with SDPA attention. All operators are standard ones, unless
    `fused_attention` asks for one of ONNX Runtime, see :func:`fuse_attention`; there is none where layers attend to
    windows.

    Raises:
        UserError: if the model is too large for one file.
    """
    weights = list(model.parameters())
    head = model.get_output_embeddings()
    if head is not None and head.weight is model.get_input_embeddings().weight:
        # The exporter writes it transposed, too.
        weights.append(head.weight)
    if sum(weight.numel() * weight.element_size() for weight in weights) > LARGEST_GRAPH_BYTES:
        raise UserError("conversion.onnx: the model has more than 2 GiB of weights, and one ONNX file cannot hold them")
    import onnx
    from optimum.exporters.onnx import export
    from optimum.exporters.tasks import TasksManager

    describe = TasksManager.get_exporter_config_constructor(
        "onnx", model_type=model.config.model_type, task=task, library_name="transformers"
    )
    one_mask = not has_windows(model.config)
    with (
        tempfile.TemporaryDirectory() as folder,
        quiet_exporters(),
        attention_written_out(one_mask=one_mask),
    ):
        path = Path(folder) / "model.onnx"
        export(model, describe(model.config, task=task), path, opset=OPSET)
        graph: onnx.ModelProto = onnx.load(path)
    _keep_layer_norms_apart(graph)
    graph = _without_computed_sizes(graph)
    onnx.checker.check_model(graph, full_check=True)
    return fuse_attention(graph) if fused_attention and one_mask else graph


def _keep_layer_norms_apart(model: "onnx.ModelProto") -> None:
    """Write a sum before a LayerNormalization as Sum instead of Add, which is the same for two terms.

    ONNX Runtime joins Add and LayerNormalization into SkipLayerNormalization, and that kernel is slow on a CPU: at
    512 × 768 it takes 1.7 ms on one thread, where LayerNormalization takes 0.2 and the sum 0.1.
    """
    read = {node.input[0] for node in model.graph.node if node.op_type == "LayerNormalization"}
    for node in model.graph.node:
        if node.op_type == "Add" and node.output[0] in read:
            node.op_type = "Sum"


def _without_computed_sizes(model: "onnx.ModelProto") -> "onnx.ModelProto":
    """The graph with 0 in place of a size that a Reshape keeps, so that no operator has to compute it.

    The tracer writes ``x.view(len(x), -1, heads, width)`` as operators that ask for the length and put the new shape
    together. 0 keeps the size of the same axis. That is the axis that the tracer asked for: the first one is always the
    batch, and the second one the sequence or a head. Without them, and with one mask for all layers, a text of 16
    tokens takes 8 % less time in slim shapes (one thread of a Xeon with AMX).
    """
    from onnx import numpy_helper, utils

    nodes = model.graph.node
    made_by = {output: node for node in nodes for output in node.output}
    constants = {node.output[0]: node.attribute[0].t for node in nodes if node.op_type == "Constant"}
    constants |= {tensor.name: tensor for tensor in model.graph.initializer}

    def made(name: str, operator: str) -> "onnx.NodeProto | None":
        node = made_by.get(name)
        return node if node is not None and node.op_type == operator else None

    def size_at(name: str, place: int) -> int | None:
        """An entry of a shape, 0 for the size of that axis of another tensor; None for what is neither."""
        if name in constants:
            return int(numpy_helper.to_array(constants[name]).item())
        entry = made(name, "Unsqueeze")
        axis = made(entry.input[0], "Gather") if entry else None
        if axis is None or made(axis.input[0], "Shape") is None:
            return None
        return 0 if numpy_helper.to_array(constants[axis.input[1]]) == place else None

    for number, node in enumerate([node for node in nodes if node.op_type == "Reshape"]):
        shape = made(node.input[1], "Concat")
        sizes = [size_at(name, place) for place, name in enumerate(shape.input)] if shape else [None]
        if None not in sizes:
            node.input[1] = f"kept_sizes_{number}"
            model.graph.initializer.append(numpy_helper.from_array(np.array(sizes, dtype=np.int64), node.input[1]))
    ends = ([value.name for value in part] for part in (model.graph.input, model.graph.output))
    return utils.Extractor(model).extract_model(*ends)


@contextlib.contextmanager
def quiet_exporters() -> Iterator[None]:
    """Hold back the tracer's and the exporters' warnings; what they warn of is what parity measures."""
    from optimum.utils import logging as optimum_logging

    verbosity = optimum_logging.get_verbosity()
    optimum_logging.set_verbosity_error()
    try:
        with warnings.catch_warnings(), quiet_transformers(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    finally:
        optimum_logging.set_verbosity(verbosity)


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    **_: Any,
) -> Tensor:
    """What scaled_dot_product_attention computes for an encoder, whose mask (B, 1, 1 or L, L) is to be added."""
    assert attn_mask.is_floating_point()
    assert not dropout_p
    assert not is_causal
    assert scale is None or math.isclose(scale, query.shape[-1] ** -0.5)
    scores = (query / math.sqrt(query.shape[-1])) @ key.transpose(-1, -2)
    return torch.softmax(scores + attn_mask, dim=-1) @ value


def _expand_mask(mask: Tensor, dtype: torch.dtype, tgt_len: int | None = None) -> Tensor:
    """What transformers adds to the scores, 0 or the lowest number, in one row for all queries (B, 1, 1, L)."""
    return (1.0 - mask[:, None, None, :].to(dtype)) * torch.finfo(dtype).min


@contextlib.contextmanager
def attention_written_out(*, one_mask: bool) -> Iterator[None]:
    """Let optimum's exporter trace attention as two products and a softmax instead of torch's one operator.

    The exporter unfolds that operator into two scalings, and a mask of length × length that is added to the scores of
    every head. Written out, int8 takes less time, and :func:`fuse_attention` can put one operator in its place.

    optimum wraps torch's function while it exports, and calls the original by a name of its own; once optimum-intel
    has been imported it does not wrap it any more. So both names are replaced.

    Args:
        one_mask: whether all queries see the same, the rule for an encoder; no layer attends to a window then.
    """
    from optimum.exporters.onnx import model_patcher
    from transformers.modeling_attn_mask_utils import AttentionMaskConverter

    # transformers' masks have a row for each query. Where they are all the same, one is enough.
    expand = _expand_mask if one_mask else AttentionMaskConverter._expand_mask
    with (
        mock.patch.object(model_patcher, "original_scaled_dot_product_attention", _attend),
        mock.patch.object(torch.nn.functional, "scaled_dot_product_attention", _attend),
        mock.patch.object(AttentionMaskConverter, "_expand_mask", expand),
    ):
        yield
