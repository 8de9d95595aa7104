"""The results files of the reference experiment."""

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from models import MODELS, Model

from distilrubert.common.errors import UserError
from distilrubert.common.formats import FORMATS
from distilrubert.common.measurements import Environment, Measurements, Row
from distilrubert.evaluation.tasks.baselines import MAJORITY
from distilrubert.evaluation.tasks.significance import critical_value, is_learnt
from distilrubert.model_card.scores import METRIC_TITLES, Value

TEACHER = "teacher"
FAMILIES = tuple(f"reference-{name}" for name in ("base", "narrow", "slim", "small", "tiny", "tiny-5k"))
BAG_OF_WORDS = "bag-of-words"
PROBE = "linear_probe"
# What the rows of exported files begin with.
FILE_ROW_PREFIX = "student-"
PYTORCH = "pytorch-fp32"
MIB = 2**20
# Measures on held-out text: title, factor for the tables, and whether more is better.
HELD_OUT = {
    "masked_accuracy": ("masked accuracy, %", 100.0, True),
    "pseudo_perplexity": ("pseudo-perplexity", 1.0, False),
    "kl_to_teacher_nats": ("KL to the teacher, nats", 1.0, False),
    "teacher_agreement": ("teacher's first choice, %", 100.0, True),
    "hidden_cosine": ("cosine with the teacher's states", 1.0, True),
}


def _machine(where: Environment) -> str:
    has_amx = any(name.startswith("amx") for name in where.instruction_sets)
    cores = f"{where.cores} core{'s' if where.cores > 1 else ''}"
    return where.gpu or f"{where.cpu}{' with AMX' if has_amx else ''} ({cores})"


@dataclasses.dataclass(frozen=True)
class Result:
    """One model's results file.

    Attributes:
        model: the model.
        report: the file's content.
        majorities: the score of the majority class on each task, by its name; the same for all files.
    """

    model: Model
    report: Measurements
    majorities: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def row(self) -> Row:
        """The model's own row."""
        return self.report[self.model.name]

    @property
    def tasks(self) -> Mapping[str, Any]:
        """The description of each task that the model was fine-tuned on, by its name."""
        return {name: about for name, about in self.described.items() if name in self.row.values["tasks"]}

    @property
    def described(self) -> Mapping[str, Any]:
        """The description of each task in the file, by its name."""
        tasks: Mapping[str, Any] = self.report.details["quality"]["tasks"]
        return tasks

    @property
    def settings(self) -> Mapping[str, Any]:
        """How its quality was measured."""
        settings: Mapping[str, Any] = self.report.details["quality"]["settings"]
        return settings

    @property
    def files(self) -> dict[str, Row]:
        """The rows of the exported files that were scored, by their format."""
        rows = [row for row in self.report.rows if row.case.startswith(FILE_ROW_PREFIX)]
        return {row.case.removeprefix(FILE_ROW_PREFIX): row for row in rows}

    @property
    def trained_on(self) -> str:
        """The machine of the distillation."""
        return _machine(Environment(**self.report.details["trained_on"]))

    @property
    def measured_on(self) -> str:
        """The machine of the scores."""
        return _machine(self.report.environment)

    @property
    def arithmetic_of_tasks(self) -> str:
        """The precision of fine-tuning, that of the teacher too."""
        return str(self.report.details["quality"]["precision"])

    @property
    def arithmetic(self) -> str:
        """The precision and the threads of the distillation."""
        threads = self.report.details["trained_on"]["threads"]
        return f"{self.row.values['precision']}, {threads} thread{'s' if threads > 1 else ''}"

    @property
    def has_own_vocabulary(self) -> bool:
        """Whether its values on held-out text are over other tokens than the teacher's."""
        return "masked_accuracy" in self.row.values and "kl_to_teacher_nats" not in self.row.values

    def has_row_results(self, task: str) -> bool:
        """Whether the file has the result of each test row, so that differences can be tested."""
        return "rows" in self.row.values["tasks"].get(task, {})

    def main_metric(self, task: str) -> str:
        """The metric by which models are compared on a task."""
        return str(self.described[task]["main_metric"])

    def score(self, case: str, task: str, part: str = "tasks") -> Value:
        """The main score of a row of the file on a task; `part` as in quality.json: ``tasks`` or ``linear_probe``."""
        return Value.of(self.report[case].values[part][task][self.main_metric(task)])

    def held_out(self, key: str, case: str | None = None) -> float | None:
        """A value on held-out text, None where it was not measured; the mean over the layers if it has one for each."""
        value = self.report[case or self.model.name].values.get(key)
        return statistics.fmean(value) if isinstance(value, list) else value

    def majority(self, task: str) -> float | None:
        """The score of the majority class; None where that baseline does not exist."""
        if task in self.majorities:
            return self.majorities[task]
        # The most frequent tag is O: no span is found. The first files do not have this row.
        return 0.0 if self.described[task]["kind"] == "token-classification" else None

    def is_learnt(self, task: str, case: str = TEACHER) -> bool:
        """Whether a row, by default the teacher's, is significantly better than the majority class.

        Without that baseline a task does not count as learnt. Where the file has no row results, the spread over the
        seeds decides.
        """
        majority, score = self.majority(task), self.score(case, task)
        if majority is None:
            return False
        figures = [row.values["tasks"].get(task, {}) for row in self.report.rows if row.case in (case, MAJORITY)]
        if len(figures) == 2 and all("rows" in of_row for of_row in figures):
            return is_learnt(self.main_metric(task), *figures)
        if score.std is None:
            return False
        return score.mean - majority > critical_value(score.seeds - 1) * score.std / math.sqrt(score.seeds)

    def answers_one_class(self, task: str) -> bool:
        """Whether each run of the model scores exactly as the majority class: it gives one class to every row."""
        majority = self.majority(task)
        values = self.row.values["tasks"][task][self.main_metric(task)]["values"]
        return majority is not None and all(math.isclose(value, majority, abs_tol=1e-9) for value in values)

    def share(self, tasks: Sequence[str], case: str | None = None) -> Value:
        """Mean score over the tasks, as a share of the teacher's; its deviation is that of a ratio of two means."""
        own = _mean([self.score(case or self.model.name, task) for task in tasks])
        whole = _mean([self.score(TEACHER, task) for task in tasks])
        return _ratio(own, whole, is_same=case == TEACHER)

    def gain(self, tasks: Sequence[str], case: str | None = None) -> Value:
        """Mean over the tasks of (score - majority) / (teacher - majority), with its deviation over the seeds."""
        gains = []
        for task in tasks:
            majority = self.majority(task)
            assert majority is not None
            own, whole = (
                dataclasses.replace(score, mean=score.mean - majority)
                for score in (self.score(case or self.model.name, task), self.score(TEACHER, task))
            )
            gains.append(_ratio(own, whole, is_same=case == TEACHER))
        return _mean(gains)


