"""Which differences between models are significant: a paired bootstrap over test rows.

And how much of the teacher's lead over the majority class a model keeps.
"""

import functools
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from distilrubert.evaluation.tasks.row_results import RowResults, parse_rows, score_of_rows

Figures = Mapping[str, Any]
"""The figures of a model on a task: each metric's ``values``, and ``rows``, for each run."""

# A difference is significant if equal models show one as large in fewer than one case of twenty.
SIGNIFICANCE = 0.05
RESAMPLES = 1000


def resampled_scores(metric: str, runs: Sequence[RowResults], resamples: int = RESAMPLES) -> NDArray[np.float64]:
    """The mean score over runs on random draws of the test rows, with replacement.

    The draws depend on the number of rows only, so the scores of two models on one task are paired. `runs` has the row
    results of each run of one model, all on the same rows.
    """
    return _resample(metric, tuple(tuple(rows.items()) for rows in runs), resamples)


# The teacher and the majority class are compared with every model.
@functools.lru_cache(maxsize=64)
def _resample(metric: str, runs: tuple[tuple[tuple[str, str], ...], ...], resamples: int) -> NDArray[np.float64]:
    parsed = [parse_rows(dict(rows)) for rows in runs]
    rows = len(next(iter(parsed[0].values())))
    generator = np.random.default_rng(0)
    draws = (generator.integers(rows, size=rows) for _ in range(resamples))
    return np.array(
        [
            np.mean([score_of_rows(metric, {name: values[draw] for name, values in run.items()}) for run in parsed])
            for draw in draws
        ]
    )


def bootstrap_p_value(difference: float, resampled: NDArray[np.float64]) -> float:
    """The two-sided p-value of a difference, from its values on resampled rows.

    The resampled differences, centred at zero, stand for those of two equal models (Berg-Kirkpatrick et al., "An
    Empirical Investigation of Statistical Significance in NLP", 2012).
    """
    larger = np.abs(resampled - difference) >= abs(difference)
    return float((1 + larger.sum()) / (1 + len(resampled)))


def critical_value(freedom: float) -> float:
    """By how many standard errors two equal means may differ (Student's t, two-sided), with `freedom` degrees of it."""
    return float(stats.t.ppf(1 - SIGNIFICANCE / 2, freedom))


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
