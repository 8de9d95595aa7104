"""The progress of a run: what a checkpoint holds besides the tensors, and training.json."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch

from distilrubert.common.measurements import Environment, Measurements, Row
from distilrubert.common.training.update import Update

# Values of the same name and meaning in both.
_FROM_PROGRESS = (
    "skipped_updates", "tokens", "wall_time_s", "training_time_s", "validation_time_s", "checkpoint_time_s",
    "tokens_per_s", "peak_memory_mib", "resumes",
)  # fmt: skip


@dataclasses.dataclass
class Progress:
    """Counters, clocks and curves of a run, over all its processes and resumptions.

    Attributes:
        step: updates done, skipped ones included.
        skipped_updates: updates that were skipped because a loss or the gradient was not finite.
        skipped_in_a_row: those directly before the next update.
        tokens: real tokens trained on, with repetition.
        positions: the same with padding.
        resumes: how often the run continued from a checkpoint.
        wall_time_s: seconds from the first update of each call on, up to its last checkpoint.
        validation_time_s: of these, for validation.
        checkpoint_time_s: of these, for checkpoints.
        peak_memory_mib: largest main memory of a process.
        peak_gpu_memory_mib: largest memory on an accelerator, 0 without one.
        curves: points of the training curves.
        validation: losses on held-out text.
        evaluations: ``step`` and metrics after each epoch, where the run has an evaluation.
        window: sum of each loss since the last point of the curves, without skipped updates.
        window_updates: number of updates in `window`.
        window_began_s: training time at the last point.
        run_ids: how the trackers call the run.
    """

    step: int = 0
    skipped_updates: int = 0
    skipped_in_a_row: int = 0
    tokens: int = 0
    positions: int = 0
    resumes: int = 0
    wall_time_s: float = 0.0
    validation_time_s: float = 0.0
    checkpoint_time_s: float = 0.0
    peak_memory_mib: float = 0.0
    peak_gpu_memory_mib: float = 0.0
    curves: list[dict[str, float]] = dataclasses.field(default_factory=list)
    validation: list[dict[str, float]] = dataclasses.field(default_factory=list)
    evaluations: list[dict[str, float]] = dataclasses.field(default_factory=list)
    window: dict[str, float] = dataclasses.field(default_factory=dict)
    window_updates: int = 0
    window_began_s: float = 0.0
    run_ids: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def training_time_s(self) -> float:
        """The wall time without validation and checkpoints."""
        return self.wall_time_s - self.validation_time_s - self.checkpoint_time_s

    @property
    def tokens_per_s(self) -> float:
        """Real tokens per second of training time."""
        return self.tokens / self.training_time_s if self.training_time_s > 0 else 0.0

    @property
    def window_tokens_per_s(self) -> float:
        """The same since the last point of the curves."""
        tokens = self.tokens - (self.curves[-1]["tokens"] if self.curves else 0)
        seconds = self.training_time_s - self.window_began_s
        return tokens / seconds if seconds > 0 else 0.0

    @contextlib.contextmanager
    def timed(self, activity: Literal["validation", "checkpoint"]) -> Iterator[None]:
        """Add the time that the block takes to that activity's."""
        started = time.monotonic()
        try:
            yield
        finally:
            name = f"{activity}_time_s"
            setattr(self, name, getattr(self, name) + time.monotonic() - started)

    def add_update(self, update: Update) -> None:
        """Count one update."""
        self.step += 1
        self.tokens += update.tokens
        self.positions += update.positions
        if update.is_skipped:
            self.skipped_updates += 1
            self.skipped_in_a_row += 1
            return
        self.skipped_in_a_row = 0
        self.window_updates += 1
        for name, value in update.losses.items():
            self.window[name] = self.window.get(name, 0.0) + value

    def add_point(self, learning_rate: float) -> dict[str, float]:
        """Add a point to the curves, the mean over the updates since the last one, and return it."""
        means = {name: total / self.window_updates for name, total in self.window.items()}
        point = {"step": self.step, "tokens": self.tokens, **means, "learning_rate": learning_rate}
        self.curves.append(point)
        self.window, self.window_updates, self.window_began_s = {}, 0, self.training_time_s
        return point


def peak_gpu_memory_mib(device: torch.device) -> float:
    """The largest memory that tensors have taken on the accelerator, in MiB; 0 without one."""
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else 0.0


def listed(values: Mapping[str, float]) -> str:
    """Names and values in one line."""
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in values.items()
    )


def training_report(
    case: str, state: Mapping[str, Any], epoch_tokens: int, losses: dict[str, dict[str, Any]]
) -> Measurements:
    """The report of a run from the state in its last checkpoint, so that a finished one always gives the same.

    Its one row has counters and clocks of :class:`Progress`, and ``steps`` (updates), ``epochs``,
    ``padded_share`` (of all positions), ``precision``, ``processes``, ``parameters`` (of the trained model, frozen ones
    included), ``losses`` (at the last point of the curves), ``validation_losses`` (at the end; None without held-out
    text). The details are ``settings`` (all, and the seed), ``losses`` (in words), and ``curves``, ``validation`` and
    ``evaluations`` of the progress.

    Args:
        case: what was trained.
        state: as the checkpoint holds it.
        epoch_tokens: what the trained model reads in an epoch.
        losses: as :meth:`~.loss_module.LossModule.describe` gives them.
    """
    progress = Progress(**state["progress"])
    values = {
        **{name: getattr(progress, name) for name in _FROM_PROGRESS},
        "steps": progress.step,
        "epochs": progress.tokens / epoch_tokens,
        "padded_share": 1 - progress.tokens / progress.positions,
        "peak_gpu_memory_mib": progress.peak_gpu_memory_mib or None,
        "precision": state["precision"],
        "processes": state["processes"],
        "parameters": sum(
            math.prod(shape) for name, shape in state["identity"]["model"].items() if name.startswith("model.")
        ),
        "losses": _losses_of(progress.curves[-1]),
        "validation_losses": _losses_of(progress.validation[-1]) if progress.validation else None,
    }
    details = {
        "settings": state["settings"],
        "losses": losses,
        "curves": progress.curves,
        "validation": progress.validation,
        **({"evaluations": progress.evaluations} if progress.evaluations else {}),
    }
    return Measurements(Environment(**state["environment"]), [Row(case, values)], details=details)


def _losses_of(point: Mapping[str, float]) -> dict[str, float]:
    return {
        key: value for key, value in point.items() if key not in ("step", "tokens", "gradient_norm", "learning_rate")
    }
