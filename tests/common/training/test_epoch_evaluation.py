"""The best epoch: chosen, kept, and found again after a stop; runs without checkpoints."""

import runpy
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from distilrubert.common.errors import UserError
from distilrubert.common.training.run_checkpoints import Checkpoints
from distilrubert.common.training.training_run import EpochEvaluation, TrainingRun
from distilrubert.common.training.update import Updater
from distilrubert.distill import distillation
from distilrubert.distill.losses.objective import Objective

tiny = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("tiny_run.py"))))

SETTINGS = {"epochs": 5, "batches_per_update": 4, "checkpoint_every": None}


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[bytes, bool]]]:
    """Gives the distillations of a test an evaluation; what it returns gets the weights and the mode at each call."""

    def evaluate(score: Callable[[torch.nn.Module], float], patience: int) -> list[tuple[bytes, bool]]:
        seen: list[tuple[bytes, bool]] = []

        def build(*, objective: Objective, **options: Any) -> TrainingRun:
            def measure() -> dict[str, float]:
                seen.append((weights_of(objective), objective.training))
                return {"score": score(objective), "other": 0.0}

            return TrainingRun(objective=objective, **options, evaluation=EpochEvaluation(measure, "score", patience))

        monkeypatch.setattr(distillation, "TrainingRun", build)
        return seen

    return evaluate


def weights_of(student: Any) -> bytes:
    return torch.cat([weight.detach().flatten() for weight in student.model.parameters()]).numpy().tobytes()


def test_a_run_that_ends_early_without_a_finite_update_is_refused(
    evaluated: Callable[..., list[tuple[bytes, bool]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Objective, "forward", Objective.forward)
    tiny.poison(Objective, divisor=1)
    evaluated(lambda student: 0.5, patience=1)
    with pytest.raises(UserError, match=r"distillation: none of the \d+ updates was finite"):
        tiny.run(tmp_path, **SETTINGS, max_skipped_updates=1000)


@pytest.mark.parametrize(
    ("scores", "patience", "best", "is_over"),
    [
        ([], 1, None, False),
        ([0.5], 1, 0, False),
        ([0.5, 0.5], 1, 0, True),
        ([0.5, 0.4], 2, 0, False),
        ([0.5, 0.6, 0.4, 0.6], 2, 1, True),
        ([0.5, 0.6, 0.4, 0.7], 2, 3, False),
    ],
)
def test_the_first_of_the_best_epochs_and_the_end_of_patience(
    scores: list[float], patience: int, best: int | None, is_over: bool
) -> None:
    evaluation = EpochEvaluation(dict, "score", patience)
    evaluations = [{"score": score, "step": step} for step, score in enumerate(scores)]
    assert evaluation.is_over(evaluations) == is_over
    if best is not None:
        assert evaluation.best(evaluations) == best


def test_training_stops_without_progress_and_ends_with_the_best_weights(tmp_path: Path, evaluated: Any) -> None:
    scores = iter([0.1, 0.3, 0.2, 0.3])
    seen = evaluated(lambda module: next(scores), 2)
    student, report = tiny.run(tmp_path, **SETTINGS)
    assert [(entry["step"], entry["score"]) for entry in report.details["evaluations"]] == [
        (4, 0.1),
        (8, 0.3),
        (12, 0.2),
        (16, 0.3),
    ]
    assert report.rows[0].values["steps"] == 16
    assert weights_of(student) == seen[1][0]
    assert not any(is_training for _, is_training in seen)
    again, same = tiny.run(tmp_path, **SETTINGS)
    assert len(seen) == 4
    assert (weights_of(again), same.details["evaluations"]) == (seen[1][0], report.details["evaluations"])


def test_a_killed_run_chooses_the_same_epoch(tmp_path: Path, evaluated: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluated(
        lambda module: float(torch.cat([weight.detach().flatten() for weight in module.parameters()]).sin().sum()), 5
    )
    straight, report = tiny.run(tmp_path / "straight", **SETTINGS)
    update = Updater.__call__
    for stop in (8, 13):

        def killed(self: Updater, step: int, *arguments: Any, stop: int = stop) -> Any:
            if step == stop:
                raise RuntimeError("killed")
            return update(self, step, *arguments)

        with monkeypatch.context() as dying:
            dying.setattr(Updater, "__call__", killed)
            with pytest.raises(RuntimeError, match="killed"):
                tiny.run(tmp_path / "killed", **{**SETTINGS, "checkpoint_every": 4})
    resumed, again = tiny.run(tmp_path / "killed", **{**SETTINGS, "checkpoint_every": 4})
    assert again.details["evaluations"] == report.details["evaluations"]
    assert len({entry["score"] for entry in report.details["evaluations"]}) == 5
    assert weights_of(resumed) == weights_of(straight)


def test_an_epoch_behind_the_checkpoint_is_not_the_best_of_the_resumed_run(
    tmp_path: Path, evaluated: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine rounds otherwise, and may find that epoch worse."""
    scores = iter([0.2, 0.3, 0.1, 0.1])
    seen = evaluated(lambda module: next(scores), 2)
    save = Checkpoints.save

    def killed(self: Checkpoints, step: int, *arguments: Any) -> Any:
        if step == 8:
            raise RuntimeError("killed")
        return save(self, step, *arguments)

    with monkeypatch.context() as dying:
        dying.setattr(Checkpoints, "save", killed)
        with pytest.raises(RuntimeError, match="killed"):
            tiny.run(tmp_path, **{**SETTINGS, "checkpoint_every": 4})
    resumed, report = tiny.run(tmp_path, **{**SETTINGS, "checkpoint_every": 4})
    assert [entry["score"] for entry in report.details["evaluations"]] == [0.2, 0.1, 0.1]
    assert weights_of(resumed) == seen[0][0]
    assert [path.name for path in tmp_path.glob("best*")] == ["best-00000004.safetensors"]


def test_without_checkpoints_nothing_is_written_and_signals_stay_as_they_are(tmp_path: Path, evaluated: Any) -> None:
    handlers = []
    evaluated(lambda module: float(handlers.append(signal.getsignal(signal.SIGTERM)) or 0.0), 1)
    before = signal.getsignal(signal.SIGTERM)
    _, report = tiny.run(tmp_path, **SETTINGS, keep_checkpoints=0)
    assert report.rows[0].values["steps"] == 8
    assert handlers == [before, before]
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["best-00000004.safetensors"]
