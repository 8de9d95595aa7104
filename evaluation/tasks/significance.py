"""Which differences between models are significant: a paired bootstrap over test rows, and Holm's correction."""

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from distilrubert.evaluation.tasks.row_results import RowResults, parse_rows, score_of_rows

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


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values of several tests, adjusted so that each can be compared with :data:`SIGNIFICANCE` (Holm 1979)."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def critical_value(freedom: float) -> float:
    """By how many standard errors two equal means may differ (Student's t, two-sided), with `freedom` degrees of it."""
    return float(stats.t.ppf(1 - SIGNIFICANCE / 2, freedom))
