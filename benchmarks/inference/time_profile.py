"""Where the time of the int8 files goes, by each runtime's own profile of a pass over one sequence.

python benchmarks/inference/time_profile.py --output benchmarks/results/inference_profile.json      about three minutes
"""

import argparse
import bisect
import json
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from random_models import FULL, write_model

from distilrubert.common.formats import OPENVINO_HINTS
from distilrubert.common.measurements import Environment, Measurements, Row
from distilrubert.modeling.runtimes import openvino_core

MODELS = ("base", "tiny")
OURS = ("pytorch-fp32", "openvino-int8", "onnx-int8-avx512-vnni")
OPENVINO = {"openvino-int8": "openvino/openvino_model_qint8_quantized.xml", "peer-nncf-int8": "peers/nncf.xml"}
ONNX = {
    "onnx-int8-avx512-vnni": "onnx/model_qint8_avx512_vnni.onnx",
    "peer-ortquantizer-int8": "peers/ortquantizer.onnx",
}
PASSES = 42
PRODUCTS, ATTENTION, REST = KINDS = ("products_with_weights_ms", "attention_ms", "rest_ms")

Pass = Counter[str]
"""Milliseconds of each kind of operation in one pass."""


class OpenvinoFile:
    """A file in OpenVINO. Its products have one name, attention's fused parts another."""

    KINDS = MappingProxyType({"FullyConnected": PRODUCTS, "Subgraph": ATTENTION})

    def __init__(self, path: Path, threads: int) -> None:
        hint = OPENVINO_HINTS["fp32"]
        settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": hint, "PERF_COUNT": True}
        self._request = openvino_core().compile_model(path, "CPU", settings).create_infer_request()
        self._passes: list[Pass] = []

    def run(self, inputs: Mapping[str, Any]) -> None:
        """Do a pass."""
        self._request.infer(inputs, share_inputs=True)
        found: Pass = Counter()
        for node in self._request.profiling_info:
            kind = next((kind for begin, kind in self.KINDS.items() if node.node_type.startswith(begin)), REST)
            found[kind] += node.real_time.total_seconds() * 1000
        self._passes.append(found)

    def passes(self) -> list[Pass]:
        """What has been done."""
        return self._passes


class OnnxFile:
    """A file in ONNX Runtime. Attention is one operator, or its tensors have an axis of heads, the fourth."""

    def __init__(self, path: Path, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.enable_profiling = True
        self._folder = tempfile.TemporaryDirectory()
        options.profile_file_prefix = str(Path(self._folder.name) / "profile")
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(self, inputs: Mapping[str, Any]) -> None:
        """Do a pass."""
        self._session.run(None, inputs)

    def passes(self) -> list[Pass]:
        """What has been done, from the profile that ends the session."""
        events = json.loads(Path(self._session.end_profiling()).read_text(encoding="utf-8"))
        starts = [event["ts"] for event in events if event["name"] == "model_run"]
        passes: list[Pass] = [Counter() for _ in starts]
        for event in events:
            if event["name"].endswith("_kernel_time"):
                passes[bisect.bisect(starts, event["ts"]) - 1][self._kind_of(event["args"])] += event["dur"] / 1000
        return passes

    @staticmethod
    def _kind_of(operation: Mapping[str, Any]) -> str:
        if operation["op_name"] == "MultiHeadAttention":
            return ATTENTION
        if any(len(shape) == 4 for value in operation.get("input_type_shape", []) for shape in value.values()):
            return ATTENTION
        # The rounding of their inputs belongs to the products.
        return PRODUCTS if operation["op_name"].startswith(("DynamicQuantize", "MatMulInteger")) else REST


def profile(files: Mapping[str, OpenvinoFile | OnnxFile], inputs: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """For each file the median milliseconds of each kind of operation in a pass; the files take turns."""
    for _ in range(PASSES):
        for file in files.values():
            file.run(inputs)
    # Runtimes prepare themselves in the first ones.
    kept = {name: file.passes()[2:] for name, file in files.items()}
    return {
        name: {kind: float(np.median([found[kind] for found in own])) for kind in KINDS} for name, own in kept.items()
    }


def main() -> None:
    """Make the models, look into their files and write the report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="JSON file to write")
    parser.add_argument("--length", type=int, default=512, metavar="TOKENS")
    parser.add_argument("--threads", type=int, default=1, metavar="N")
    options = parser.parse_args()
    ids_BL = np.random.default_rng(0).integers(5, 400, (1, options.length))
    inputs = {"input_ids": ids_BL, "attention_mask": np.ones_like(ids_BL)}
    rows = []
    with tempfile.TemporaryDirectory() as work:
        for name in MODELS:
            folder = write_model(name, FULL[name], Path(work), OURS)
            for opened, paths in ((OpenvinoFile, OPENVINO), (OnnxFile, ONNX)):
                files = {
                    f"student-{name}-{file}": opened(folder / path, options.threads) for file, path in paths.items()
                }
                for case, figures in profile(files, inputs).items():
                    rows.append(Row(case, figures))
                    print(case, figures)
    details = {"sequence_length": options.length, "batch_size": 1}
    Measurements(Environment.capture(options.threads), rows, None, details).save(options.output)


if __name__ == "__main__":
    main()
