"""A model as an ONNX graph, through optimum's exporter.

Axes: B batch, H heads, L padded length, E width of a head, F one more than that; 1 is an axis that is spread.
"""

import contextlib
import functools
import math
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch
from torch import Tensor
from transformers import PreTrainedModel

from distilrubert.common.errors import UserError
from distilrubert.common.persistence import atomic_file
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


def graph_of(model: PreTrainedModel, task: str, *, mask_in_keys: bool = False) -> "onnx.ModelProto":
    """The graph of a model: input_ids and attention_mask to the task's outputs.

    Where a model takes token_type_ids, as a BERT does, its graph does. Batch and sequence length are free. The model is
    an encoder, or with the head of the task, in fp32 with SDPA attention. Without `mask_in_keys`, see
    :func:`attention_written_out`, the graph can be quantised by anybody; it always can where layers attend to windows.

    Raises:
        UserError: if the model is too large for one file.
    """
    if sum(weight.numel() * weight.element_size() for weight in model.parameters()) > LARGEST_GRAPH_BYTES:
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
        attention_written_out(one_mask=one_mask, mask_in_keys=mask_in_keys and one_mask),
    ):
        path = Path(folder) / "model.onnx"
        export(model, describe(model.config, task=task), path, opset=OPSET)
        graph: onnx.ModelProto = onnx.load(path)
    _keep_layer_norms_apart(graph)
    onnx.checker.check_model(graph, full_check=True)
    return graph


def _keep_layer_norms_apart(model: "onnx.ModelProto") -> None:
    """Write a sum before a LayerNormalization as Sum instead of Add, which is the same for two terms.

    ONNX Runtime joins Add and LayerNormalization into SkipLayerNormalization, and that kernel is slow on a CPU: at
    512 × 768 it takes 1.7 ms on one thread, where LayerNormalization takes 0.2 and the sum 0.1.
    """
    read = {node.input[0] for node in model.graph.node if node.op_type == "LayerNormalization"}
    for node in model.graph.node:
        if node.op_type == "Add" and node.output[0] in read:
            node.op_type = "Sum"


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
    *,
    mask_in_keys: bool,
    **_: Any,
) -> Tensor:
    """What scaled_dot_product_attention computes for an encoder, whose mask (B, 1, 1 or L, L) is to be added.

    With `mask_in_keys` the mask, of one row, is one more component of the keys, which the queries multiply by 1. It is
    so large that the division of all scores leaves it large enough; ONNX Runtime makes that division a part of the
    product.
    """
    assert attn_mask.is_floating_point()
    assert not dropout_p
    assert not is_causal
    assert scale is None or math.isclose(scale, query.shape[-1] ** -0.5)
    root = math.sqrt(query.shape[-1])
    if not mask_in_keys:
        return torch.softmax((query / root) @ key.transpose(-1, -2) + attn_mask, dim=-1) @ value
    mask_BHL1 = attn_mask.transpose(-1, -2).expand(-1, key.shape[1], -1, -1)
    query_BHLF = torch.cat([query, torch.ones_like(mask_BHL1)], dim=-1)
    key_BHLF = torch.cat([key, mask_BHL1], dim=-1)
    return torch.softmax(query_BHLF @ key_BHLF.transpose(-1, -2) / root, dim=-1) @ value


@contextlib.contextmanager
def attention_written_out(*, one_mask: bool, mask_in_keys: bool) -> Iterator[None]:
    """Let optimum's exporter trace attention as two products and a softmax instead of torch's one operator.

    The exporter unfolds that operator into two scalings, and a mask of length × length that is added to the scores of
    every head. Written out, int8 at 512 tokens takes 7 % less time in base shapes and 20 % less in tiny ones (in turns,
    one thread of a Xeon with AMX); of that the mask in the keys makes 1 and 8 % (on a Zen 4).

    optimum wraps torch's function while it exports, and calls the original by a name of its own; once optimum-intel
    has been imported it does not wrap it any more. So both names are replaced.

    Args:
        one_mask: whether all queries see the same, the rule for an encoder; no layer attends to a window then.
        mask_in_keys: only for one mask, and for graphs whose attention stays in floating point. Whoever quantises a
            product by the largest number in its operands would find the mask there, and nothing else would be left of
            the keys.
    """
    from optimum.exporters.onnx import model_patcher
    from transformers.modeling_attn_mask_utils import AttentionMaskConverter

    assert one_mask or not mask_in_keys
    attend = functools.partial(_attend, mask_in_keys=mask_in_keys)
    # transformers' masks have a row for each query. Where they are all the same, one is enough.
    expand = AttentionMaskConverter._expand_mask
    rows = (lambda mask, dtype, tgt_len: expand(mask, dtype, 1)) if one_mask else expand
    with (
        mock.patch.object(model_patcher, "original_scaled_dot_product_attention", attend),
        mock.patch.object(torch.nn.functional, "scaled_dot_product_attention", attend),
        mock.patch.object(AttentionMaskConverter, "_expand_mask", rows),
    ):
        yield
