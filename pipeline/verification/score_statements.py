"""A quality report against this machine: the models are fine-tuned on a task again, in the report's own way."""

import math
import os
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from distilrubert.common.configuration import stated_settings
from distilrubert.common.errors import UserError
from distilrubert.common.measurements import Measurements, Row
from distilrubert.evaluation.evaluation_settings import QualitySettings
from distilrubert.evaluation.tasks.exported import Exporter
from distilrubert.evaluation.tasks.quality import measure_quality, ratio_of
from distilrubert.evaluation.tasks.significance import critical_value
from distilrubert.evaluation.tasks.task import TaskDefinition
from distilrubert.pipeline.verification.statement import Statement, checked, unchecked

# By how much a score may always differ: the same seed rounds differently on another processor.
SMALLEST_MARGIN = 0.02
# Where runs spread so far, any mean could be held to be near enough.
LARGEST_MARGIN = 0.05
# How far runs of one model on one task may be thought to spread where too few tell.
PLAUSIBLE_DEVIATION = 0.05
SLOW = "takes long; ask for it with --task"
UNPUBLISHED = "the held-out text is not published"
# The parts of a row that hold scores, by what they are called in a claim.
PARTS = {"tasks": "", "linear_probe": "linear probe, "}


def check_scores(
    models: Mapping[str, Path],
    quality: Measurements,
    task: TaskDefinition,
    seeds: Sequence[int] | None,
    cache_folder: str | os.PathLike[str],
    exporters: Mapping[str, Exporter],
    processes: int = 1,
) -> Iterator[Statement]:
    """Score the models that are at hand on a task again and compare with the report.

    Each is fine-tuned at the learning rate that the report says was chosen. Means over seeds agree where they differ
    by no more than :func:`margin_of`, as the new runs spread. Where that is more than :data:`LARGEST_MARGIN` and
    decides, nothing is said. What has no seeds (a linear probe, the bag of words) agrees within
    :data:`SMALLEST_MARGIN`.

    Args:
        models: folders by case.
        quality: the report.
        task: the task, with its data.
        seeds: of the runs; None takes the report's.
        cache_folder: where finished runs are kept.
        exporters: the kinds of files among the report's rows, by name.
        processes: fine-tuning runs at once.

    Raises:
        UserError: if the report has no scores on the task, its settings are none, or the data is no good.
    """
    require_scores(quality, task)
    measured: dict[str, Row] = {}
    for case, folder in models.items():
        parts = {part: figures for row, part, figures in _stated(quality, task.name) if row.case == case}
        if not parts:
            continue
        is_fine_tuned = "tasks" in parts
        kinds = {name: exporter for name, exporter in exporters.items() if _has(quality, f"{case}-{name}")}
        found = measure_quality(
            {case: folder},
            [task] if is_fine_tuned else [],
            _settings_of(quality, parts["tasks"]["run"] if is_fine_tuned else {}, seeds),
            [],
            cache_folder,
            exporters={case: kinds} if kinds else None,
            processes=processes,
            probed=[] if is_fine_tuned else [task],
        )
        measured |= {row.case: row for row in found.rows}
    for row, part, figures in _stated(quality, task.name):
        yield from _compare(task, row.case, part, figures, measured.get(row.case))


def require_scores(quality: Measurements, task: TaskDefinition) -> None:
    """Refuse a task of which a report says nothing.

    Raises:
        UserError: if the report has no scores on it.
    """
    known = quality.details.get("tasks", {})
    if task.name not in known:
        raise UserError(f"task {task.name}: reports/quality.json has no scores on it, only on {', '.join(known)}")


def list_scores(quality: Measurements, checked: Sequence[str] = ()) -> Iterator[Statement]:
    """What is stated and was not looked into.

    Args:
        quality: the report.
        checked: names of the tasks that :func:`check_scores` has dealt with.
    """
    for row in quality.rows:
        if measures := [
            name for name in row.figures if name not in (*PARTS, "masked_pieces", "by_fold", "gain_over_majority")
        ]:
            yield unchecked(row.case, "held-out text", f"{len(measures)} measures", UNPUBLISHED)
    for name, about in quality.details.get("tasks", {}).items():
        for row, part, figures in _stated(quality, name) if name not in checked else ():
            metric = about.get("main_metric", next(iter(figures)))
            yield unchecked(row.case, f"{PARTS[part]}{name}: {metric}", _scores_in(figures)[metric]["mean"], SLOW)


def _has(quality: Measurements, case: str) -> bool:
    return any(row.case == case for row in quality.rows)


def _stated(quality: Measurements, task: str) -> Iterator[tuple[Row, str, Mapping[str, Any]]]:
    """The figures of a task, with their row and its part."""
    for row in quality.rows:
        for part in PARTS:
            if figures := row.figures.get(part, {}).get(task):
                yield row, part, figures


