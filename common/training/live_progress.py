"""How far a training run is, in a small file for whoever watches it; read without torch."""

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distilrubert.common.persistence import read_json, write_json

if TYPE_CHECKING:
    from distilrubert.common.training.progress import Progress

_NAME = "progress.json"
_COUNTERS = ("step", "tokens", "learning_rate", "gradient_norm")


def write_live_progress(folder: Path, progress: "Progress", total_steps: int, tokens_per_s: float) -> None:
    """Write what :func:`read_live_progress` reads, at a point of the training curves."""
    point = progress.curves[-1]
    left = (total_steps - progress.step) * progress.wall_time_s / progress.step
    values = {
        "step": progress.step,
        "total_steps": total_steps,
        "tokens_per_s": round(tokens_per_s, 1),
        "left_s": round(left, 1),
        "losses": {name: value for name, value in point.items() if name not in _COUNTERS and math.isfinite(value)},
        "written_at": round(time.time(), 1),
    }
    write_json(folder / _NAME, values)


def read_live_progress(folder: Path) -> dict[str, Any] | None:
    """How far the run in a folder was at the last point of its curves; None before the first one.

    ``step`` and ``total_steps`` (updates), ``tokens_per_s``, ``left_s`` (seconds, at the mean speed so far),
    ``losses``, and ``written_at`` (seconds since 1970).

    Raises:
        UserError: if the file is no JSON.
    """
    return read_json(folder / _NAME) if (folder / _NAME).is_file() else None
