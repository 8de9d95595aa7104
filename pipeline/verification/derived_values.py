"""Values of a report that follow from its raw values: derived again, by the functions that wrote them, and compared."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from distilrubert.common.measurements import Measurements, Row
from distilrubert.conversion.parity import WAYS, worst_of
from distilrubert.evaluation.speed.speed_rows import ratios_of, times_of
from distilrubert.evaluation.tasks.baselines import MAJORITY
from distilrubert.evaluation.tasks.gain import share_of_lead
from distilrubert.evaluation.tasks.quality import ratio_of
from distilrubert.evaluation.tasks.task_runs import summarise
from distilrubert.pipeline.verification.statement import Statement, checked, unchecked

NO_RAW_VALUES = "the report does not list the raw values, or not those of the baseline"


def check_derived(reports: Mapping[str, Measurements]) -> Iterator[Statement]:
    """A statement for each row of a report: whether its medians, means and ratios follow from its raw values."""
    for name, derive in DERIVE.items():
        if name in reports:
            for row in reports[name].rows:
                yield _compare(name, row, derive(row, reports[name]))


def _compare(report: str, row: Row, derived: Mapping[str, Any] | None) -> Statement:
    subject = f"reports/{report}.json"
    if derived is None:
        return unchecked(subject, f"{row.case}: derived values", None, NO_RAW_VALUES)
    values = dict(_leaves(derived))
    stated = dict(_leaves(row.to_dict()))
    wrong = [path for path, value in values.items() if not _is_same(stated.get(path), value)]
    shown = "; ".join(f"{path} is {stated.get(path)}, {values[path]} follows" for path in wrong)
    agreeing = f"{len(values) - len(wrong)} agree"
    return checked(subject, f"{row.case}: derived values", f"{len(values)} values", agreeing, shown, holds=not wrong)


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _leaves(inner, f"{path}.{index}")
    else:
        yield path, value


def _is_same(stated: Any, derived: Any) -> bool:
    if not isinstance(stated, int | float) or not isinstance(derived, int | float):
        return bool(stated == derived)
    return math.isclose(stated, derived, rel_tol=1e-9, abs_tol=1e-12) or (math.isnan(stated) and math.isnan(derived))


def _of_parity(row: Row, parity: Measurements) -> Mapping[str, Any] | None:
    ways = [row.values[way] for way in WAYS if row.values.get(way)]
    # Without its worst way a row could state better values.
    if len(ways) < len(WAYS):
        return None
    return {metric: worst_of(metric, [way[metric] for way in ways if metric in way]) for metric in ways[0]}


def _of_speed(row: Row, speed: Measurements) -> Mapping[str, Any] | None:
    batches = {other.case: other.values.get("batches", {}) for other in speed.rows}
    own, reference = batches[row.case], batches.get(row.values.get("ratio_to") or "", {})
    baseline = batches.get(speed.baseline or "", {})
    if not _are_comparable(own, reference) or not _are_comparable(own, baseline):
        return None
    ratio = ratios_of(own, baseline)["latency_ratio"]
    return {**times_of(own), **ratios_of(own, reference), "ratio": ratio}


def _are_comparable(own: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether both list the times of as many starts at the same batch sizes."""
    starts, others = ({size: len(times.get("starts_s", ())) for size, times in rows.items()} for rows in (own, other))
    return bool(starts) and starts == others and min(starts.values()) > 0


def _of_quality(row: Row, quality: Measurements) -> Mapping[str, Any] | None:
    tasks = {part: _scores(row.values.get(part, {})) for part in ("tasks", "linear_probe")}
    derived: dict[str, Any] = {part: scores for part, scores in tasks.items() if scores}
    own, teacher, majority = (_tasks_of(quality, case) for case in (row.case, quality.baseline, MAJORITY))
    about = quality.details.get("tasks", {})
    mains = {task: about.get(task, {}).get("main_metric") for task in teacher}
    if row.ratio is not None:
        is_complete = all(metric in own.get(task, {}) and metric in teacher[task] for task, metric in mains.items())
        derived["ratio"] = ratio_of({"tasks": own}, {"tasks": teacher}, mains) if is_complete else None
    for task in row.values.get("gain_over_majority", {}):
        scores = [model.get(task, {}) for model in (own, teacher, majority)]
        metric = mains.get(task)
        is_complete = all(metric in each for each in scores) and scores[1][metric]["mean"] != scores[2][metric]["mean"]
        share = share_of_lead(str(metric), *scores) if is_complete else None
        derived.setdefault("gain_over_majority", {})[task] = {"value": share}
    return derived or None


def _tasks_of(quality: Measurements, case: str | None) -> Mapping[str, Any]:
    return next((row.values.get("tasks", {}) for row in quality.rows if row.case == case), {})


def _scores(tasks: Mapping[str, Any]) -> dict[str, Any]:
    """Each score of a part of a row, summarised again from the values of the runs."""
    return {
        task: {
            metric: summarise(score["values"])
            for metric, score in metrics.items()
            if isinstance(score, Mapping) and "mean" in score
        }
        for task, metrics in tasks.items()
    }


DERIVE: Mapping[str, Callable[[Row, Measurements], Mapping[str, Any] | None]] = {
    "parity": _of_parity,
    "speed": _of_speed,
    "quality": _of_quality,
}
