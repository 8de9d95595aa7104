"""Which differences of two means are more than the luck of their runs: Student's t, two-sided."""

import math

from scipy import stats

# One difference in twenty between equals is taken for a true one.
CONFIDENCE = 0.95


def critical_value(freedom: float) -> float:
    """How many standard errors a difference has to exceed.

    Args:
        freedom: degrees of freedom of the standard error, at least 1.
    """
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom))


def welch(own_std: float, own_size: int, other_std: float, other_size: int) -> tuple[float, float]:
    """Standard error of the difference of two means, and its degrees of freedom (Welch 1947).

    Args:
        own_std: sample's standard deviation of the one.
        own_size: of how many values, at least 2.
        other_std: of the other.
        other_size: its number of values, at least 2.
    """
    own, other = own_std**2 / own_size, other_std**2 / other_size
    if own + other == 0:
        return 0.0, float(own_size + other_size - 2)
    freedom = (own + other) ** 2 / (own**2 / (own_size - 1) + other**2 / (other_size - 1))
    return math.sqrt(own + other), freedom
