"""A quality report against this machine: the models are fine-tuned on a task again, with the report's settings."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from distilrubert.common.checked_settings import stated_settings
from distilrubert.common.derived import derive
from distilrubert.common.errors import UserError
from distilrubert.common.measurements import Measurements, Row
from distilrubert.evaluation.evaluation_settings import QualitySettings
from distilrubert.evaluation.tasks.exported import Exporter
from distilrubert.evaluation.tasks.quality import measure_quality
from distilrubert.evaluation.tasks.significance import critical_value
from distilrubert.evaluation.tasks.task import TaskDefinition
from distilrubert.pipeline.statement import Statement, checked, unchecked

# The same seed gives another score on another processor, because it rounds differently.
SMALLEST_MARGIN = 0.02
# With a larger margin almost any mean would agree.
LARGEST_MARGIN = 0.05
# Standard deviation over seeds that is assumed if there are too few runs to estimate it.
PLAUSIBLE_DEVIATION = 0.05
SLOW = "takes long; ask for it with --task"
# The parts of a row that hold scores, by their name in a statement.
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

    Each is fine-tuned at the learning rate that the report gives. Two means over seeds agree if they differ by at most
    :func:`margin_of`, with the deviation of the new runs. If that margin is above :data:`LARGEST_MARGIN` and decides,
    the statement is not checked. Scores without seeds (a linear probe, the bag of words) agree within
    :data:`SMALLEST_MARGIN`.

    Args:
        models: folders by case.
        quality: the report.
        task: the task, with its data.
        seeds: of the runs; None takes the report's.
        cache_folder: where finished runs are kept.
        exporters: what makes the files that were scored, by name.
        processes: fine-tuning runs at once.

    Raises:
        UserError: if the report has no scores on the task, its settings are not valid, or the data cannot be used.
    """
    require_scores(quality, task)
    rows = [row.case for row in quality.rows]
    measured: dict[str, Row] = {}
    for case, folder in models.items():
        parts = {part: scores for row, part, scores in _stated(quality, task.name) if row.case == case}
        if not parts:
            continue
        is_fine_tuned = "tasks" in parts
        kinds = {name: exporters[name] for name in exporters if f"{case}-{name}" in rows}
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
        measured |= {row.case: row for row in derive(found).rows}
    for row, part, scores in _stated(quality, task.name):
        yield from _compare(task, row.case, part, scores, measured.get(row.case))


def require_scores(quality: Measurements, task: TaskDefinition) -> None:
    """Refuse, with a UserError, a task that a report has no scores on."""
    known = quality.details.get("tasks", {})
    if task.name not in known:
        raise UserError(f"task {task.name}: reports/quality.json has no scores on it, only on {', '.join(known)}")


def list_scores(quality: Measurements, done: Sequence[str]) -> Iterator[Statement]:
    """A statement for held-out text, and one for each task that is not `done`: they were not measured again."""
    subject = "reports/quality.json"
    if any("masked_accuracy" in row.values for row in quality.rows):
        yield unchecked(subject, "held-out text", None, "the held-out text is not published")
    for task in quality.details.get("tasks", {}):
        if task not in done:
            yield unchecked(subject, f"scores on {task}", None, SLOW)


def _stated(quality: Measurements, task: str) -> Iterator[tuple[Row, str, Mapping[str, Any]]]:
    """The scores of a task, with their row and its part."""
    for row in quality.rows:
        for part in PARTS:
            if scores := row.values.get(part, {}).get(task):
                yield row, part, scores


def _settings_of(quality: Measurements, run: Mapping[str, Any], seeds: Sequence[int] | None) -> QualitySettings:
    details = quality.details
    stated = details["settings"]
    protocol = {**stated["finetuning"]} | ({"learning_rates": [run.get("learning_rate")]} if run else {})
    if "precision" in details:
        # The arithmetic that "auto" stood for on the other machine.
        protocol["precision"] = details["precision"]
    values = {"finetuning": protocol, "seeds": list(seeds or run.get("seeds") or stated["seeds"])}
    return stated_settings(QualitySettings, values, "reports/quality.json", "details.settings")


def _compare(
    task: TaskDefinition, case: str, part: str, stated: Mapping[str, Any], measured: Row | None
) -> Iterator[Statement]:
    scores = measured.values.get(part, {}).get(task.name) if measured else None
    for metric, score in _scores_in(stated).items():
        name = f"{PARTS[part]}{task.name}: {metric}"
        if scores is None:
            yield unchecked(case, name, score["mean"], "the model is not at hand (--teacher names the teacher)")
        elif metric not in scores:
            yield unchecked(case, name, score["mean"], "the task's definition does not list this metric")
        else:
            # Only the new run is trusted to say whether there are seeds.
            yield _compare_means(case, name, score, scores[metric], seeded="seeds" in scores["run"])


def _compare_means(
    case: str, name: str, score: Mapping[str, Any], found: Mapping[str, Any], *, seeded: bool
) -> Statement:
    # The new deviation is preferred: a report could state any.
    source = score if found["std"] is None else found
    runs, stated, measured = (len(each["values"]) for each in (source, score, found))
    margin = margin_of(source["std"], runs, stated, measured) if seeded else SMALLEST_MARGIN
    difference = abs(found["mean"] - score["mean"])
    if SMALLEST_MARGIN < difference <= margin and margin > LARGEST_MARGIN:
        noise = "is not known" if source["std"] is None else f"of {source['std']:.3f} is too large"
        reason = f"the standard deviation of the runs {noise}; use more --seeds"
        return unchecked(case, name, score["mean"], reason, found["mean"])
    margin = min(margin, LARGEST_MARGIN)
    return checked(case, name, score["mean"], found["mean"], f"± {margin:.3f}", holds=difference <= margin)


def _scores_in(stated: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {name: value for name, value in stated.items() if isinstance(value, Mapping) and "mean" in value}


def margin_of(deviation: float | None, runs: int, stated: int, measured: int) -> float:
    """How far two means over seeds of one model differ in at most 1 of 20 cases.

    Args:
        deviation: the sample's standard deviation over seeds; None for one run. An estimate from few runs is
            uncertain, so the margin is at most what :data:`PLAUSIBLE_DEVIATION` gives.
        runs: number of runs that it is estimated from.
        stated: number of seeds of the stated mean.
        measured: number of seeds of the new mean.
    """
    known = math.inf if deviation is None else critical_value(runs - 1) * deviation
    plausible = critical_value(math.inf) * max(deviation or 0.0, PLAUSIBLE_DEVIATION)
    return max(SMALLEST_MARGIN, min(known, plausible) * math.sqrt(1 / stated + 1 / measured))
