import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import pytest

from distilrubert.common.measurements import Measurements
from distilrubert.evaluation.speed.benchmark import SpeedCase

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


class Clock:
    """In place of the measuring process: a pass takes a second for each token, padding too, and its first 1000 more."""

    asked: ClassVar[list[tuple[str, int, int, int]]] = []

    def __init__(self, name: str, threads: int, program: tuple[str, ...]) -> None:
        self.name = name
        self.seen: set[tuple[int, int]] = set()

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def ask(self, command: str, **given):
        if command == "open":
            return {}
        shape = given["batch_size"], given["sequence_length"]
        self.asked.append((self.name, *shape, given["warmup"]))
        first = shape not in self.seen
        self.seen.add(shape)
        return {"seconds": [shape[0] * shape[1] + 1000.0 * first]}


def test_the_pass_that_prepares_is_made_once_and_does_not_count(conversation, monkeypatch, tmp_path):
    monkeypatch.setattr(conversation, "SpeedProcess", Clock)
    monkeypatch.setattr(conversation, "BATCH", 2)
    monkeypatch.setattr(Clock, "asked", [])
    cases = [SpeedCase(name, tmp_path, "pytorch-fp32") for name in ("a", "b")]
    found = conversation.measure_conversation(
        cases, [5, 1, 4, 2, 3], vocabulary=9, threads=1, rounds=2, program=("program",)
    )
    assert (found["texts"], found["tokens"], found["batch"]) == (5, 15, 2)
    arrival, ordered = [(2, 5), (2, 4), (1, 3)], [(2, 2), (2, 4), (1, 5)]
    assert [(name, *shape, 0) for _ in range(3) for name in "ab" for shape in arrival + ordered] == Clock.asked
    for name in ("a", "b"):
        assert found[name]["arrival_tokens_per_s"] == pytest.approx(15 / (10 + 8 + 3))
        assert found[name]["sorted_tokens_per_s"] == pytest.approx(15 / (4 + 8 + 5))
        assert found[name]["arrival_spread_tokens_per_s"] == 0


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
        assert row.figures["gflop_per_s"] == pytest.approx(row.figures["gflop"] * row.figures["samples_per_s"])
        assert row.ratio == pytest.approx(row.figures["latency_ratio"])
    assert report.details["ceiling_gflop_per_s"]["openvino"]["int8"] > 0
    conversation = report.details["conversation"]["base-openvino-int8"]
    assert conversation["sorted_over_arrival"] == pytest.approx(
        conversation["sorted_tokens_per_s"] / conversation["arrival_tokens_per_s"]
    )
    assert report_path.with_suffix(".png").stat().st_size > 1000
