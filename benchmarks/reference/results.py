"""What the reference experiment found: its files."""

import dataclasses
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from models import FORMER, MODELS, Model

from distilrubert.common.errors import UserError
from distilrubert.common.measurements import Environment, Measurements, Row
from distilrubert.conversion.formats import FORMATS
from distilrubert.evaluation.tasks.significance import critical_value
from distilrubert.model_card.scores import METRIC_TITLES, Value

TEACHER = "teacher"
FAMILIES = ("reference-base", "reference-small", "reference-tiny", "reference-tiny-5k")
BAG_OF_WORDS = "bag-of-words"
MAJORITY = "majority-class"
PROBE = "linear_probe"
# What the rows of exported files begin with.
FILE = "student-"
PYTORCH = "pytorch-fp32"
MIB = 2**20
# The student whose scores say by which protocol the others have to be measured.
MEASURE = "base"
# Held-out figures: title, what it is multiplied by to be shown, and whether more is better.
HELD_OUT = {
    "masked_accuracy": ("masked accuracy, %", 100.0, True),
    "pseudo_perplexity": ("pseudo-perplexity", 1.0, False),
    "kl_to_teacher_nats": ("KL to the teacher, nats", 1.0, False),
    "teacher_agreement": ("teacher's first choice, %", 100.0, True),
    "hidden_cosine": ("cosine with the teacher's states", 1.0, True),
}


def _machine(where: Environment) -> str:
    has_amx = any(name.startswith("amx") for name in where.instruction_sets)
    return (
        where.gpu or f"{where.cpu}{' with AMX' if has_amx else ''} ({where.cores} core{'s' if where.cores > 1 else ''})"
    )


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
    def is_former(self) -> bool:
        """Whether it is of before better students were known; the page shows those apart."""
        return self.model in FORMER

    @property
    def tasks(self) -> Mapping[str, Any]:
        """What is known of each task that the model was fine-tuned on, by its name."""
        return {name: about for name, about in self.described.items() if name in self.row.figures["tasks"]}

    @property
    def described(self) -> Mapping[str, Any]:
        """What is known of each task that the file speaks of, by its name."""
        tasks: Mapping[str, Any] = self.report.details["quality"]["tasks"]
        return tasks

    @property
    def settings(self) -> Mapping[str, Any]:
        """How its quality was measured."""
        settings: Mapping[str, Any] = self.report.details["quality"]["settings"]
        return settings

    @property
    def shape(self) -> tuple[str, int]:
        """What decides how fast it is: the same for models of one recipe and as many parameters."""
        return self.model.recipe, self.row.figures["parameters"]

    @property
    def files(self) -> dict[str, Row]:
        """The rows of the exported files that were scored, by their format."""
        return {row.case.removeprefix(FILE): row for row in self.report.rows if row.case.startswith(FILE)}

    @property
    def trained_on(self) -> str:
        """The machine that it was distilled on."""
        return _machine(Environment(**self.report.details["trained_on"]))

    @property
    def measured_on(self) -> str:
        """The machine that its scores and its speed are of."""
        return _machine(self.report.environment)

    @property
    def arithmetic_of_tasks(self) -> str:
        """In what it was fine-tuned, its teacher too."""
        return str(self.report.details["quality"]["precision"])

    @property
    def arithmetic(self) -> str:
        """In what the model was distilled."""
        threads = self.report.details["trained_on"]["threads"]
        # The oldest files do not say it of the distillation; both were chosen alike then.
        precision = self.row.figures.get("precision", self.report.details["quality"]["precision"])
        return f"{precision}, {threads} thread{'s' if threads > 1 else ''}"

    @property
    def has_own_vocabulary(self) -> bool:
        """Whether its figures on held-out text are over other pieces than the teacher's."""
        return "masked_accuracy" in self.row.figures and "kl_to_teacher_nats" not in self.row.figures

    def score(self, case: str, task: str, part: str = "tasks") -> Value:
        """The main score of a row of the file on a task; `part` as in quality.json: ``tasks`` or ``linear_probe``."""
        return Value.of(self.report[case].figures[part][task][self.described[task]["main_metric"]])

    def held_out(self, key: str, case: str | None = None) -> float | None:
        """A figure on held-out text, where it was measured; of one for each layer the mean."""
        figure = self.report[case or self.model.name].figures.get(key)
        return statistics.fmean(figure) if isinstance(figure, list) else figure

    def is_learnt(self, task: str, case: str = TEACHER) -> bool:
        """Whether the score of a row, by default the teacher's, is told apart from that of one class for everything.

        Where it is not, a share of it would be no bound. Of tasks that do not classify texts nothing is known.
        """
        known = next((row.figures["tasks"] for row in self.report.rows if row.case == MAJORITY), {})
        score = self.score(case, task)
        if task not in known or score.std is None:
            return True
        return score.mean - self.score(MAJORITY, task).mean > critical_value(score.seeds - 1) * score.std / math.sqrt(
            score.seeds
        )

    def share(self, tasks: Sequence[str], case: str | None = None) -> Value:
        """Mean score over the tasks, as a share of the teacher's; its deviation is that of a ratio of two means."""
        own = self._mean([self.score(case or self.model.name, task) for task in tasks])
        whole = self._mean([self.score(TEACHER, task) for task in tasks])
        share, spread = own.mean / whole.mean, None
        if case == TEACHER:
            spread = 0.0 if own.std is not None else None
        elif own.std is not None and whole.std is not None:
            spread = share * math.hypot(own.std / own.mean if own.mean else 0.0, whole.std / whole.mean)
        return Value(share, spread, own.seeds)

    @staticmethod
    def _mean(scores: Sequence[Value]) -> Value:
        """The mean over tasks; its deviation follows from theirs."""
        deviations = [score.std for score in scores if score.std is not None]
        spread = math.hypot(*deviations) / len(scores) if len(deviations) == len(scores) else None
        return Value(statistics.fmean(score.mean for score in scores), spread, min(score.seeds for score in scores))


