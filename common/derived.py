"""What follows from the raw values of a report: worst values, medians over starts, means over runs, ratios.

The files have raw values alone, and whoever reads one derives the rest. No report can contradict itself.
"""

import dataclasses
import os
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilrubert.common.measurements import Measurements, Row

INPUT_FORMS = ("single", "padded", "full_length")
"""The inputs on which a file is compared with its checkpoint; a row of a parity report has values for each."""
SCORES = ("tasks", "linear_probe")
"""The parts of a row of a quality report that have scores by task and metric."""
MAJORITY = "majority-class"


def load_derived(path: str | os.PathLike[str]) -> Measurements:
    """Read a report with what follows from it; a UserError as from :meth:`Measurements.load`."""
    return derive(Measurements.load(path))


def derive(report: Measurements) -> Measurements:
    """Add to each row what follows from its raw values, as far as it has them.

    Parity: each metric, the worst of :data:`INPUT_FORMS`.

    Speed: ``latency_s``, of a pass at the smallest batch size, and ``samples_per_s``, sequences a second at the largest
    one, both the median over the starts; ``latency_spread_s`` and ``samples_spread_per_s``, the interquartile ranges;
    ``starts``, their number. Against the first row on the same device, ``ratio_to``: ``latency_ratio`` and
    ``throughput_ratio``, better above 1, the median over the starts, and ``latency_ratio_range`` and
    ``throughput_ratio_range``, the least and the largest of a start. Start k is compared with start k: both took turns,
    so a machine that was slower then was slower for both.

    Suites: ``best``, the best of the scores of each task by its metric, and their ``mean_score``.

    Quality: ``mean`` and ``std`` (the sample's, None of a single value) of each score; ``ratio``, the mean of the main
    scores over the baseline's; the ``value`` of each gain, (score - majority) / (baseline - majority).
    """
    rows = [_with_means(row) for row in report.rows]
    mains = _main_means(report, rows)
    return dataclasses.replace(report, rows=[_derive_row(row, report, mains) for row in rows])


def worst_of(metric: str, values: Sequence[float]) -> float:
    """The value of a parity metric that is furthest from agreement; NaN if one is."""
    # Python's max and min may lose a NaN, numpy's keep it.
    return float(np.max(values) if metric.endswith("_difference") else np.min(values))


def _derive_row(row: Row, report: Measurements, mains: Mapping[str, Mapping[str, float]]) -> Row:
    values = {**row.values, **_worst_values(row), **_speed_values(row, report), **_suite_values(row, report)}
    own, baseline, majority = (mains.get(case or "", {}) for case in (row.case, report.baseline, MAJORITY))
    if "gain_over_majority" in values:
        values["gain_over_majority"] = {
            task: {**gain, "value": (own[task] - majority[task]) / (baseline[task] - majority[task])}
            for task, gain in values["gain_over_majority"].items()
            if all(task in means for means in (own, baseline, majority)) and baseline[task] != majority[task]
        }
    has_ratio = baseline and own.keys() >= baseline.keys() and sum(baseline.values()) > 0
    ratio = (
        statistics.fmean(own[task] for task in baseline) / statistics.fmean(baseline.values()) if has_ratio else None
    )
    return Row(row.case, values, row.ratio if ratio is None else ratio)


def _worst_values(row: Row) -> dict[str, float]:
    first, *others = [row.values[form] for form in INPUT_FORMS if row.values.get(form)] or [{}]
    shared = [metric for metric in first if all(metric in form for form in others)]
    return {metric: worst_of(metric, [form[metric] for form in (first, *others)]) for metric in shared}


def _speed_values(row: Row, report: Measurements) -> dict[str, Any]:
    if not (own := _starts(row)):
        return {}
    smallest, largest = min(own), max(own)
    rates = largest / own[largest]
    values: dict[str, Any] = {
        "latency_s": float(np.median(own[smallest])),
        "latency_spread_s": _interquartile_range(own[smallest]),
        "samples_per_s": float(np.median(rates)),
        "samples_spread_per_s": _interquartile_range(rates),
        "starts": len(rates),
    }
    first = next(other for other in report.rows if other.values.get("device") == row.values.get("device"))
    other = _starts(first)
    for name, size in (("latency_ratio", smallest), ("throughput_ratio", largest)):
        if size in other and other[size].shape == own[size].shape:
            ratios = other[size] / own[size]
            values |= {name: float(np.median(ratios)), f"{name}_range": [float(ratios.min()), float(ratios.max())]}
            values["ratio_to"] = first.case
    return values


def _suite_values(row: Row, report: Measurements) -> dict[str, Any]:
    scores = row.values.get("scores", {})
    tasks = report.details.get("tasks", {}) if scores else {}
    best = {name: max(way[tasks[name]["metric"]] for way in ways.values()) for name, ways in scores.items()}
    return {"best": best, "mean_score": statistics.fmean(best.values())} if tasks else {}


def _starts(row: Row) -> dict[int, NDArray[np.float64]]:
    """Seconds of each start by batch size."""
    batches = row.values.get("batches", {})
    return {int(size): np.array(batch["starts_s"]) for size, batch in batches.items() if batch.get("starts_s")}


def _interquartile_range(values: NDArray[np.float64]) -> float:
    return float(np.subtract(*np.percentile(values, [75, 25])))


def _with_means(row: Row) -> Row:
    parts = {part: row.values[part] for part in SCORES if part in row.values}
    summarised = {
        part: {task: {name: _summarised(value) for name, value in scores.items()} for task, scores in tasks.items()}
        for part, tasks in parts.items()
    }
    return dataclasses.replace(row, values={**row.values, **summarised})


def _summarised(score: Any) -> Any:
    """A score with its mean and deviation; whatever else is beside the scores of a task as it is."""
    if not isinstance(score, Mapping) or "values" not in score:
        return score
    values = score["values"]
    return {**score, "mean": statistics.fmean(values), "std": statistics.stdev(values) if len(values) > 1 else None}


def _main_means(report: Measurements, rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """The mean of the main score of each fine-tuned task, by case."""
    mains = {task: about.get("main_metric") for task, about in report.details.get("tasks", {}).items()}
    return {
        row.case: {
            task: score["mean"]
            for task, scores in row.values.get("tasks", {}).items()
            if isinstance(score := scores.get(mains.get(task)), Mapping) and "mean" in score
        }
        for row in rows
    }
