"""OpenVINO files: the graph through optimum-intel's exporter, int8 through NNCF."""

import contextlib
import io
import logging
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel

from distilrubert.common.bars import progress_bar
from distilrubert.conversion.four_bit_embeddings import openvino_gather, pack_openvino_table
from distilrubert.conversion.onnx import quiet_exporters

if TYPE_CHECKING:
    import openvino

# OpenVINO names what the exporter left nameless by a counter of the process: MatMul_1234.
NAMED_BY_A_COUNTER = re.compile(r"[A-Za-z]+_\d+")
# What is added to the scores of padded positions: its exponential is exactly 0, and it is a number in 16 bits too, in
# which OpenVINO computes on ARM and on GPUs.
MASKED = -1e4
NARROW_HEAD = 32
"""Heads of so many dimensions or fewer have no scores in int8. OpenVINO 2026.4 computes them wrongly in bf16, which it
takes by itself on a CPU with AMX, where a text has exactly as many tokens as a head has dimensions: with 32, a token's
cosine to the same in fp32 arithmetic was 0.78, with 22 0.91, with 16 0.997; with 48, 64, 96 and 128 it was 0.9996."""


def export_openvino(model: PreTrainedModel, task: str) -> "openvino.Model":
    """The graph of a model in fp32: input_ids and attention_mask to the outputs of a task, as optimum names it."""
    import openvino
    from optimum.exporters.openvino import export_from_model
    from optimum.intel import OVConfig

    with tempfile.TemporaryDirectory() as folder, quiet_exporters():
        # Without a configuration, weights of more than a thousand million numbers become int8 by themselves.
        export_from_model(model, output=folder, task=task, ov_config=OVConfig(dtype="fp32"))
        # The weights are mapped from the file, which the copy outlives.
        return openvino.Core().read_model(Path(folder) / "openvino_model.xml").clone()


def quantize_openvino(
    graph: "openvino.Model",
    inputs: Iterable[dict[str, NDArray[np.int64]]],
    maps_in_fp32: Sequence[str],
    embedding_bits: int = 8,
) -> "openvino.Model":
    """An int8 copy of a graph: 8-bit weights and embedding tables, 8-bit activations by calibration.

    What was chosen, and by what measurement (six layers of a real BERT, 384 wide, mean token cosine to fp32; base
    shapes at 512 tokens on one thread of a CPU with AMX):

    - Of attention's two products the scores are int8: no faster with AMX, and a tenth without it. A real
      12-layer teacher has 0.9968 instead of 0.9969, and on texts of 512 tokens 0.9958 instead of 0.9961, its least
      token 0.65 instead of 0.86 (benchmarks/results/inference_parity.json). The other product is not: quantising the
      softmax too would save 7 % more, but a long text's probabilities are too small for steps of 1/255: 0.982
      instead of 0.992. Scores of narrow heads stay (:data:`NARROW_HEAD`).
    - Asymmetric activations: unsigned bytes are what VNNI multiplies with signed ones. Without AMX 122.9 against
      133.3 ms; with it, which takes both, 51.8 against 50.6. 0.9969 against 0.9960 (the 12-layer teacher).
    - The model is smoothed before, as for ONNX, and not by NNCF: 0.9986 against 0.9983.
    - Eight bits, not seven. Limited by ONEDNN_MAX_CPU_ISA to AVX-512 or AVX2 without VNNI, where sums can saturate,
      0.99863 becomes 0.99820; the seven-bit file has 0.99765 on every CPU.

    The linear maps of `maps_in_fp32`, named as PyTorch calls the modules, are not quantised.
    """
    import nncf
    from openvino._offline_transformations import compress_quantize_weights_transformation

    calibration = list(inputs)
    left_out = [*_products_of(graph, maps_in_fp32), *_narrow_attention(graph)]
    if embedding_bits == 4:
        left_out.append(openvino_gather(graph).get_friendly_name())
    # NNCF runs through the texts as often as its steps need, which is not known before.
    with _quiet_nncf(), progress_bar("quantising", None, unit="text") as bar:

        def shown(values: dict[str, NDArray[np.int64]]) -> dict[str, NDArray[np.int64]]:
            bar.update()
            return values

        quantized = nncf.quantize(
            graph,
            nncf.Dataset(calibration, shown),
            model_type=nncf.ModelType.TRANSFORMER,
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(calibration),
            ignored_scope=nncf.IgnoredScope(names=left_out),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                overflow_fix=nncf.OverflowFix.DISABLE, smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(matmul=-1)
            ),
        )
        compress_quantize_weights_transformation(quantized)
        return pack_openvino_table(quantized) if embedding_bits == 4 else quantized