def load_results(folder: Path) -> list[Result]:
    """Every result that is there: by family, the student itself before what it is compared with.

    Scores on tasks are compared with those of ``MEASURE``, or where it is missing of the first; what was fine-tuned in
    another way is not comparable.

    Raises:
        UserError: if there is none, a file is no such one, or held-out text was not measured alike.
    """
    found = [
        Result(model, Measurements.load(path)) for model in MODELS if (path := folder / f"{model.name}.json").exists()
    ]
    if not found:
        raise UserError(f"{folder}: holds no results; benchmarks/reference/experiment.py makes them")
    found.sort(key=lambda result: (FAMILIES.index(result.model.recipe), not result.model.has_files))
    measure = measure_of(found)
    for result in found:
        if result.settings["intrinsic"] != measure.settings["intrinsic"]:
            raise UserError(f"{folder}: {result.model.name} and {measure.model.name} were not measured alike")
    return [_as_far_as_comparable(result, measure.settings["finetuning"]) for result in found]


def measure_of(results: Sequence[Result]) -> Result:
    """Whose protocol of fine-tuning is the one of the page."""
    fine_tuned = [result for result in results if result.tasks] or list(results)
    return by_name(fine_tuned).get(MEASURE, fine_tuned[0])


def _as_far_as_comparable(result: Result, protocol: Mapping[str, Any]) -> Result:
    """A result without what was measured otherwise: its tasks, of another protocol.

    A linear probe stays where it read as many rows as the others': nothing else of the protocol concerns it.
    """
    left_out: set[str] = set()
    if result.settings["finetuning"]["train_limit"] != protocol["train_limit"]:
        left_out.add(PROBE)
    if result.settings["finetuning"] != protocol and result.tasks:
        left_out.add("tasks")
    if not left_out:
        return result
    rows = [
        Row(row.case, {key: value for key, value in row.figures.items() if key not in left_out} | {"tasks": {}})
        for row in result.report.rows
        if row.case in (TEACHER, result.model.name)
    ]
    return Result(result.model, dataclasses.replace(result.report, rows=rows), is_comparable=not result.tasks)


