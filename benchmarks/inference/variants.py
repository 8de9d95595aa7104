"""What else could make the int8 OpenVINO files faster, each idea against the file as it is published.

python benchmarks/inference/variants.py --output benchmarks/results/inference_variants.json      about three minutes

The graphs take turns on one thread, and the time is that of the processor, so that other programs disturb little.
"""

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from random_models import FULL, write_model

from distilrubert.common.measurements import Environment, Measurements, Row
from distilrubert.modeling.runtimes import openvino_core

MODELS = ("base", "tiny")
# What only arranges an activation anew, or scales it.
MOVES = ("Reshape", "Transpose", "Multiply")
FILE = "openvino/openvino_model_qint8_quantized.xml"


def fix_shapes(graph: Any, length: int) -> None:
    """No free axis: one sequence of `length` tokens."""
    graph.reshape({"input_ids": [1, length], "attention_mask": [1, length]})


def drop_mask(graph: Any, length: int) -> None:
    """Scores go into the softmax without the mask, as if nothing were ever padded."""
    for node in graph.get_ops():
        if node.get_type_name() == "Softmax":
            node.input(0).replace_source_output(node.input_value(0).get_node().input_value(0))


def approximate_gelu(graph: Any, length: int) -> None:
    """GELU by tanh instead of the error function."""
    from openvino import opset13 as ops

    _replace_gelu(graph, lambda source: ops.gelu(source, "tanh"))


def cheapest_activation(graph: Any, length: int) -> None:
    """ReLU instead of GELU, another model: a bound on what a faster GELU could bring."""
    from openvino import opset13 as ops

    _replace_gelu(graph, ops.relu)


def _replace_gelu(graph: Any, make: Callable[[Any], Any]) -> None:
    for node in graph.get_ops():
        if node.get_type_name() == "Gelu":
            node.output(0).replace(make(node.input_value(0)).output(0))


def scores_in_float(graph: Any, length: int) -> None:
    """The products of queries and keys are not quantised."""
    for product in _products_of_attention(graph):
        if product.input_value(0).get_node().get_type_name() == "Softmax":
            continue
        for edge in product.inputs():
            while (above := edge.get_source_output().get_node()).get_type_name() in MOVES:
                edge = above.input(0)
            assert above.get_type_name() == "FakeQuantize", above.get_friendly_name()
            edge.replace_source_output(above.input_value(0))


def probabilities_in_int8(graph: Any, length: int) -> None:
    """The softmax and the values are quantised too, which a long text does not bear (conversion/openvino.py).

    The values' range is made up: only the time means anything.
    """
    from openvino import opset13 as ops

    for product in _products_of_attention(graph):
        if product.input_value(0).get_node().get_type_name() == "Softmax":
            for side, (low, high) in enumerate(((0.0, 1.0), (-4.0, 4.0 * 127 / 128))):
                ends = [ops.constant(np.full((1, 1, 1, 1), end, dtype=np.float32)) for end in (low, high)]
                rounded = ops.fake_quantize(product.input_value(side), *ends, *ends, 256)
                product.input(side).replace_source_output(rounded.output(0))


def _products_of_attention(graph: Any) -> list[Any]:
    """Products of two activations; a weight is not transposed on its way."""
    products = [node for node in graph.get_ordered_ops() if node.get_type_name() == "MatMul"]
    return [node for node in products if node.input_value(1).get_node().get_type_name() == "Transpose"]


@dataclasses.dataclass(frozen=True)
class Variant:
    """One idea.

    Attributes:
        change: what it does to the graph, for sequences of a length.
        settings: what it tells OpenVINO.
    """

    change: Callable[[Any, int], None] = lambda graph, length: None
    settings: Mapping[str, str] = dataclasses.field(default_factory=dict)


IN_FP32 = {"INFERENCE_PRECISION_HINT": "f32"}
VARIANTS = {
    "as-published": Variant(),
    "in-fp32": Variant(settings=IN_FP32),
    "scores-in-float": Variant(scores_in_float),
    "scores-in-float-in-fp32": Variant(scores_in_float, IN_FP32),
    "probabilities-in-int8": Variant(probabilities_in_int8),
    "probabilities-in-int8-in-fp32": Variant(probabilities_in_int8, IN_FP32),
    "fixed-shapes": Variant(fix_shapes),
    "no-mask": Variant(drop_mask),
    "gelu-by-tanh": Variant(approximate_gelu),
    "relu-for-gelu": Variant(cheapest_activation),
}


def compare(path: Path, length: int, passes: int) -> dict[str, dict[str, float]]:
    """For each variant the median milliseconds of a pass, and the median over passes of its time over the first's."""
    ids_BL = np.random.default_rng(0).integers(5, 400, (1, length))
    inputs = {"input_ids": ids_BL, "attention_mask": np.ones_like(ids_BL)}
    core = openvino_core()
    requests = {}
    for name, variant in VARIANTS.items():
        graph = core.read_model(path)
        variant.change(graph, length)
        graph.validate_nodes_and_infer_types()
        settings = {"INFERENCE_NUM_THREADS": 1, **variant.settings}
        requests[name] = core.compile_model(graph, "CPU", settings).create_infer_request()
        for _ in range(3):
            requests[name].infer(inputs, share_inputs=True)
    seconds: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for turn in range(passes):
        for name in list(VARIANTS)[:: 1 if turn % 2 == 0 else -1]:
            begin = time.process_time()
            requests[name].infer(inputs, share_inputs=True)
            seconds[name].append(time.process_time() - begin)
    first = np.array(seconds["as-published"])
    return {
        name: {"time_ms": 1000 * float(np.median(own)), "time_ratio": float(np.median(np.array(own) / first))}
        for name, own in seconds.items()
    }


def main() -> None:
    """Make the models, measure and write the report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="JSON file to write")
    parser.add_argument("--length", type=int, default=512, metavar="TOKENS")
    parser.add_argument("--passes", type=int, default=40, metavar="N")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as work:
        for model in MODELS:
            path = write_model(model, FULL[model], Path(work), ("pytorch-fp32", "openvino-int8")) / FILE
            for name, figures in compare(path, options.length, options.passes).items():
                rows.append(Row(f"{model}-{name}", figures))
                print(rows[-1].case, rows[-1].values)
    details = {"sequence_length": options.length, "batch_size": 1, "passes": options.passes}
    Measurements(Environment.capture(1), rows, None, details).save(options.output)


if __name__ == "__main__":
    main()
