import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from distilrubert.common.measurements import Measurements

BENCHMARKS = Path(__file__).parents[2] / "benchmarks" / "inference"


@pytest.fixture
def conversation(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("conversation")


def test_figures_of_a_conversation_by_hand(conversation: ModuleType) -> None:
    # 120 tokens in 1, 2, 3 s: 120, 60, 40 a second, quartiles 50 and 90; sorted 240, 120, 60, quartiles 90 and 180.
    found = conversation.conversation_figures(120, {"arrival": [2.0, 1.0, 3.0], "sorted": [0.5, 1.0, 2.0]})
    assert found == {
        "arrival_tokens_per_s": 60,
        "arrival_spread_tokens_per_s": 40,
        "sorted_tokens_per_s": 120,
        "sorted_spread_tokens_per_s": 90,
        "sorted_over_arrival": 2,
    }


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
    peers = {"peer-pytorch-int8", "peer-ortquantizer-int8", "peer-nncf-int8"}
    assert {f"student-base-{name}" for name in ours | peers} <= cases
    for row in report.rows:
        assert row.values["gflop_per_s"] == pytest.approx(row.values["gflop"] * row.values["samples_per_s"])
        assert row.ratio == pytest.approx(row.values["latency_ratio"])
    assert report.details["ceiling_gflop_per_s"]["openvino"]["int8"] > 0
    conversation = report.details["conversation"]["base-openvino-int8"]
    assert conversation["sorted_over_arrival"] == pytest.approx(
        conversation["sorted_tokens_per_s"] / conversation["arrival_tokens_per_s"]
    )
    assert report_path.with_suffix(".png").stat().st_size > 1000
