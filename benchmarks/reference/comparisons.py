"""Two models of the reference experiment compared, and which are."""

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray
from results import HELD_OUT, PROBE, Result, all_tasks, probed_tasks

from distilrubert.evaluation.tasks.significance import critical_value

# A student, and by name the same without one of its losses, and which that is.
WHOLE = "base"
ABLATED = {f"{WHOLE}-no-kl": "KL", f"{WHOLE}-no-cosine": "cosine", f"{WHOLE}-no-mlm": "MLM"}
# A model and what differs from it in one thing: mostly what lacks distillation, a part of it, or updates.
COMPARED = {
    "base": ("base-mlm-only", "base-scratch", "base-start"),
    "tiny": ("tiny-mlm-only",),
    "tiny-5k": ("tiny-5k-mlm-only",),
    "base-thin": ("base-thin-mlm-only", "base-spread", "base-lowest", "base-frozen"),
    "base-long": ("base-long-mlm-only", "base-thin"),
    "base-long-mlm-only": ("base-thin-mlm-only",),
    "base-spread": ("base-spread-mlm-only", "base-less-mlm", "base-rare"),
    "base-spread-mlm-only": ("base-rare-mlm-only",),
    "base-rare": ("base-rare-all",),
}
# The parts of a comparison.
TEXT, FROZEN, FINE_TUNED = "held-out text", "linear probe", "fine-tuned"
# Whose parts of the text are compared by their ratios.
BY_RATIO = ("pseudo_perplexity",)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One measure of two models.

    Attributes:
        part: what it is of: held-out text, linear probes or fine-tuning.
        measure: its title in that part.
        without: of the model that lacks something.
        having: of the model that has it.
        error: standard error of the difference: of a task over the seeds, of held-out text and of frozen models over
            parts of the text; None where it is not known.
        is_told_apart: whether the difference is more than chance has in one of twenty.
        is_more_better: whether a larger value is the better one.
    """

    part: str
    measure: str
    without: float
    having: float
    error: float | None
    is_told_apart: bool
    is_more_better: bool = True

    @property
    def title(self) -> str:
        """The measure, told from that of another part."""
        return f"{self.measure.removesuffix(', %')}, {FROZEN}, %" if self.part == FROZEN else self.measure

    @property
    def difference(self) -> float:
        """`having` less `without`."""
        return self.having - self.without

    @property
    def is_better(self) -> bool | None:
        """Whether `having` is better: None where the two are not told apart."""
        if not self.is_told_apart:
            return None
        return (self.difference > 0) == self.is_more_better


def compare(having: Result, without: Result) -> list[Comparison]:
    """Every measure that both have: of held-out text, of one training run each, and of tasks, over seeds."""
    found = []
    for key, (title, factor, is_more_better) in HELD_OUT.items():
        own, other = (result.held_out(key) for result in (having, without))
        if own is None or other is None:
            continue
        error, is_told_apart = _compare_over_text(having, without, key)
        error = None if error is None else factor * error
        found.append(Comparison(TEXT, title, factor * other, factor * own, error, is_told_apart, is_more_better))
    return [*found, *_compare_probes(having, without), *compare_tasks(having, without).values()]


def _compare_probes(having: Result, without: Result) -> list[Comparison]:
    """The tasks that both were probed on, in points."""
    found = []
    for task, title in probed_tasks([having]).items():
        if task in without.row.figures.get(PROBE, {}):
            own, other = (100 * result.score(result.model.name, task, PROBE).mean for result in (having, without))
            parts = [result.row.figures[PROBE][task].get("by_fold", []) for result in (having, without)]
            error, is_told_apart = _paired(*(100 * np.array(part) for part in parts))
            found.append(Comparison(FROZEN, f"{title}, %", other, own, error, is_told_apart))
    return found


def _paired(own: NDArray[np.float64], other: NDArray[np.float64]) -> tuple[float | None, bool]:
    """Standard error of the mean difference over the same parts, None without them, and whether it is told apart."""
    if len(own) != len(other) or len(own) < 2:
        return None, False
    error = float(np.std(own - other, ddof=1)) / math.sqrt(len(own))
    return error, bool(abs(np.mean(own - other)) > critical_value(len(own) - 1) * error)


def _compare_over_text(having: Result, without: Result, key: str) -> tuple[float | None, bool]:
    """Standard error of the difference between two models that predicted the same text, and whether they differ."""
    own, other = (np.array(result.row.figures.get("by_fold", {}).get(key, [])) for result in (having, without))
    if key not in BY_RATIO:
        return _paired(own, other)
    # How hard each part of the text is goes into both values and not into their ratio, which therefore decides; the
    # error of the difference follows from those of the logarithms, to the first order.
    _, is_told_apart = _paired(np.log(own), np.log(other))
    error, _ = _paired(having.row.figures[key] * np.log(own), without.row.figures[key] * np.log(other))
    return error, is_told_apart


def compare_tasks(having: Result, without: Result) -> dict[str, Comparison]:
    """The tasks that both were scored on, over their seeds, in points."""
    found = {}
    for task, title in all_tasks([having]).items():
        if task in without.tasks:
            own, its = having.score(having.model.name, task), without.score(without.model.name, task)
            error, is_told_apart = None, False
            if own.std is not None and its.std is not None:
                error, freedom = welch(own.std, own.seeds, its.std, its.seeds)
                is_told_apart = abs(own.mean - its.mean) > critical_value(freedom) * error
            points = None if error is None else 100 * error
            found[task] = Comparison(FINE_TUNED, f"{title}, %", 100 * its.mean, 100 * own.mean, points, is_told_apart)
    return found


def welch(own_std: float, own_size: int, other_std: float, other_size: int) -> tuple[float, float]:
    """Standard error of the difference of two means, and its degrees of freedom (Welch 1947)."""
    own, other = own_std**2 / own_size, other_std**2 / other_size
    if own + other == 0:
        return 0.0, float(own_size + other_size - 2)
    freedom = (own + other) ** 2 / (own**2 / (own_size - 1) + other**2 / (other_size - 1))
    return math.sqrt(own + other), freedom
