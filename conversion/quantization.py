"""Dynamic int8 ONNX through ONNX Runtime's quantize_dynamic, in a form for each kind of CPU.

What was chosen, and by what measurement (a real 12-layer BERT, 384 wide; mean cosine of the token vectors to fp32):

- The graph of a smoothed model (see smoothing.py): 0.994 instead of 0.981, for a multiplication more before a product.
- A scale for each output channel; one for each matrix gives 0.87 with seven bits and 0.95 with eight, unsmoothed.
- Only products with weights. To quantise the two products of attention as well, as optimum's ORTQuantizer does, is
  slower by a tenth (base shapes, 512 tokens) and no more exact.
- The embedding tables (Gather) too: half of the file, and no loss that shows.
- Ranges of activations are taken at run time. Fixed ones (QDQ, calibrated) were no faster: 144 against 136 ms.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from distilrubert.common.persistence import atomic_file
from distilrubert.conversion.onnx import quiet_exporters, require_onnx

if TYPE_CHECKING:
    import onnx


@dataclasses.dataclass(frozen=True)
class Weights:
    """How weights are stored.

    Attributes:
        signed: with a zero in the middle; else with one of their own.
        seven_bits: use half of the range.
    """

    signed: bool = True
    seven_bits: bool = False


# Before VNNI (AVX2, AVX-512 without it) x86 multiplies bytes with VPMADDUBSW, which adds two products u8 × s8 in 16
# bits: with |w| ≤ 64 the sum is at most 2 · 255 · 64 = 32640 < 32767 and cannot saturate. Emulated with
# ``qemu-x86_64 -cpu Haswell`` such a file gives the same vectors as on a CPU with VNNI and AMX to 4e-7; with eight
# bits they differ by 0.29. The seventh bit costs 0.0017 of cosine: the error is mostly that of the activations.
EVERYWHERE = Weights(seven_bits=True)
# Unsigned bytes are widened to 16 bits before they are multiplied, so that all eight bits are safe.
AVX2 = Weights(signed=False)
# VNNI and ARM's dot products add in 32 bits.
AVX512_VNNI = ARM64 = Weights()


def quantize_onnx(
    graph: "onnx.ModelProto", target: Path, weights: Weights = EVERYWHERE, maps_in_fp32: Sequence[str] = ()
) -> None:
    """Write an int8 copy of an fp32 graph: 8-bit activations by their range at run time.

    Args:
        graph: in fp32.
        target: the file to write.
        weights: how they are stored.
        maps_in_fp32: names of linear maps that are not quantised, as PyTorch calls the modules.

    Raises:
        UserError: if the packages are missing or the file cannot be written.
    """
    require_onnx()
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    # Or it advises to preprocess the graph, through the root logger.
    add_pre_process_metadata(graph)
    with atomic_file(target) as beside, quiet_exporters():
        quantize_dynamic(
            graph,
            beside,
            op_types_to_quantize=["MatMul", "Gather"],
            per_channel=True,
            reduce_range=weights.seven_bits,
            weight_type=QuantType.QInt8 if weights.signed else QuantType.QUInt8,
            nodes_to_exclude=_products_of(graph, maps_in_fp32),
            extra_options={"WeightSymmetric": weights.signed},
        )


def _products_of(model: "onnx.ModelProto", maps: Sequence[str]) -> list[str]:
    """Names of the nodes that multiply with the weights of those linear maps."""
    names = [node.name for node in model.graph.node if node.op_type == "MatMul"]
    # The exporter writes the modules' names with slashes, and those of a list of layers with dots.
    found = {name.replace(".", "/").strip("/"): name for name in names}
    wanted = dict.fromkeys(f"{name.replace('.', '/')}/MatMul" for name in maps)
    missing = wanted.keys() - found.keys()
    assert not missing, f"the ONNX graph has no product for {sorted(missing)}, which must stay in fp32"
    return [found[path] for path in wanted]
