import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from distilrubert.common.errors import UserError
from distilrubert.common.measurements import Environment, Measurements, Row


@pytest.fixture
def measurements() -> Measurements:
    environment = Environment("Some CPU", ["avx2"], 2, {"python": "3.11.2"}, "2026-11-24", 2, 15.6)
    rows = [
        Row("teacher", {"latency_s": 0.5, "spread": {"p10_s": 0.4}}, 1.0),
        Row("student", {"latency_s": 0.25, "spread": {"p10_s": 0.2}}, 2.0),
    ]
    return Measurements(environment, rows, baseline="teacher", details={"sequence_length": 512})


def test_the_form_in_the_file(measurements: Measurements, tmp_path: Path) -> None:
    measurements.save(tmp_path / "speed.json")
    assert json.loads((tmp_path / "speed.json").read_text()) == {
        "environment": {
            "cpu": "Some CPU",
            "instruction_sets": ["avx2"],
            "threads": 2,
            "versions": {"python": "3.11.2"},
            "date": "2026-11-24",
            "cores": 2,
            "memory_gib": 15.6,
            "gpu": None,
        },
        "baseline": "teacher",
        "details": {"sequence_length": 512},
        "rows": [
            {"case": "teacher", "latency_s": 0.5, "spread": {"p10_s": 0.4}, "ratio": 1.0},
            {"case": "student", "latency_s": 0.25, "spread": {"p10_s": 0.2}, "ratio": 2.0},
        ],
    }


def test_round_trip(measurements: Measurements, tmp_path: Path) -> None:
    measurements.save(tmp_path / "speed.json")
    assert Measurements.load(tmp_path / "speed.json") == measurements


def test_rows_are_found_by_their_case(measurements: Measurements) -> None:
    assert measurements["student"].ratio == 2.0
    with pytest.raises(KeyError, match="onnx"):
        measurements["onnx"]


@pytest.mark.parametrize(
    "content", [[], {}, {"environment": {}, "rows": [], "baseline": None}, {"environment": None, "rows": []}, 3]
)
def test_another_form_is_refused(tmp_path: Path, content: Any) -> None:
    (tmp_path / "speed.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"speed\.json: is no measurement file"):
        Measurements.load(tmp_path / "speed.json")


def test_a_row_without_a_case_is_refused(measurements: Measurements, tmp_path: Path) -> None:
    broken = measurements.to_dict()
    del broken["rows"][0]["case"]
    (tmp_path / "speed.json").write_text(json.dumps(broken))
    with pytest.raises(UserError, match="'case'"):
        Measurements.load(tmp_path / "speed.json")


def test_figures_cannot_hide_the_case_or_the_ratio() -> None:
    with pytest.raises(AssertionError):
        Row("student", {"ratio": 3.0})


def test_this_machine_is_described() -> None:
    environment = Environment.capture(threads=1)
    assert environment.cpu
    assert environment.threads == 1
    assert 1 <= environment.cores <= (os.cpu_count() or 1)
    assert environment.versions["torch"] == torch.__version__ or torch.__version__.startswith(
        environment.versions["torch"]
    )
    assert environment.memory_gib > 0
    assert (environment.gpu is not None) == torch.cuda.is_available()
    assert Environment.capture().threads == torch.get_num_threads()
