"""Training in fp16: the scale of the loss, and updates whose gradient is too large for it."""

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from distilrubert.common.training import update
from distilrubert.common.training.run_checkpoints import read_state
from distilrubert.common.training.update import LossScale

tiny = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("tiny_run.py"))))


def test_the_scale_halves_at_once_and_doubles_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(update, "GROWTH_UPDATES", 3)
    scale, seen = LossScale("fp16"), []
    for is_finite in (False, True, True, False, True, True, True, True):
        scale.update(is_finite=is_finite)
        seen.append(scale.value / 2**16)
    assert seen == [1 / 2, 1 / 2, 1 / 2, 1 / 4, 1 / 4, 1 / 4, 1 / 2, 1 / 2]
    other = LossScale("fp16")
    other.restore(scale.state())
    assert other.state() == scale.state() == {"value": 2.0**15, "good_updates": 1}
    for _ in range(40):
        scale.update(is_finite=False)
    assert scale.value == 1
    assert LossScale("fp32").value == 1


def test_fp16_trains_nearly_what_fp32_does(tmp_path: Path) -> None:
    students = {kind: tiny.run(tmp_path / kind, precision=kind, dropout=False)[0] for kind in ("fp32", "fp16")}
    start = tiny.weights_of(tiny.tiny_student(tiny.tiny_teacher()))
    moved = {kind: tiny.weights_of(student) - start for kind, student in students.items()}
    cosine = np.dot(*moved.values()) / np.prod([np.linalg.norm(each) for each in moved.values()])
    assert cosine > 0.9
    assert next(students["fp16"].model.parameters()).dtype == torch.float32
    state = read_state(sorted((tmp_path / "fp16" / "checkpoints").iterdir())[-1])
    assert state["precision"] == "fp16"
    assert state["loss_scale"]["value"] == 2**16
    assert "loss_scale" not in read_state(sorted((tmp_path / "fp32" / "checkpoints").iterdir())[-1])


def test_an_overflow_skips_the_update_and_a_resumed_run_has_the_lower_scale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A first scale that is too large, as on a GPU, and a run that is stopped when that has been found out."""
    monkeypatch.setattr(update, "FIRST_SCALE", 2.0**30)
    whole, report = tiny.run(tmp_path / "whole", precision="fp16")
    skipped = report.rows[0].values["skipped_updates"]
    assert 0 < skipped < 10
    state: dict[str, Any] = read_state(sorted((tmp_path / "whole" / "checkpoints").iterdir())[-1])
    assert state["loss_scale"]["value"] == 2.0 ** (30 - skipped)
    tiny.run(tmp_path / "parts", precision="fp16", max_steps=None, checkpoint_every=1, keep_checkpoints=99)
    parts = tmp_path / "parts" / "checkpoints"
    kept = sorted(parts.iterdir())[: skipped + 3]
    for later in sorted(parts.iterdir())[len(kept) :]:
        for file in later.iterdir():
            file.unlink()
        later.rmdir()
    # What it starts with now is not what it goes on with.
    monkeypatch.setattr(update, "FIRST_SCALE", 2.0**40)
    resumed, _ = tiny.run(tmp_path / "parts", precision="fp16", checkpoint_every=1, keep_checkpoints=99)
    assert tiny.digest(resumed) == tiny.digest(whole)
