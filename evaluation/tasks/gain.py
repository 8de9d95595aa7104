"""How much of the teacher's lead over the majority class a model keeps."""

import statistics
from collections.abc import Mapping
from typing import Any

from distilrubert.evaluation.tasks.significance import SIGNIFICANCE, bootstrap_p_value, resampled_scores

Figures = Mapping[str, Any]
"""The figures of a model on a task: each metric's ``values``, and ``rows``, for each run."""


def is_learnt(metric: str, figures: Figures, majority: Figures | None) -> bool:
    """Whether a model is significantly better than the majority class; False where that baseline does not exist."""
    if majority is None:
        return False
    lead = _mean(metric, figures) - _mean(metric, majority)
    resampled = resampled_scores(metric, figures["rows"]) - resampled_scores(metric, majority["rows"])
    return bool(lead > 0 and bootstrap_p_value(lead, resampled) < SIGNIFICANCE)


def standard_error_of_gain(metric: str, figures: Figures, teacher: Figures, majority: Figures) -> float:
    """Of (score - majority) / (teacher - majority), over resampled test rows; for a teacher that :func:`is_learnt`."""
    own_B, other_B, base_B = (resampled_scores(metric, model["rows"]) for model in (figures, teacher, majority))
    own, other, base = (_mean(metric, model) for model in (figures, teacher, majority))
    # To the first order: on few rows the teacher's own lead can vanish in a draw.
    errors_B = own_B - base_B - (own - base) / (other - base) * (other_B - base_B)
    return float(errors_B.std(ddof=1) / (other - base))


def _mean(metric: str, figures: Figures) -> float:
    return statistics.fmean(figures[metric]["values"])