def _settings_of(quality: Measurements, run: Mapping[str, Any], seeds: Sequence[int] | None) -> QualitySettings:
    details = quality.details
    stated = details["settings"]
    protocol = {**stated["finetuning"]} | ({"learning_rates": [run["learning_rate"]]} if run else {})
    # The arithmetic that "auto" stood for on the other machine.
    protocol["precision"] = details.get("precision", protocol["precision"])
    values = {"finetuning": protocol, "seeds": list(seeds or (run or stated)["seeds"])}
    return stated_settings(QualitySettings, values, "reports/quality.json", "details.settings")


def _compare(
    task: TaskDefinition, case: str, part: str, stated: Mapping[str, Any], measured: Row | None
) -> Iterator[Statement]:
    figures = measured.figures.get(part, {}).get(task.name) if measured else None
    for metric, claimed in _scores_in(stated).items():
        name = f"{PARTS[part]}{task.name}: {metric}"
        if figures is None:
            yield unchecked(case, name, claimed["mean"], "the model is not at hand (--teacher names the teacher)")
        elif metric not in figures:
            yield unchecked(case, name, claimed["mean"], "the task's definition does not list this metric")
        else:
            # The measured run says so: a report could claim seeds for anything.
            yield _compare_means(case, name, claimed, figures[metric], seeded="seeds" in figures["run"])


def _compare_means(
    case: str, name: str, claimed: Mapping[str, Any], found: Mapping[str, Any], *, seeded: bool
) -> Statement:
    # By what was measured, where it can be: a report could claim any spread.
    source = claimed if found["std"] is None else found
    stated, measured = max(1, len(claimed["values"])), len(found["values"])
    margin = margin_of(source["std"], len(source["values"]), stated, measured) if seeded else SMALLEST_MARGIN
    difference = abs(found["mean"] - claimed["mean"])
    if SMALLEST_MARGIN < difference <= margin and margin > LARGEST_MARGIN:
        noise = "is not known" if source["std"] is None else f"is {source['std']:.3f}, too much"
        reason = f"the spread of the runs {noise}; more --seeds tell more"
        return unchecked(case, name, claimed["mean"], reason, found["mean"])
    margin = min(margin, LARGEST_MARGIN)
    return checked(case, name, claimed["mean"], found["mean"], f"± {margin:.3f}", holds=difference <= margin)


def _scores_in(stated: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The stated scores by metric; ``run`` says how they came about.

    A plain number is a mean that no run is listed of.
    """
    numbers = {name: figure for name, figure in stated.items() if isinstance(figure, int | float)}
    return {
        **{name: figure for name, figure in stated.items() if isinstance(figure, Mapping) and "mean" in figure},
        **{name: {"mean": number, "std": None, "values": []} for name, number in numbers.items()},
    }


def margin_of(deviation: float | None, runs: int, stated: int, measured: int) -> float:
    """By how much a mean over seeds may differ from the stated one: as means of the same runs do in 19 of 20 cases.

    Args:
        deviation: the sample's standard deviation over seeds; None where there was one run.
        runs: of how many it is.
        stated: seeds of the stated mean.
        measured: seeds of the new one.

    Few runs tell little of how far they spread, one nothing; but seldom further than :data:`PLAUSIBLE_DEVIATION`.
    """
    known = math.inf if deviation is None else critical_value(runs - 1) * deviation
    plausible = critical_value(math.inf) * max(deviation or 0.0, PLAUSIBLE_DEVIATION)
    return max(SMALLEST_MARGIN, min(known, plausible) * math.sqrt(1 / stated + 1 / measured))


def check_means(quality: Measurements) -> Iterator[Statement]:
    """Whether every stated mean, deviation and ratio is that of the runs that the report lists."""
    for row in quality.rows:
        scores = {
            f"{PARTS[part]}{task}: {metric}": claimed
            for part in PARTS
            for task, stated in row.figures.get(part, {}).items()
            for metric, claimed in _scores_in(stated).items()
        }
        if scores:
            wrong = [name for name, claimed in scores.items() if not _follows(claimed)]
            # It is made of the means.
            if not wrong and not _ratio_follows(row, quality):
                wrong.append("ratio")
            stated = len(scores) + (row.ratio is not None)
            found = stated - len(wrong)
            yield checked(row.case, "means over the runs", stated, found, ", ".join(wrong), holds=not wrong)


def _ratio_follows(row: Row, quality: Measurements) -> bool:
    """Whether a row's ratio, where it has one, is that of the mean main scores."""
    if row.ratio is None or quality.baseline is None:
        return True
    baseline = quality[quality.baseline].figures
    mains = {task: quality.details["tasks"][task]["main_metric"] for task in baseline["tasks"]}
    found = ratio_of(row.figures, baseline, mains)
    return found is not None and math.isclose(row.ratio, found, abs_tol=1e-9)


def _follows(claimed: Mapping[str, Any]) -> bool:
    values, deviation = claimed["values"], claimed["std"]
    if not values or not math.isclose(claimed["mean"], statistics.fmean(values), abs_tol=1e-9):
        return False
    if len(values) < 2:
        return deviation is None
    return deviation is not None and math.isclose(deviation, statistics.stdev(values), abs_tol=1e-9)
