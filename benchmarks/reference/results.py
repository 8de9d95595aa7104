"""What the reference experiment found: its files, and two models compared."""

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from models import MODELS, Model

from distilrubert.model_card.scores import METRIC_TITLES, Value
from distilrubert.modeling.errors import UserError
from distilrubert.modeling.reports import Measurements, Row

TEACHER = "teacher"
FAMILIES = ("reference-base", "reference-small", "reference-tiny", "reference-tiny-5k")
BAG_OF_WORDS = "bag-of-words"
# The student without each of its losses, and which that is.
WHOLE = "base"
ABLATED = {"base-no-kl": "KL", "base-no-cosine": "cosine", "base-no-mlm": "MLM"}
# A student and what differs from it in one thing, at equal updates: mostly what lacks distillation, or a part of it.
UNDISTILLED = {
    "base": ("base-mlm-only", "base-scratch", "base-rare", "base-less-mlm"),
    "base-mlm-only": ("base-rare-mlm-only",),
    "base-rare": ("base-rare-all", "base-rare-no-cosine"),
    "tiny": ("tiny-mlm-only",),
    "tiny-5k": ("tiny-5k-mlm-only",),
}
# Held-out figures: title, the power of ten it is shown in, and whether more is better.
HELD_OUT = {
    "masked_accuracy": ("masked accuracy, %", 100.0, True),
    "pseudo_perplexity": ("pseudo-perplexity", 1.0, False),
    "kl_to_teacher_nats": ("KL to the teacher, nats", 1.0, False),
}
# Differences within so many standard errors of the difference are not told apart.
ERRORS = 2.0


@dataclasses.dataclass(frozen=True)
class Result:
    """One model's results file.

    Attributes:
        model: what it is of.
        report: what it holds.
        is_comparable: whether its scores on tasks are of the protocol that the others' are of; else it has none here.
    """

    model: Model
    report: Measurements
    is_comparable: bool = True

    @property
    def row(self) -> Row:
        """The model's own row."""
        return self.report[self.model.name]

    @property
    def tasks(self) -> Mapping[str, Any]:
        """What is known of each task, by its name."""
        tasks: Mapping[str, Any] = self.report.details["quality"]["tasks"]
        return tasks

    @property
    def settings(self) -> Mapping[str, Any]:
        """How its quality was measured."""
        settings: Mapping[str, Any] = self.report.details["quality"]["settings"]
        return settings

    @property
    def has_own_vocabulary(self) -> bool:
        """Whether its figures on held-out text are over other pieces than the teacher's."""
        return "masked_accuracy" in self.row.figures and "kl_to_teacher_nats" not in self.row.figures

    def score(self, case: str, task: str, part: str = "tasks") -> Value:
        """The main score of a row of the file on a task; `part` as in quality.json: ``tasks`` or ``linear_probe``."""
        return Value.of(self.report[case].figures[part][task][self.tasks[task]["main_metric"]])

    def share(self, tasks: Sequence[str], case: str | None = None) -> Value:
        """Mean score over the tasks, as a share of the teacher's; its deviation is that of the mean over the tasks."""
        scores = [self.score(case or self.model.name, task) for task in tasks]
        whole = statistics.fmean(self.score(TEACHER, task).mean for task in tasks)
        deviations = [score.std for score in scores if score.std is not None]
        spread = math.hypot(*deviations) / len(scores) / whole if len(deviations) == len(scores) else None
        return Value(statistics.fmean(score.mean for score in scores) / whole, spread, min(s.seeds for s in scores))


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One measure of two models.

    Attributes:
        measure: its title.
        without: of the model that lacks something.
        having: of the model that has it.
        is_better: whether `having` is better: None where they are not told apart.
        error: standard error of the difference, None where there is one run only.
    """

    measure: str
    without: float
    having: float
    is_better: bool | None
    error: float | None = None

    @property
    def difference(self) -> float:
        """`having` less `without`."""
        return self.having - self.without


def load_results(folder: Path) -> list[Result]:
    """Every result that is there: by family, the student itself before what it is compared with.

    Scores on tasks are compared with those of ``WHOLE``, or where it is missing of the first; what was fine-tuned in
    another way is not comparable.

    Raises:
        UserError: if there is none, a file is no such one, or held-out text was not measured alike.
    """
    found = [
        Result(model, Measurements.load(path)) for model in MODELS if (path := folder / f"{model.name}.json").exists()
    ]
    if not found:
        raise UserError(f"{folder}: holds no results; benchmarks/reference/run.py makes them")
    found.sort(key=lambda result: (FAMILIES.index(result.model.recipe), not result.model.has_files))
    measure = by_name(found).get(WHOLE, found[0])
    for result in found:
        if result.settings["intrinsic"] != measure.settings["intrinsic"]:
            raise UserError(f"{folder}: {result.model.name} and {measure.model.name} were not measured alike")
    return [
        result if result.settings["finetuning"] == measure.settings["finetuning"] else _without_scores(result)
        for result in found
    ]


def _without_scores(result: Result) -> Result:
    """What is left of a result that is not comparable: all but its tasks."""
    rows = [
        Row(row.case, {key: value for key, value in row.figures.items() if key != "linear_probe"} | {"tasks": {}})
        for row in result.report.rows
        if row.case in (TEACHER, result.model.name)
    ]
    quality = {**result.report.details["quality"], "tasks": {}}
    report = dataclasses.replace(result.report, rows=rows, details={**result.report.details, "quality": quality})
    return Result(result.model, report, is_comparable=False)


def common_tasks(results: Sequence[Result]) -> list[str]:
    """The tasks that every model which was measured on any was measured on, in the order of the first."""
    first, *others = [result for result in results if result.tasks] or results[:1]
    return [task for task in first.tasks if all(task in other.tasks for other in others)]


def all_tasks(results: Sequence[Result]) -> dict[str, str]:
    """The title and metric of every task that a model was measured on, by name."""
    return {
        name: f"{task['title']}, {METRIC_TITLES.get(task['main_metric'], task['main_metric'])}"
        for result in results
        for name, task in result.tasks.items()
    }


def compare(having: Result, without: Result) -> list[Comparison]:
    """Every measure that both have: of held-out text, of one training run each, and of tasks, over seeds."""
    found = []
    for key, (title, factor, is_more_better) in HELD_OUT.items():
        if key in having.row.figures and key in without.row.figures:
            own, other = (factor * result.row.figures[key] for result in (having, without))
            found.append(Comparison(title, other, own, (own > other) == is_more_better if own != other else None))
    return [*found, *compare_tasks(having, without).values()]


def compare_tasks(having: Result, without: Result) -> dict[str, Comparison]:
    """The tasks that both were scored on, over their seeds, in points."""
    found = {}
    for task, title in all_tasks([having]).items():
        if task in without.tasks:
            own, its = having.score(having.model.name, task), without.score(without.model.name, task)
            difference, error = 100 * (own.mean - its.mean), None
            if own.std is not None and its.std is not None:
                error = 100 * math.sqrt(own.std**2 / own.seeds + its.std**2 / its.seeds)
            is_told_apart = error is not None and abs(difference) > ERRORS * error
            is_better = difference > 0 if is_told_apart else None
            found[task] = Comparison(f"{title}, %", 100 * its.mean, 100 * own.mean, is_better, error)
    return found


def by_name(results: Sequence[Result]) -> dict[str, Result]:
    """Results by the name of their model."""
    return {result.model.name: result for result in results}
