"""What a training run measured about itself."""

import dataclasses
import math
import os
from collections.abc import Mapping
from typing import Any, Self

from distilrubert.common.measurements import Environment, Measurements, Row
from distilrubert.common.training.progress import Progress

# Values of the same name and meaning in both.
_FROM_PROGRESS = (
    "skipped_updates", "tokens", "wall_time_s", "training_time_s", "validation_time_s", "checkpoint_time_s",
    "tokens_per_s", "peak_memory_mib", "resumes",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class TrainingReport:
    """The content of training.json.

    Attributes:
        case: what was trained: ``distillation`` or ``pretraining``.
        environment: where.
        values: the counters and clocks of :class:`~.progress.Progress`, and ``steps`` (updates), ``epochs``,
            ``padded_share`` (of all positions), ``precision``, ``processes``, ``parameters`` (of the trained model,
            frozen ones included), ``losses`` (at the last point of the curves), ``validation_losses`` (at the end; None
            without held-out text).
        settings: all settings and the seed.
        curves: one point each `log_every` updates: ``step``, ``tokens``, the mean of each loss since the last point,
            ``gradient_norm`` (mean, before clipping), ``learning_rate`` of its last update.
        validation: ``step`` and the losses on held-out text, with the same masks each time.
        losses: each loss in words, as :meth:`~.loss_module.LossModule.describe` gives it; empty in older reports.
        evaluations: ``step`` and the metrics after each epoch, where the best one was chosen by them.
    """

    case: str
    environment: Environment
    values: dict[str, Any]
    settings: dict[str, Any]
    curves: list[dict[str, float]]
    validation: list[dict[str, float]]
    losses: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    evaluations: list[dict[str, float]] = dataclasses.field(default_factory=list)

    @classmethod
    def from_checkpoint(
        cls, case: str, state: Mapping[str, Any], epoch_tokens: int, losses: dict[str, dict[str, Any]]
    ) -> Self:
        """The report of a run from the state in its last checkpoint, so that a finished one always gives the same.

        Args:
            case: what was trained.
            state: as the checkpoint holds it.
            epoch_tokens: what the trained model reads in an epoch.
            losses: in words.
        """
        progress = Progress.from_dict(state["progress"])
        figures = {
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
        environment = Environment(**state["environment"])
        points = progress.curves, progress.validation
        return cls(case, environment, figures, state["settings"], *points, losses, progress.evaluations)

    def to_measurements(self) -> Measurements:
        """The one form that every measurement file has."""
        details = {
            "settings": self.settings,
            "losses": self.losses,
            "curves": self.curves,
            "validation": self.validation,
            **({"evaluations": self.evaluations} if self.evaluations else {}),
        }
        return Measurements(self.environment, [Row(self.case, self.values)], details=details)

    @classmethod
    def from_measurements(cls, measurements: Measurements) -> Self:
        """The inverse of :meth:`to_measurements`; details that others have added are left out."""
        (row,) = measurements.rows
        names = {field.name for field in dataclasses.fields(cls)}
        details = {name: value for name, value in measurements.details.items() if name in names}
        return cls(row.case, measurements.environment, row.values, **details)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write training.json, atomically."""
        self.to_measurements().save(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read training.json.

        Raises:
            UserError: if it is missing or no measurement file.
        """
        return cls.from_measurements(Measurements.load(path))


def _losses_of(point: Mapping[str, float]) -> dict[str, float]:
    return {
        key: value for key, value in point.items() if key not in ("step", "tokens", "gradient_norm", "learning_rate")
    }
