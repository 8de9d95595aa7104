"""A model as an ONNX graph, through optimum's exporter."""

import contextlib
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import PreTrainedModel

from distilrubert.common.errors import UserError
from distilrubert.common.persistence import atomic_file
from distilrubert.conversion.attention_export import attention_written_out
from distilrubert.modeling.checkpoints import quiet_transformers

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
    """The graph of a model: input_ids and attention_mask (for a BERT also token_type_ids) to the task's outputs.

    Batch and sequence length are free. The model is an encoder, or with the head of the task, in fp32 with SDPA
    attention. Without `mask_in_keys`, see :func:`~distilrubert.conversion.attention_export.attention_written_out`, the
    graph can be quantised by anybody.

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
    with (
        tempfile.TemporaryDirectory() as folder,
        quiet_exporters(),
        attention_written_out(mask_in_keys=mask_in_keys),
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
