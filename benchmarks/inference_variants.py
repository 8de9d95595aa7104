"""What else could make the int8 OpenVINO files faster, each idea against the file as it is published.

python benchmarks/inference_variants.py --output benchmarks/results/inference_variants.json      about two minutes

The graphs take turns on one thread, and the time is that of the processor, so that other programs disturb little.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from inference_models import FULL, write_model

from distilrubert.modeling.reports import Environment, Measurements, Row

MODELS = ("base", "tiny")
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


CHANGES: dict[str, Callable[[Any, int], None]] = {
    "as-published": lambda graph, length: None,
    "fixed-shapes": fix_shapes,
    "no-mask": drop_mask,
    "gelu-by-tanh": approximate_gelu,
    "relu-for-gelu": cheapest_activation,
}


def compare(path: Path, length: int, passes: int) -> dict[str, dict[str, float]]:
    """For each change the median milliseconds of a pass, and the median over passes of its time over the first's."""
    import openvino

    ids_BL = np.random.default_rng(0).integers(5, 400, (1, length))
    inputs = {"input_ids": ids_BL, "attention_mask": np.ones_like(ids_BL)}
    core = openvino.Core()
    requests = {}
    for name, change in CHANGES.items():
        graph = core.read_model(path)
        change(graph, length)
        graph.validate_nodes_and_infer_types()
        requests[name] = core.compile_model(graph, "CPU", {"INFERENCE_NUM_THREADS": 1}).create_infer_request()
        for _ in range(3):
            requests[name].infer(inputs, share_inputs=True)
    seconds: dict[str, list[float]] = {name: [] for name in CHANGES}
    for turn in range(passes):
        for name in list(CHANGES)[:: 1 if turn % 2 == 0 else -1]:
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
                print(rows[-1].case, rows[-1].figures)
    details = {"sequence_length": options.length, "batch_size": 1, "passes": options.passes}
    Measurements(Environment.capture(1), rows, None, details).save(options.output)


if __name__ == "__main__":
    main()
