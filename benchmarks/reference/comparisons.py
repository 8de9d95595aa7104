"""Differences between two models of the reference experiment, and which of them are significant."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from results import HELD_OUT, PROBE, Result, all_tasks, probed_tasks
from scipy import stats

from distilrubert.evaluation.tasks.significance import SIGNIFICANCE, bootstrap_p_value, resampled_scores

# The student whose losses are left out one by one, and the model without each loss.
ABLATED_STUDENT = "base"
ABLATED = {"base-no-kl": "KL", "base-no-cosine": "cosine", "base-no-mlm": "MLM"}
# Each student, and the models that differ from it in distillation or in the number of updates.
COMPARED = {
    "base": ("base-mlm-only", "base-scratch", "base-start"),
    "tiny": ("tiny-mlm-only",),
    "tiny-5k": ("tiny-5k-mlm-only",),
}
# Each pruned student, and the unpruned ones that are as wide as the teacher.
SHAPES = {"slim": ("base", "small"), "slim-1400": ("base", "small"), "slim-400": ("base", "small"), "narrow": ("base",)}
# The parts of a comparison.
TEXT, FROZEN, FINE_TUNED = "held-out text", "linear probe", "fine-tuned"


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One measure of two models.

    Attributes:
        part: held-out text, linear probes or fine-tuning.
        measure: its title in that part.
        difference: of the first model from the second, in the unit of the title.
        scale: the larger of the two absolute values, for the number of digits.
        error: standard error of the difference; None where it is not known.
        p_value: of a test that the two are equal; None where the files do not have the values to test.
        is_more_better: whether a larger value is the better one.
        is_significant: after Holm's correction over the table; see :func:`corrected`.
    """

    part: str
    measure: str
    difference: float
    scale: float
    error: float | None = None
    p_value: float | None = None
    is_more_better: bool = True
    is_significant: bool = False

    @property
    def title(self) -> str:
        """The measure with its part, where two parts have the same measure."""
        return f"{self.measure.removesuffix(', %')}, {FROZEN}, %" if self.part == FROZEN else self.measure

    @property
    def is_better(self) -> bool | None:
        """Whether the first model is better; None where the difference is not significant."""
        return (self.difference > 0) == self.is_more_better if self.is_significant else None


Compared = Mapping[tuple[str, ...], Sequence[Comparison]]
"""Comparisons by the names of a table's row."""


def compare(first: Result, second: Result) -> list[Comparison]:
    """Every measure that both models have."""
    probes = [_compare_task(first, second, task, PROBE, title) for task, title in probed_tasks([first]).items()]
    tasks = [_compare_task(first, second, task, "tasks", title) for task, title in all_tasks([first]).items()]
    return [*_compare_texts(first, second), *(each for each in (*probes, *tasks) if each)]


def corrected(compared: Compared) -> dict[tuple[str, ...], list[Comparison]]:
    """The same with Holm's correction over each part, which is one table."""
    found = {names: list(comparisons) for names, comparisons in compared.items()}
    tested = [
        (names, place, each.part, each.p_value)
        for names, comparisons in found.items()
        for place, each in enumerate(comparisons)
        if each.p_value is not None
    ]
    for part in (TEXT, FROZEN, FINE_TUNED):
        of_part = [(names, place, p_value) for names, place, its_part, p_value in tested if its_part == part]
        adjusted = holm([p_value for _, _, p_value in of_part])
        for (names, place, _), p_value in zip(of_part, adjusted, strict=True):
            each = found[names][place]
            found[names][place] = dataclasses.replace(each, is_significant=p_value < SIGNIFICANCE)
    return found


def _compare_texts(first: Result, second: Result) -> list[Comparison]:
    """Held-out text, by a paired t-test over the parts of the text."""
    found = []
    for key, (title, factor, is_more_better) in HELD_OUT.items():
        own, other = (result.held_out(key) for result in (first, second))
        if own is None or other is None:
            continue
        parts = [np.array(result.row.values.get("by_fold", {}).get(key, [])) for result in (first, second)]
        error = p_value = None
        if len(parts[0]) == len(parts[1]) > 1:
            differences = parts[0] - parts[1]
            error = factor * float(np.std(differences, ddof=1)) / math.sqrt(len(differences))
            # A perplexity is compared by its logarithm: its difference grows with the difficulty of a part.
            tested = np.log(parts) if key == "pseudo_perplexity" else parts
            p_value = float(stats.ttest_rel(*tested).pvalue) if error else float(differences[0] == 0)
        found.append(
            Comparison(
                TEXT, title, factor * (own - other), factor * max(abs(own), abs(other)), error, p_value, is_more_better
            )
        )
    return found


def _compare_task(first: Result, second: Result, task: str, part: str, title: str) -> Comparison | None:
    """A task in points, None where the second model does not have it.

    By a paired bootstrap over test rows. Files without row results have the standard error over the seeds only, and
    that is no test: the test rows are the same for all seeds.
    """
    if task not in second.row.values.get(part, {}):
        return None
    own, other = (100 * result.score(result.model.name, task, part).mean for result in (first, second))
    rows = [result.row.values[part][task].get("rows") for result in (first, second)]
    error = p_value = None
    if all(rows):
        own_B, other_B = (100 * resampled_scores(first.main_metric(task), runs) for runs in rows)
        error, p_value = float(np.std(own_B - other_B, ddof=1)), bootstrap_p_value(own - other, own_B - other_B)
    else:
        scores = [result.score(result.model.name, task, part) for result in (first, second)]
        if all(score.std is not None for score in scores):
            error = 100 * math.hypot(*((score.std or 0.0) / math.sqrt(score.seeds) for score in scores))
    kind = FROZEN if part == PROBE else FINE_TUNED
    return Comparison(kind, f"{title}, %", own - other, max(abs(own), abs(other)), error, p_value)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values of several tests, adjusted so that each can be compared with ``SIGNIFICANCE`` (Holm 1979)."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
