"""Dynamic int8 ONNX through optimum's ORTQuantizer, in the one form that every CPU computes alike.

What was chosen, and by what measurement (a real 12-layer BERT, 384 wide, 6,026 tokens of dialogue and plays; mean
cosine of the token vectors to fp32):

- A scale for each output channel: 0.981; one for each matrix: 0.87 with the seven bits below, 0.95 with eight.
- Signed weights in seven bits (``reduce_range``). Before VNNI (AVX2, AVX-512 without it) x86 multiplies bytes with
  VPMADDUBSW, which adds two products u8 × s8 in 16 bits: with |w| ≤ 64 the sum is at most 2 · 255 · 64 = 32640 <
  32767 and cannot saturate. Emulated with ``qemu-x86_64 -cpu Haswell`` the file gives the same vectors as on a CPU
  with VNNI and AMX to 4e-7; with eight bits they differ by 0.29. The seventh bit costs 0.0017 of cosine (0.9826
  against 0.9809): the error is mostly that of the activations. Unsigned weights do not saturate either, but their
  kernels took 1.7 times as long.
- Only products with weights. ORTQuantizer alone would also quantise the two products of attention, which is slower
  by a tenth (base shapes, 512 tokens) and no more exact.
- The embedding tables (Gather) too: half of the file, and no loss that shows.
"""

import tempfile
from pathlib import Path

from transformers import PretrainedConfig

from distilrubert.conversion.onnx import quiet_exporters, require_onnx
from distilrubert.modeling.persistence import atomic_file


def quantize_onnx(source: Path, target: Path, config: PretrainedConfig) -> None:
    """Write an int8 copy of an fp32 graph: 8-bit activations by their range at run time, 7-bit weights.

    Args:
        source: the fp32 graph.
        target: the file to write.
        config: of the model, which ORTQuantizer wants to know.

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
        weights_dtype=QuantType.QInt8,
        weights_symmetric=True,
        per_channel=True,
        reduce_range=True,
        operators_to_quantize=["MatMul", "Gather"],
        nodes_to_exclude=_products_of_activations(source),
    )
    # ORTQuantizer also writes two configurations, which have no place in the published folder.
    with (
        atomic_file(target) as beside,
        quiet_exporters(),
        tempfile.TemporaryDirectory(prefix=".quantization.", dir=target.parent) as work,
    ):
        ORTQuantizer(source, config=config).quantize(settings, save_dir=work, file_suffix="")
        (Path(work) / source.name).replace(beside)


def _products_of_activations(path: Path) -> list[str]:
    """Names of the matrix products whose second factor is no weight."""
    import onnx

    graph = onnx.load(path).graph
    weights = {weight.name for weight in graph.initializer}
    return [node.name for node in graph.node if node.op_type == "MatMul" and node.input[1] not in weights]
