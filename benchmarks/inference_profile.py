"""Where the time of the int8 OpenVINO files goes, by the runtime's own profile of a pass over one sequence.

python benchmarks/inference_profile.py --output benchmarks/results/inference_profile.json      about two minutes
"""

import argparse
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from inference_models import FULL, write_model

from distilrubert.modeling.reports import Environment, Measurements, Row

MODELS = ("base", "tiny")
FILES = {"openvino-int8": "openvino/openvino_model_qint8_quantized.xml", "peer-nncf-int8": "peers/nncf.xml"}
PASSES = 42
# The runtime's kinds of operation in the reader's words; what is not named is the rest: LayerNorms, sums, copies.
KINDS = {"FullyConnected": "products_with_weights_ms", "Subgraph": "attention_ms"}
REST = "rest_ms"


def profile(paths: Mapping[str, Path], length: int, threads: int) -> dict[str, dict[str, float]]:
    """For each file the median milliseconds of each kind of operation in a pass; the files take turns."""
    import openvino

    settings = {"INFERENCE_NUM_THREADS": threads, "PERF_COUNT": True}
    core = openvino.Core()
    requests = {name: core.compile_model(path, "CPU", settings).create_infer_request() for name, path in paths.items()}
    ids_BL = np.random.default_rng(0).integers(5, 400, (1, length))
    inputs = {"input_ids": ids_BL, "attention_mask": np.ones_like(ids_BL)}
    passes: dict[str, list[Counter[str]]] = {name: [] for name in paths}
    for _ in range(PASSES):
        for name, request in requests.items():
            request.infer(inputs, share_inputs=True)
            found: Counter[str] = Counter()
            for node in request.profiling_info:
                kind = next((kind for begin, kind in KINDS.items() if node.node_type.startswith(begin)), REST)
                found[kind] += node.real_time.total_seconds() * 1000
            passes[name].append(found)
    # Runtimes prepare themselves in the first ones.
    return {
        name: {kind: float(np.median([found[kind] for found in own[2:]])) for kind in (*KINDS.values(), REST)}
        for name, own in passes.items()
    }


def main() -> None:
    """Make the models, look into their files and write the report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="JSON file to write")
    parser.add_argument("--length", type=int, default=512, metavar="TOKENS")
    parser.add_argument("--threads", type=int, default=1, metavar="N")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as work:
        for name in MODELS:
            folder = write_model(name, FULL[name], Path(work), ("pytorch-fp32", "openvino-int8"))
            paths = {f"student-{name}-{file}": folder / path for file, path in FILES.items()}
            for case, figures in profile(paths, options.length, options.threads).items():
                rows.append(Row(case, figures))
                print(case, figures)
    details = {"sequence_length": options.length, "batch_size": 1}
    Measurements(Environment.capture(options.threads), rows, None, details).save(options.output)


if __name__ == "__main__":
    main()
