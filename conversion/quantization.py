"""Dynamic int8 ONNX through optimum's ORTQuantizer, in a form for each kind of CPU.

What was chosen, and by what measurement (a real 12-layer BERT, 384 wide; mean cosine of the token vectors to fp32):

- The graph of a smoothed model (see smoothing.py): 0.994 instead of 0.981, for a multiplication more before a product.
- A scale for each output channel; one for each matrix gives 0.87 with seven bits and 0.95 with eight, unsmoothed.
- Only products with weights. ORTQuantizer alone would also quantise the two products of attention, which is slower
  by a tenth (base shapes, 512 tokens) and no more exact.
- The embedding tables (Gather) too: half of the file, and no loss that shows.
- Ranges of activations are taken at run time. Fixed ones (QDQ, calibrated) were no faster: 144 against 136 ms.
"""

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path

from transformers import PretrainedConfig

from distilrubert.common.persistence import atomic_file
from distilrubert.conversion.onnx import quiet_exporters, require_onnx


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
    source: Path, target: Path, config: PretrainedConfig, weights: Weights = EVERYWHERE, keep: Sequence[str] = ()
) -> None:
    """Write an int8 copy of an fp32 graph: 8-bit activations by their range at run time.

    Args:
        source: the fp32 graph.
        target: the file to write.
        config: of the model, which ORTQuantizer wants to know.
        weights: how they are stored.
        keep: names of linear maps that stay in fp32, as PyTorch calls the modules.

    Raises:
        UserError: if the packages are missing or the file cannot be written.
    """
    require_onnx()
    from onnxruntime.quantization import QuantFormat, QuantizationMode, QuantType
    from optimum.onnxruntime import ORTQuantizer
    from optimum.onnxruntime.configuration import QuantizationConfig

    settings = QuantizationConfig(
        is_static=False,
        format=QuantFormat.QOperator,
        mode=QuantizationMode.IntegerOps,
        activations_dtype=QuantType.QUInt8,
        weights_dtype=QuantType.QInt8 if weights.signed else QuantType.QUInt8,
        weights_symmetric=weights.signed,
        per_channel=True,
        reduce_range=weights.seven_bits,
        operators_to_quantize=["MatMul", "Gather"],
        nodes_to_exclude=_products_to_keep(source, keep),
    )
    # ORTQuantizer also writes two configurations, which have no place in the published folder.
    with (
        atomic_file(target) as beside,
        quiet_exporters(),
        tempfile.TemporaryDirectory(prefix=".quantization.", dir=target.parent) as work,
    ):
        ORTQuantizer(source, config=config).quantize(settings, save_dir=work, file_suffix="")
        (Path(work) / source.name).replace(beside)


def _products_to_keep(path: Path, keep: Sequence[str]) -> list[str]:
    """Names of the matrix products whose second factor is no weight, and of those of the maps in `keep`."""
    import onnx

    graph = onnx.load(path).graph
    weights = {weight.name for weight in graph.initializer}
    kept = {f"/{name.replace('.', '/')}/MatMul" for name in keep}
    return [
        node.name
        for node in graph.node
        if node.op_type == "MatMul" and (node.input[1] not in weights or node.name.replace(".", "/") in kept)
    ]
