"""How soon a demo page answers: what is kept of each start."""

import importlib
from pathlib import Path

import pytest


def test_each_start_keeps_its_median_and_its_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    page_speed = importlib.import_module("page_speed")
    starts = [
        {"first_s": 1.5, "milliseconds": {"sentence": [9.0, 7.0, 20.0], "paragraph": [50.0]}},
        {"first_s": 1.25, "milliseconds": {"sentence": [8.0, 8.0, 8.5], "paragraph": [40.0, 60.0]}},
    ]
    assert page_speed.row_of("tiny", 7, starts).values == {
        "parameters": 7,
        "first_prediction_s": [1.5, 1.25],
        "sentence_ms": [9.0, 8.0],
        "paragraph_ms": [50.0, 50.0],
        "sentence_longest_ms": [20.0, 8.5],
        "paragraph_longest_ms": [50.0, 60.0],
    }
