import subprocess
import sys
from pathlib import Path

import pytest

from distilrubert.common.measurements import Measurements

BENCHMARKS = Path(__file__).parents[2] / "benchmarks" / "inference"


@pytest.mark.export
@pytest.mark.slow
def test_the_benchmark_measures_every_file_the_peers_and_the_ceiling(tmp_path):
    report_path = tmp_path / "inference.json"
    command = [sys.executable, "run.py", "--quick", "--threads", "1", "--output", report_path]
    subprocess.run(command, cwd=BENCHMARKS, check=True, capture_output=True)
    report = Measurements.load(report_path)
    cases = {row.case for row in report.rows}
    assert report.baseline == "teacher-pytorch-fp32" in cases
    ours = {"pytorch-fp32", "pytorch-bf16", "onnx-fp32", "onnx-int8", "openvino-fp32", "openvino-int8"}
    peers = {f"peer-{name}-int8" for name in ("pytorch", "ortquantizer", "ortoptimizer", "nncf")}
    assert {f"student-base-{name}" for name in ours | peers} <= cases
    for row in report.rows:
        assert row.values["gflop_per_s"] == pytest.approx(row.values["gflop"] * row.values["samples_per_s"])
        assert row.ratio == pytest.approx(row.values["latency_ratio"])
    assert report.details["ceiling_gflop_per_s"]["openvino"]["int8"] > 0
    for row in report.rows:
        inputs = row.values["inputs"]
        assert inputs.keys() == {"512-tokens", "128-tokens", "32-tokens", "texts"}
        assert inputs["512-tokens"]["latency_s"] == row.values["latency_s"]
        assert all(figures["samples_per_s"] > 0 for figures in inputs.values())
        assert inputs["texts"]["tokens_per_text"] > 5
    assert report.details["benchmark_app"]["latency_s"] > 0
    assert report_path.with_suffix(".png").stat().st_size > 1000
