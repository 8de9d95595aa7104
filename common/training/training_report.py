"""What a training run measured about itself: the content of training.json."""

import math
from collections.abc import Mapping
from typing import Any

from distilrubert.common.measurements import Environment, Measurements, Row
from distilrubert.common.training.progress import Progress

# Values of the same name and meaning in both.
_FROM_PROGRESS = (
    "skipped_updates", "tokens", "wall_time_s", "training_time_s", "validation_time_s", "checkpoint_time_s",
    "tokens_per_s", "peak_memory_mib", "resumes",
)  # fmt: skip


def training_report(
    case: str, state: Mapping[str, Any], epoch_tokens: int, losses: dict[str, dict[str, Any]]
) -> Measurements:
    """The report of a run from the state in its last checkpoint, so that a finished one always gives the same.

    Its one row has counters and clocks of :class:`~.progress.Progress`, and ``steps`` (updates), ``epochs``,
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