def _narrow_attention(graph: "openvino.Model") -> list[str]:
    """Names of the nodes that compute attention in narrow heads."""
    attention = [node for node in graph.get_ops() if node.get_type_name() == "ScaledDotProductAttention"]
    return [node.get_friendly_name() for node in attention if _head_width(node) <= NARROW_HEAD]


def _head_width(attention: "openvino.Node") -> int:
    return int(attention.get_input_partial_shape(0)[-1].get_length())


def _products_of(graph: "openvino.Model", maps: Sequence[str]) -> list[str]:
    """Names of the nodes that multiply with the weights of those linear maps."""
    products = [node.get_friendly_name() for node in graph.get_ops() if node.get_type_name() == "MatMul"]
    modules = {name: name.partition("/")[0].removeprefix("__module.") for name in products}
    missing = set(maps) - set(modules.values())
    assert not missing, f"the OpenVINO graph has no product for {sorted(missing)}, which must stay in fp32"
    return [name for name in products if modules[name] in maps]


def save_openvino(graph: "openvino.Model", target: Path, *, one_mask: bool, half: bool = False) -> None:
    """Write a graph as `target` (.xml) and the weights beside it (.bin), in fp16 if `half`.

    With `one_mask` all queries see the same, and attention is written out. What has no name of its own gets one that is
    the same in every process.
    """
    import openvino

    if one_mask:
        _write_out_attention(graph)
    graph.set_friendly_name("model")
    for index, node in enumerate(graph.get_ordered_ops()):
        if NAMED_BY_A_COUNTER.fullmatch(node.get_friendly_name()):
            node.set_friendly_name(f"{node.get_type_name()}_{index}")
    target.parent.mkdir(parents=True, exist_ok=True)
    openvino.save_model(graph, target, compress_to_fp16=half)


def _write_out_attention(graph: "openvino.Model") -> None:
    """Replace the one operator for attention by products and a softmax, with the mask as one row.

    The CPU plugin unfolds that operator itself, into a copy of the keys that is transposed outside of its fused kernel
    and a mask of length × length. Written out so, base shapes take 6 % less time at 512 tokens (int8, one thread: 51.8
    against 55.0 ms), and attention is one fused kernel as before.
    """
    from openvino import opset13 as ops

    attention = [node for node in graph.get_ops() if node.get_type_name() == "ScaledDotProductAttention"]
    mask_BL = next(parameter for parameter in graph.get_parameters() if "attention_mask" in parameter.output(0).names)
    mask_B11L = ops.unsqueeze(ops.convert(mask_BL, "f32"), np.array([1, 2]))
    bias_B11L = ops.multiply(ops.subtract(mask_B11L, _number(1)), _number(-MASKED))
    for node in attention:
        query, key, value = (node.input_value(index) for index in range(3))
        scaled = ops.multiply(query, _number(_head_width(node) ** -0.5))
        scores = ops.add(ops.matmul(scaled, key, transpose_a=False, transpose_b=True), bias_B11L)
        written = ops.matmul(ops.softmax(scores, axis=-1), value, transpose_a=False, transpose_b=False)
        written.set_friendly_name(node.get_friendly_name())
        node.output(0).replace(written.output(0))
    graph.validate_nodes_and_infer_types()


def _number(value: float) -> "openvino.Node":
    from openvino import opset13 as ops

    constant: openvino.Node = ops.constant(np.float32(value))
    return constant


@contextlib.contextmanager
def _quiet_nncf() -> Iterator[None]:
    """Hold back NNCF's messages, and its progress bars, which go to standard output."""
    import nncf

    nncf.set_log_level(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        nncf.set_log_level(logging.INFO)