def common_tasks(results: Sequence[Result]) -> list[str]:
    """The learnt tasks that every model which was measured on any was measured on, in the order of the first."""
    first, *others = [result for result in results if result.tasks] or results[:1]
    return [task for task in first.tasks if first.is_learnt(task) and all(task in other.tasks for other in others)]


def widest(results: Sequence[Result]) -> Result:
    """The model that was measured on most tasks; of several the first."""
    return max(results, key=lambda result: len(result.tasks))


def all_tasks(results: Sequence[Result]) -> dict[str, str]:
    """The title and metric of every task that a model was measured on, by name."""
    return {name: _title(task) for result in results for name, task in result.tasks.items()}


def probed_tasks(results: Sequence[Result]) -> dict[str, str]:
    """The title and metric of every task that a model was probed on, by name."""
    return {
        name: _title(task)
        for result in results
        for name, task in result.described.items()
        if name in result.row.figures.get(PROBE, {})
    }


def _title(task: Mapping[str, Any]) -> str:
    return f"{task['title']}, {METRIC_TITLES.get(task['main_metric'], task['main_metric'])}"


@dataclasses.dataclass(frozen=True)
class Point:
    """One file of a student, or the teacher: how good, how large, how fast.

    Attributes:
        result: what it was measured with.
        model: its name.
        file: its format.
        share: its mean score over the common tasks, as a share of the teacher's.
        size_mib: of the weights, MiB.
        gain: its throughput over the teacher's, where it was measured on the machine of the others.
    """

    result: Result
    model: str
    file: str
    share: Value
    size_mib: float
    gain: float | None


def file_points(results: Sequence[Result]) -> list[Point]:
    """The teacher in fp32, and every file of a student that has a score on each of the common tasks."""
    tasks = common_tasks(results)
    students = [result for result in results if result.model.has_files and result.tasks]
    if not students or not tasks:
        return []
    first = students[0]
    timed = timed_alike(results)
    size = 4 * first.report[TEACHER].figures["parameters"] / MIB
    points = [Point(first, TEACHER, PYTORCH, first.share(tasks, TEACHER), size, 1.0)]
    for result in students:
        scored = {PYTORCH: result.model.name, **{kind: row.case for kind, row in result.files.items()}}
        sizes = result.row.figures["files_mib"]
        gains = timed[result.model.name].row.figures["throughput_ratio"] if result.model.name in timed else {}
        for kind, case in scored.items():
            path = "model.safetensors" if kind == PYTORCH else FORMATS[kind].path
            share = result.share(tasks, case)
            points.append(Point(result, result.model.name, kind, share, sizes[path], gains.get(kind)))
    return points


def timed_alike(results: Sequence[Result]) -> dict[str, Result]:
    """For students, by name, whose gains in throughput are theirs: all of one machine, that of most students.

    A gain is that of a shape, whatever the weights are: a student that was timed elsewhere has those of a model of its
    shape, or none.
    """
    timed = [result for result in results if result.row.figures.get("throughput_ratio")]
    students = [result for result in timed if result.model.has_files]
    if not students:
        return {}
    [(machine, _)] = Counter(result.measured_on for result in students).most_common(1)
    there = [result for result in timed if result.measured_on == machine]
    found = {}
    for student in students:
        if alike := [result for result in there if result.shape == student.shape]:
            found[student.model.name] = student if student in alike else alike[0]
    return found


def by_name(results: Sequence[Result]) -> dict[str, Result]:
    """Results by the name of their model."""
    return {result.model.name: result for result in results}
