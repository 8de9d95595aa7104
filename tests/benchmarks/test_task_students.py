"""Reference students of tasks: what is collected and shown, out of invented reports."""

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from distilrubert.common.measurements import Environment, Measurements, Row
from distilrubert.evaluation.tasks.metrics import compute_metrics
from distilrubert.evaluation.tasks.row_results import row_results

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
NAME, METRIC = "paraphraser", "accuracy"
REFERENCES = [0, 1] * 40


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    for folder in (BENCHMARKS, BENCHMARKS / "reference"):
        monkeypatch.syspath_prepend(str(folder))
    return importlib.import_module("task_students")


def row(case: str, wrong: int, **values: Any) -> Row:
    """A model that is wrong in the first rows."""
    found = [1 - label for label in REFERENCES[:wrong]] + REFERENCES[wrong:]
    score = compute_metrics([METRIC], found, REFERENCES)[METRIC]
    summary = {METRIC: {"values": [score]}, "rows": [row_results(METRIC, found, REFERENCES)]}
    return Row(case, {"tasks": {NAME: summary}, **values})


def report(alone: int, distilled: int, different: int) -> Measurements:
    """Of one seed: how many rows the students get wrong, and how often the int8 files decide like the student."""
    files = [
        row(case, distilled, path=case, size_mib=10.0, decisions=100, different_decisions=different)
        for case in ("pytorch-fp32", "onnx-int8", "openvino-int8")
    ]
    others = [row("majority-class", 40), row("bag-of-words", 24), row("teacher", 4, parameters=100)]
    details = {"metric": METRIC, "revision": "abc", "rows": {"test_rows": 80}, "calibration": None, "overrides": []}
    machine = Environment("Invented CPU", [], 2, {}, "2026-01-01", 2, 8.0)
    return Measurements(machine, [*files, *others, row("student-alone", alone, parameters=50)], details=details)


def test_seeds_are_collected_and_compared(script: ModuleType, tmp_path: Path) -> None:
    report(alone=20, distilled=8, different=0).save(tmp_path / "paraphraser-3-seed-1.json")
    report(alone=16, distilled=4, different=2).save(tmp_path / "paraphraser-3-seed-2.json")
    report(alone=8, distilled=7, different=0).save(tmp_path / "paraphraser-6-seed-1.json")
    trial = report(alone=40, distilled=40, different=0)
    trial.details["overrides"] = ["task.finetuning.train_limit=40"]
    trial.save(tmp_path / "paraphraser-6-seed-2.json")
    found = script.collect(tmp_path)
    assert found["paraphraser-3-alone"].values["tasks"][NAME][METRIC]["values"] == pytest.approx([0.75, 0.8])
    assert found["paraphraser-3-distilled"].values["tasks"][NAME][METRIC]["values"] == pytest.approx([0.9, 0.95])
    assert found["paraphraser-3-onnx-int8"].values["equal_decisions"] == pytest.approx(0.98)
    assert found["paraphraser-teacher"].values["parameters"] == 100
    three, six = (found.details["students"][f"paraphraser-{size}"]["comparison"] for size in "36")
    assert three["difference"] == pytest.approx(0.15)
    assert three["p_value"] < 0.01
    # One row of eighty is chance.
    assert six["difference"] == pytest.approx(1 / 80), "a trial with other settings is left out"
    assert six["p_value"] > 0.2


def test_the_table_shows_the_lead_that_is_kept(script: ModuleType, tmp_path: Path) -> None:
    report(alone=20, distilled=8, different=3).save(tmp_path / "paraphraser-3-seed-1.json")
    text = importlib.import_module("document").VIEWS["task_students", "rows"](script.collect(tmp_path))
    # Of 45 points between the majority class and the teacher the student has 40.
    line = (
        "| paraphraser, 3 layers | 50.0 | 70.0 | 95.0 | 75.0 | 90.0 | +15.0 \\* | 89% | 90.0 | 90.0 | 97.0% | 97.0% |"
    )
    assert line in text
    assert "one seed of each student" in text
