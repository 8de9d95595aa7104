"""How much of the teacher's lead over the majority class a model keeps."""

from collections.abc import Mapping
from typing import Any

from distilrubert.evaluation.tasks.significance import SIGNIFICANCE, bootstrap_p_value, resampled_scores

Figures = Mapping[str, Any]
"""The figures of a model on a task: each metric's ``{mean, std, values}``, and ``rows`` for each run."""


def is_learnt(metric: str, figures: Figures, majority: Figures | None) -> bool:
    """Whether a model is significantly better than the majority class; False where that baseline does not exist."""
    if majority is None:
        return False
    lead = figures[metric]["mean"] - majority[metric]["mean"]
    resampled = resampled_scores(metric, figures["rows"]) - resampled_scores(metric, majority["rows"])
    return bool(lead > 0 and bootstrap_p_value(lead, resampled) < SIGNIFICANCE)


def gain_over_majority(metric: str, figures: Figures, teacher: Figures, majority: Figures) -> dict[str, float]:
    """:func:`share_of_lead`, with its standard error over resampled test rows; for a teacher that :func:`is_learnt`."""
    own_B, other_B, base_B = (resampled_scores(metric, figures["rows"]) for figures in (figures, teacher, majority))
    value = share_of_lead(metric, figures, teacher, majority)
    # To the first order: on few rows the teacher's own lead can vanish in a draw.
    errors_B = own_B - base_B - value * (other_B - base_B)
    lead = teacher[metric]["mean"] - majority[metric]["mean"]
    return {"value": value, "standard_error": float(errors_B.std(ddof=1) / lead)}


def share_of_lead(metric: str, figures: Figures, teacher: Figures, majority: Figures) -> float:
    """(score - majority) / (teacher - majority), of the means over the runs."""
    own, other, base = (figures[metric]["mean"] for figures in (figures, teacher, majority))
    return float((own - base) / (other - base))
