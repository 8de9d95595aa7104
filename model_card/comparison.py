"""Several runs side by side: what they measured, a picture of quality over speed and size, how their recipes differ."""

import dataclasses
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from distilrubert.common.checked_settings import read_yaml
from distilrubert.common.configuration import flattened
from distilrubert.common.errors import UserError
from distilrubert.common.measurements import Measurements, Row
from distilrubert.model_card.cases import Case
from distilrubert.model_card.drawing import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PINK,
    RED,
    Mark,
    canvas,
    label_marks,
    plot_marks,
)
from distilrubert.model_card.formatting import number
from distilrubert.model_card.inputs import CardInput, read_card_input
from distilrubert.model_card.scores import Score, Value, have_vocabularies_of_their_own, main_scores
from distilrubert.model_card.tables import NO_VALUE, Table

# Those that are dark enough for text first.
COLOURS = (BLUE, RED, GREEN, PINK, ORANGE)
MARKERS = {"pytorch": "o", "onnx": "s", "openvino": "^"}
NOT_SET = "not set"
TEACHER, STUDENT = "teacher", "student"
LEAST_ROOM = 0.02


@dataclasses.dataclass(frozen=True)
class ComparedRun:
    """A finished run.

    Attributes:
        name: by which it is told from the others.
        card: its model repository.
        recipe: the fields of its recipe, by dotted keys.
    """

    name: str
    card: CardInput
    recipe: Mapping[str, Any]

    def rows(self, model: str) -> list[Row]:
        """The measured files of a model on the CPU."""
        rows = self.card.speed.rows if self.card.speed else []
        cases = [(row, Case.parse(row.case)) for row in rows]
        return [row for row, case in cases if case.model == model and not case.cuda and "samples_per_s" in row.values]


@dataclasses.dataclass(frozen=True)
class Measure:
    """A value that all runs have, and may be compared by.

    Attributes:
        title: what it is, with its unit.
        values: by run and case, in the names of each run's own report.
    """

    title: str
    values: Mapping[str, Mapping[str, Value]]

    def of(self, run: ComparedRun, row: Row) -> Value | None:
        """That of a file; of the checkpoint it was made from, where the file was not scored by itself."""
        values = self.values[run.name]
        case = Case.parse(row.case)
        return values.get(row.case, values.get(case.model))


def read_runs(folders: Sequence[Path]) -> list[ComparedRun]:
    """Read finished run directories.

    Raises:
        UserError: if one is named twice, is no run directory, or has no model repository yet.
    """
    if len({folder.resolve() for folder in folders}) < max(len(folders), 2):
        raise UserError("name two different run directories at least")
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in folders]
    return [_read(folder, name) for folder, name in zip(folders, names, strict=True)]


def _read(folder: Path, name: str) -> ComparedRun:
    recipe = folder / "recipe.yaml"
    if not recipe.is_file():
        raise UserError(f"{folder}: not a run directory: there is no recipe.yaml in it")
    if not (folder / "hub" / "config.json").is_file():
        raise UserError(f"{folder}: is not finished: there is no model repository hub/ in it")
    fields = flattened(read_yaml(recipe, "recipe of a run"))
    return ComparedRun(name, read_card_input(folder / "hub"), fields)


def differences(runs: Sequence[ComparedRun]) -> Table:
    """The fields in which the recipes differ, a column a run."""
    fields = dict.fromkeys(field for run in runs for field in run.recipe)
    rows = []
    for field in fields:
        values = [_shown(run.recipe.get(field)) for run in runs]
        if len(set(values)) > 1:
            rows.append([field, *values])
    return Table(["Field", *(run.name for run in runs)], rows, text_columns=1 + len(runs))


def _shown(value: Any) -> str:
    return NOT_SET if value is None else str(value)


def quality_of(runs: Sequence[ComparedRun]) -> Measure | None:
    """The first of these that every run has: tasks, a suite, linear probes, held-out tokens; None if there is none."""
    qualities = [run.card.quality for run in runs]
    suites = [run.card.suite for run in runs]
    if tasks := _of_tasks(runs, qualities, "tasks", "Mean score on"):
        return tasks
    if all(suites) and len({suite.details["suite"]["title"] for suite in suites if suite}) == 1:
        return _of_suites(runs, [suite for suite in suites if suite])
    return _of_tasks(runs, qualities, "linear_probe", "Mean score of linear probes on") or _of_tokens(runs, qualities)


def _of_tasks(
    runs: Sequence[ComparedRun], qualities: Sequence[Measurements | None], part: str, title: str
) -> Measure | None:
    found = [{score.task: score for score in main_scores(quality, part)} if quality else {} for quality in qualities]
    common = [task for task in found[0] if all(_has_student(scores.get(task)) for scores in found)]
    if not common:
        return None
    values = {run.name: _means([scores[task] for task in common]) for run, scores in zip(runs, found, strict=True)}
    named = ", ".join(f"{found[0][task].title} ({found[0][task].metric_title})" for task in common)
    return Measure(f"{title} {named}" if len(common) > 1 else named, values)


def _has_student(score: Score | None) -> bool:
    return score is not None and STUDENT in score.values


def _means(scores: Sequence[Score]) -> dict[str, Value]:
    """For each case that has them all, the mean of its scores; its deviation follows from theirs."""
    cases = [case for case in scores[0].values if all(case in score.values for score in scores)]
    return {case: _mean([score.values[case] for score in scores]) for case in cases}


def _mean(values: Sequence[Value]) -> Value:
    squares = [value.std**2 for value in values if value.std is not None]
    std = sum(squares) ** 0.5 / len(values) if len(squares) == len(values) else None
    return Value(statistics.fmean(value.mean for value in values), std, min(value.seeds for value in values))


