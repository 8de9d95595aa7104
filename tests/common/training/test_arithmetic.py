"""The arithmetic of training: fp16 with a scaled loss, gradients too large for it, and settings of GPUs."""

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from distilrubert.common.training import update
from distilrubert.common.training.run_checkpoints import read_state
from distilrubert.common.training.update import LossScale
from distilrubert.distill.losses.objective import Objective

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


def test_the_gradient_in_fp16_is_nearly_that_in_fp32(tmp_path: Path) -> None:
    moments, states = [], []
    for kind in ("fp32", "fp16"):
        student, _ = tiny.run(tmp_path / kind, precision=kind, dropout=False, max_steps=1)
        (checkpoint,) = (tmp_path / kind / "checkpoints").iterdir()
        found = load_file(checkpoint / "optimizer.safetensors")
        moments.append(torch.cat([found[name].flatten() for name in sorted(found) if name.endswith("exp_avg")]))
        states.append(read_state(checkpoint))
        assert next(student.model.parameters()).dtype == torch.float32
    exact, half = moments
    assert exact.norm() > 0.01
    assert (half - exact).norm() < 0.01 * exact.norm()
    assert not torch.equal(half, exact)
    assert [state["precision"] for state in states] == ["fp32", "fp16"]
    assert [state.get("loss_scale") for state in states] == [None, {"value": 2.0**16, "good_updates": 1}]


def test_an_overflow_skips_the_update_and_a_resumed_run_has_the_lower_scale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A first scale that is too large, as on a GPU, and a run that is stopped when that has been found out."""
    monkeypatch.setattr(update, "FIRST_SCALE", 2.0**22)
    whole, report = tiny.run(tmp_path / "whole", precision="fp16")
    skipped = report.rows[0].values["skipped_updates"]
    assert 0 < skipped < 10
    state: dict[str, Any] = read_state(sorted((tmp_path / "whole" / "checkpoints").iterdir())[-1])
    assert state["loss_scale"]["value"] == 2.0 ** (22 - skipped)
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


@pytest.mark.parametrize("wanted", [True, False])
def test_what_a_gpu_is_told_holds_for_the_training_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: bool
) -> None:
    seen: list[Any] = []
    forward = Objective.forward

    def seeing(self: Any, *arguments: Any) -> Any:
        seen.append(torch.backends.cuda.matmul.allow_tf32)
        return forward(self, *arguments)

    monkeypatch.setattr(Objective, "forward", seeing)
    monkeypatch.setattr(Objective, "set_compiled", lambda self, compiled: seen.append(f"compiled: {compiled}"))
    before = torch.backends.cuda.matmul.allow_tf32
    tiny.run(tmp_path, max_steps=1, tf32=wanted, compile=wanted)
    assert set(seen) == ({True, "compiled: True"} if wanted else {False}) | {"compiled: False"}
    assert seen[-1] == "compiled: False"
    assert torch.backends.cuda.matmul.allow_tf32 == before