def _mean(scores: Sequence[Value]) -> Value:
    """The mean over tasks; its deviation follows from theirs."""
    deviations = [score.std for score in scores if score.std is not None]
    spread = math.hypot(*deviations) / len(scores) if len(deviations) == len(scores) else None
    return Value(statistics.fmean(score.mean for score in scores), spread, min(score.seeds for score in scores))


def _ratio(own: Value, whole: Value, *, is_same: bool) -> Value:
    """The ratio of two independent means; its deviation to the first order."""
    ratio, spread = own.mean / whole.mean, None
    if is_same:
        spread = None if own.std is None else 0.0
    elif whole.std is not None:
        spread = math.hypot(own.std or 0.0, ratio * whole.std) / abs(whole.mean)
    return Value(ratio, spread, max(own.seeds, whole.seeds))


def load_results(folder: Path) -> list[Result]:
    """Every result in the folder: by family, the student itself before the models that it is compared with.

    Raises:
        UserError: if there is none, a file is not a results file, or the files are not of one protocol.
    """
    found = [
        Result(model, Measurements.load(path)) for model in MODELS if (path := folder / f"{model.name}.json").exists()
    ]
    if not found:
        raise UserError(f"{folder}: holds no results; benchmarks/reference/experiment.py makes them")
    found.sort(key=lambda result: (FAMILIES.index(result.model.recipe), not result.model.has_files))
    for result in found:
        for part in ("intrinsic", "finetuning"):
            if result.settings[part] != found[0].settings[part]:
                names = f"{result.model.name} and {found[0].model.name}"
                raise UserError(f"{folder}: {names} were not measured alike: their {part} settings differ")
    # It has no randomness, and the first files do not have its row.
    majorities = {
        task: result.score(MAJORITY, task).mean
        for result in found
        for row in result.report.rows
        if row.case == MAJORITY
        for task in row.values["tasks"]
    }
    return [dataclasses.replace(result, majorities=majorities) for result in found]


def common_tasks(results: Sequence[Result]) -> list[str]:
    """The learnt tasks on which every fine-tuned model was measured, in the order of the first."""
    first, *others = [result for result in results if result.tasks] or results[:1]
    return [task for task in first.tasks if first.is_learnt(task) and all(task in other.tasks for other in others)]


def widest(results: Sequence[Result]) -> Result:
    """The model that was measured on most tasks, the first of several."""
    return max(results, key=lambda result: len(result.tasks))


def all_tasks(results: Sequence[Result]) -> dict[str, str]:
    """The title and metric of every task that a model was fine-tuned on, by name."""
    return {name: _title(task) for result in results for name, task in result.tasks.items()}


def probed_tasks(results: Sequence[Result]) -> dict[str, str]:
    """The title and metric of every task that a model was probed on, by name."""
    return {
        name: _title(task)
        for result in results
        for name, task in result.described.items()
        if name in result.row.values.get(PROBE, {})
    }


def _title(task: Mapping[str, Any]) -> str:
    return f"{task['title']}, {METRIC_TITLES.get(task['main_metric'], task['main_metric'])}"


@dataclasses.dataclass(frozen=True)
class Point:
    """One file of a student, or the teacher: its quality and its size.

    Attributes:
        result: the model's results.
        model: its name.
        file: its format.
        gain: its mean gain over the majority class on the common tasks, as a share of the teacher's.
        size_mib: size of the weights, MiB.
    """

    result: Result
    model: str
    file: str
    gain: Value
    size_mib: float


def file_points(results: Sequence[Result]) -> list[Point]:
    """The teacher in fp32, and every file of a student that has a score on each of the common tasks."""
    tasks = common_tasks(results)
    students = [result for result in results if result.model.has_files and result.tasks]
    if not students or not tasks:
        return []
    first = students[0]
    size = 4 * first.report[TEACHER].values["parameters"] / MIB
    points = [Point(first, TEACHER, PYTORCH, first.gain(tasks, TEACHER), size)]
    for result in students:
        scored = {PYTORCH: result.model.name}
        scored |= {kind: row.case for kind, row in result.files.items() if kind != PYTORCH}
        sizes = result.row.values["files_mib"]
        for kind, case in scored.items():
            path = "model.safetensors" if kind == PYTORCH else FORMATS[kind].path
            points.append(Point(result, result.model.name, kind, result.gain(tasks, case), sizes[path]))
    return points


def by_name(results: Sequence[Result]) -> dict[str, Result]:
    """Results by the name of their model."""
    return {result.model.name: result for result in results}