def _of_suites(runs: Sequence[ComparedRun], suites: Sequence[Measurements]) -> Measure:
    values = {
        run.name: {row.case: Value(row.values["mean_score"]) for row in suite.rows if "mean_score" in row.values}
        for run, suite in zip(runs, suites, strict=True)
    }
    return Measure(f"{suites[0].details['suite']['title']}, mean score", values)


def _of_tokens(runs: Sequence[ComparedRun], qualities: Sequence[Measurements | None]) -> Measure | None:
    """Accuracy at masked tokens, where vocabulary and held-out text are the same."""
    name = "masked_accuracy"
    if not all(quality and not have_vocabularies_of_their_own(quality) for quality in qualities):
        return None
    if len({(run.card.config["vocab_size"], str(run.card.facts.corpus)) for run in runs}) > 1:
        return None
    values = {
        run.name: {row.case: Value.of(row.values[name]) for row in quality.rows if name in row.values}
        for run, quality in zip(runs, qualities, strict=True)
        if quality
    }
    return Measure("Accuracy at masked tokens of held-out text", values) if all(values.values()) else None


def speed_of(runs: Sequence[ComparedRun]) -> tuple[str, str] | None:
    """What speed is compared by, a key of a row and its title; None where a run has none.

    Sequences a second, if all were measured on one kind of machine in the same way, else the ratio to the teacher.
    """
    reports = [run.card.speed for run in runs]
    if not all(reports):
        return None
    keys = ("sequence_length", "texts", "batch_sizes", "threads")
    ways = {str([report.environment.cpu, *(report.details.get(key) for key in keys)]) for report in reports if report}
    if len(ways) == 1:
        return "samples_per_s", "Throughput on the CPU, samples/s"
    return "throughput_ratio", "Throughput on the CPU as a ratio to the teacher (measured differently)"


def teacher_run(runs: Sequence[ComparedRun]) -> ComparedRun | None:
    """The run whose teacher stands for all, the first; None if they have different ones."""
    named = {(run.card.facts.teacher.name, run.card.facts.teacher.commit) for run in runs}
    return runs[0] if len(named) == 1 else None


def comparison_table(runs: Sequence[ComparedRun], quality: Measure | None) -> Table:
    """Size, speed and quality of every file on the CPU; the teacher first, if the runs have one in common."""
    measured = speed_of(runs)
    key, title = measured or ("samples_per_s", "")
    head = ["Run", "File", "Size, MiB", *([title] if measured else []), *([quality.title] if quality else [])]
    first = teacher_run(runs)
    shown = [(first, TEACHER)] if first else []
    rows = []
    for run, model in [*shown, *((run, STUDENT) for run in runs)]:
        for row in run.rows(model):
            value = quality.of(run, row) if quality else None
            speed = row.values.get(key)
            cells = [number(speed) if speed is not None else NO_VALUE] if measured else []
            cells += [value.text if value else NO_VALUE] if quality else []
            name = TEACHER if model == TEACHER else run.name
            rows.append([name, Case.parse(row.case).file_label, number(row.values["size_mib"]), *cells])
    return Table(head, rows, text_columns=2)


def draw_comparison(runs: Sequence[ComparedRun], quality: Measure | None) -> Figure | None:
    """Two panels, quality over speed and over size; None where the runs have not both in common.

    Of each run the fastest file of each runtime is drawn, and the teacher, if the runs have one in common.
    """
    measured = speed_of(runs)
    if not quality or not measured:
        return None
    key, title = measured
    first = teacher_run(runs)
    chosen = [(run, row, colour) for run, colour in _coloured(runs) for row in _fastest(run.rows(STUDENT), key)]
    if first:
        chosen += [(first, row, GREY) for row in _fastest(first.rows(TEACHER), key)]
    marks: dict[str, list[Mark]] = {key: [], "size_mib": []}
    for run, row, colour in chosen:
        value = quality.of(run, row)
        if value is None or key not in row.values:
            continue
        case = Case.parse(row.case)
        name = TEACHER if case.model == TEACHER else run.name
        for axis, unit in ((key, "samples/s" if key == "samples_per_s" else "x"), ("size_mib", "MiB")):
            x = row.values[axis]
            label = f"{name}, {case.file_label}\n{x:.3g} {unit}, {value.text}"
            marks[axis].append(Mark(x, value.mean, value.std, label, colour, MARKERS.get(case.runtime, "D")))
    if len(marks[key]) < 2:
        return None
    picture, panels = canvas(8.4, panels=2, columns=1)
    heads = (
        (title, "Quality over speed: up and right is better"),
        ("Size of the file, MiB", "Quality over size: up and left is better"),
    )
    for axes, drawn, (below, above) in zip(panels, marks.values(), heads, strict=True):
        plot_marks(axes, drawn, least_room=LEAST_ROOM)
        axes.set_xlabel(below)
        axes.set_ylabel(quality.title, wrap=True)
        axes.set_title(above, loc="left", fontsize=11)
    for axes, drawn in zip(panels, marks.values(), strict=True):
        label_marks(picture, axes, drawn)
    return picture


def _coloured(runs: Sequence[ComparedRun]) -> Iterable[tuple[ComparedRun, str]]:
    return ((run, COLOURS[place % len(COLOURS)]) for place, run in enumerate(runs))


def _fastest(rows: Sequence[Row], key: str) -> list[Row]:
    """The fastest file of each runtime."""
    by_runtime: dict[str, Row] = {}
    for row in sorted(rows, key=lambda row: row.values.get(key, 0.0)):
        by_runtime[Case.parse(row.case).runtime] = row
    return list(by_runtime.values())
