"""Dynamic int8 ONNX through ONNX Runtime's quantize_dynamic, in a form for each kind of CPU.

What was chosen, and by what measurement (a real 12-layer BERT, 384 wide; mean cosine of the token vectors to fp32):

- The graph of a smoothed model (see smoothing.py): 0.994 instead of 0.981, for a multiplication more before a product.
- A scale for each output channel; one for each matrix gives 0.87 with seven bits and 0.95 with eight, unsmoothed.
- Only products with weights. To quantise the two products of attention as well, as optimum's ORTQuantizer does, is
  slower by a tenth (base shapes, 512 tokens) and no more exact.
- The embedding tables (Gather) too: half of the file, and no loss that shows.
- A head whose product has the word embeddings as its weights shares their bytes, with a scale for each token.
- Ranges of activations are taken at run time. Fixed ones (QDQ, calibrated) were no faster: 144 against 136 ms.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from distilrubert.common.persistence import atomic_file
from distilrubert.conversion.four_bit_embeddings import pack_onnx_table, tokens_gather
from distilrubert.conversion.onnx import quiet_exporters
from distilrubert.conversion.tied_embeddings import share_tied_embeddings, tied_embeddings

if TYPE_CHECKING:
    import onnx


def quantize_onnx(
    graph: "onnx.ModelProto",
    target: Path,
    maps_in_fp32: Sequence[str] = (),
    *,
    signed: bool = True,
    seven_bits: bool = False,
    embedding_bits: int = 8,
) -> None:
    """Write an int8 copy of an fp32 graph: 8-bit activations by their range at run time.

    The linear maps of `maps_in_fp32`, named as PyTorch calls the modules, are not quantised. `signed` weights have
    their zero in the middle, else one of their own; `seven_bits` use half of the range. Word embeddings that a head
    shares have eight bits.

    Raises:
        UserError: if the file cannot be written.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    left_out = _products_of(graph, maps_in_fp32)
    if embedding_bits == 4:
        left_out.append(tokens_gather(graph).name)
    # Or it advises to preprocess the graph, through the root logger.
    add_pre_process_metadata(graph)
    with atomic_file(target) as beside, quiet_exporters():
        quantize_dynamic(
            graph,
            beside,
            op_types_to_quantize=["MatMul", "Gather"],
            per_channel=True,
            reduce_range=seven_bits,
            weight_type=QuantType.QInt8 if signed else QuantType.QUInt8,
            nodes_to_exclude=left_out,
            # The type of what ONNX Runtime's own operators return is not known to onnx.
            extra_options={"WeightSymmetric": signed, "DefaultTensorType": onnx.TensorProto.FLOAT},
        )
        # A table is shared whose zeros are in the middle.
        tied = tied_embeddings(graph) if signed else None
        if embedding_bits == 8 and not tied:
            return
        quantized = onnx.load(beside)
        if embedding_bits == 4:
            pack_onnx_table(quantized)
        elif tied:
            share_tied_embeddings(quantized, tied)
        onnx.save(quantized, beside)


def _products_of(model: "onnx.ModelProto", maps: Sequence[str]) -> list[str]:
    """Names of the nodes that multiply with the weights of those linear maps."""
    found = {}
    for node in model.graph.node:
        # The exporter writes the modules' names with slashes, and those of a list of layers with dots.
        module, _, operator = node.name.replace(".", "/").strip("/").rpartition("/")
        if operator in ("MatMul", "Gemm"):
            # Maps of one vector for each text are Gemm, which quantize_dynamic takes apart before it quantises.
            found[module] = node.name if operator == "MatMul" else f"{node.name}_MatMul"
    wanted = dict.fromkeys(name.replace(".", "/") for name in maps)
    missing = wanted.keys() - found.keys()
    assert not missing, f"the ONNX graph has no product for {sorted(missing)}, which must stay in fp32"
    return [found[path] for path in wanted]
