"""A speed report against this machine: sizes, parameters, and how much faster one file is than another."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Set
from pathlib import Path

from distilrubert.common.configuration import stated_settings
from distilrubert.common.errors import UserError
from distilrubert.common.formats import CASES
from distilrubert.common.measurements import Environment, Measurements, Row
from distilrubert.evaluation.speed.benchmark import SpeedCase, measure_speed
from distilrubert.evaluation.speed.parameter_count import count_parameters
from distilrubert.evaluation.speed.speed_rows import ratios_of, times_of
from distilrubert.evaluation.speed.speed_settings import SpeedSettings
from distilrubert.pipeline.verification.statement import Statement, checked, unchecked

Models = Mapping[str, Path]
"""Folder of each model that is at hand, by the name with which its cases begin."""

# Where passes differ by more, on a busy machine, any gain could be held to be within the spread.
LARGEST_NOISE = 0.5
# Of an even number of passes the median of the rates is not quite the rate of the median.
RATE_TOLERANCE = 0.01
SLOW = "takes minutes; ask for it with --speed"


def check_sizes(models: Models, speed: Measurements) -> Iterator[Statement]:
    """Compare size and parameters of each row with the files that are at hand."""
    for row in speed.rows:
        case = _case_of(row, models)
        stated = {key: row.figures[key] for key in ("size_mib", "parameters") if row.figures.get(key) is not None}
        for figure, claimed in stated.items():
            if case is None:
                yield unchecked(row.case, figure, claimed, _not_at_hand(row))
                continue
            folder = Path(case.folder)
            try:
                size = CASES[case.case].format.size_mib(folder)
                value = count_parameters(folder) if figure == "parameters" else size
                yield checked(row.case, figure, claimed, value, holds=value == claimed)
            except UserError as error:
                yield checked(row.case, figure, claimed, None, str(error), holds=False)


def check_ratios(speed: Measurements) -> Iterator[Statement]:
    """Whether what every row states is what the times come to that the report lists: medians, rates, and ratios."""
    stated, wrong = 0, []
    for row in speed.rows:
        for figure, (claimed, value) in {**_summaries(row), **_ratios(row, speed)}.items():
            stated += 1
            if not math.isclose(claimed, value, rel_tol=RATE_TOLERANCE if figure == "samples_per_s" else 1e-9):
                wrong.append(f"{row.case}: {figure}")
    if stated:
        found = stated - len(wrong)
        yield checked("reports/speed.json", "figures of the times", stated, found, ", ".join(wrong), holds=not wrong)


def _summaries(row: Row) -> dict[str, tuple[float, float]]:
    """What the row states and what its passes come to: the latency of its smallest batches, the rate of its largest."""
    batches = {int(size): times for size, times in row.figures.get("batches", {}).items()}
    if not batches:
        return {}
    if _has_starts(row):
        found = times_of(row.figures["batches"])
        return {name: (row.figures[name], value) for name, value in found.items()}
    smallest, largest = batches[min(batches)], batches[max(batches)]
    return {
        "latency_s": (row.figures["latency_s"], smallest["median_s"]),
        "samples_per_s": (row.figures["samples_per_s"], max(batches) / largest["median_s"]),
    }


def _ratios(row: Row, speed: Measurements) -> dict[str, tuple[float, float]]:
    """What the row states and what its times come to, of each ratio that it has."""
    figures, found = row.figures, {}
    if _has_starts(row):
        return _ratios_of_starts(row, speed)
    if row.ratio is not None and speed.baseline is not None:
        found["ratio"] = row.ratio, speed[speed.baseline].figures["latency_s"] / figures["latency_s"]
    if figures.keys() & {"latency_ratio", "throughput_ratio"}:
        # A report that does not say to what has them to its baseline.
        other = speed[str(figures.get("ratio_to", speed.baseline))].figures
        found["latency_ratio"] = figures["latency_ratio"], other["latency_s"] / figures["latency_s"]
        found["throughput_ratio"] = figures["throughput_ratio"], figures["samples_per_s"] / other["samples_per_s"]
    return found


def _has_starts(row: Row) -> bool:
    """Whether the row lists the time of each start; older reports do not."""
    return any("starts_s" in times for times in row.figures.get("batches", {}).values())


def _ratios_of_starts(row: Row, speed: Measurements) -> dict[str, tuple[float, float]]:
    own = row.figures["batches"]
    derived = ratios_of(own, speed[row.figures["ratio_to"]].figures["batches"])
    found = {name: (row.figures[name], derived[name]) for name in ("latency_ratio", "throughput_ratio")}
    for name in found.copy():
        ends = zip(("least", "largest"), row.figures[f"{name}_range"], derived[f"{name}_range"], strict=True)
        found.update({f"{end} {name}": (stated, value) for end, stated, value in ends})
    if row.ratio is not None and speed.baseline is not None:
        found["ratio"] = row.ratio, ratios_of(own, speed[speed.baseline].figures["batches"])["latency_ratio"]
    return found


def check_speed(models: Models, speed: Measurements, tolerance: float) -> Iterator[Statement]:
    """Measure the rows again, in the report's own way, and compare their gains over the first that is at hand.

    A gain holds where the measured one is as large, or smaller by no more than the tolerance and the relative
    interquartile ranges of the new times that it is made of. Times belong to a machine, and gains to a kind of
    processor: where this one has other instruction sets (another name, where none are known), or fewer cores than
    threads were used, the measured gain is shown and not checked. Neither is it where the ranges come to more than
    :data:`LARGEST_NOISE`.

    Args:
        models: what is at hand.
        speed: the report.
        tolerance: by which share the stated gain may be larger than the measured one.

    Raises:
        UserError: if the report's settings are none, or a process dies.
    """
    cases = {row.case: case for row in speed.rows if (case := _runnable(row, models))}
    rows = [row for row in speed.rows if row.case in cases]
    for row in speed.rows:
        if row.case not in cases:
            yield unchecked(row.case, "speed", None, _why_not(row, models))
    if len(rows) < 2:
        return
    measured = measure_speed(list(cases.values()), _settings_of(speed))
    stranger = _stranger(speed)
    for row in rows[1:]:
        stated, found = _gains(row, rows[0]), _gains(measured[row.case], measured[rows[0].case])
        for figure, gain in stated.items():
            # Not the stated spread: a report could claim any.
            noise, value = found[figure].noise, found[figure].value
            if stranger or noise > LARGEST_NOISE:
                reason = stranger or f"too much noise: the times that it is made of spread by {100 * noise:.0f} %"
                yield unchecked(row.case, figure, gain.value, reason, value)
            else:
                share = tolerance + noise
                holds = value * (1 + share) >= gain.value
                yield checked(row.case, figure, gain.value, value, f"within {100 * share:.0f} %", holds=holds)


def list_speed(speed: Measurements) -> Iterator[Statement]:
    """The gains that :func:`check_speed` would look into, unchecked."""
    for row in speed.rows[1:]:
        for figure, gain in _gains(row, speed.rows[0]).items():
            yield unchecked(row.case, figure, gain.value, SLOW)


@dataclasses.dataclass(frozen=True)
class _Gain:
    """How many times better one row is than another, and the relative spread of the two medians together."""

    value: float
    noise: float


def _gains(row: Row, baseline: Row) -> dict[str, _Gain]:
    own, other = row.figures, baseline.figures
    values = {
        "latency": (other["latency_s"] / own["latency_s"], "latency_s", "latency_spread_s"),
        "throughput": (own["samples_per_s"] / other["samples_per_s"], "samples_per_s", "samples_spread_per_s"),
    }
    return {
        f"{name} gain over {baseline.case}": _Gain(
            gain, sum(figures.get(spread, 0.0) / figures[median] for figures in (own, other))
        )
        for name, (gain, median, spread) in values.items()
    }


def _case_of(row: Row, models: Models) -> SpeedCase | None:
    """The case that a row was measured on, where its model is at hand and its runtime known."""
    model, _, name = row.case.removesuffix("-cuda").partition("-")
    return SpeedCase(row.case, models[model], name) if model in models and name in CASES else None


def _runnable(row: Row, models: Models) -> SpeedCase | None:
    return None if _why_not(row, models) else _case_of(row, models)


def _why_not(row: Row, models: Models) -> str:
    """Why the speed of a row cannot be measured here; empty where it can."""
    case = _case_of(row, models)
    if case is None:
        return _not_at_hand(row)
    entry = CASES[case.case].format
    if row.case.endswith("-cuda"):
        return "only the CPU is measured"
    if not entry.runs_here:
        return f"its file is for {' or '.join(entry.machines)}, this machine is another one"
    if not entry.is_in(Path(case.folder)):
        return f"there is no {' or '.join((entry.path, *entry.alternatives))}"
    return ""


def _not_at_hand(row: Row) -> str:
    model = row.case.partition("-")[0]
    return "the teacher is not at hand; name it with --teacher" if model == "teacher" else f"{model} is not at hand"


def _settings_of(speed: Measurements) -> SpeedSettings:
    known = {key: value for key, value in speed.details.items() if key in SpeedSettings.model_fields}
    cores = Environment.capture().cores
    threads = min(speed.environment.threads, cores)
    values = {**known, "device": "cpu", "threads": threads}
    return stated_settings(SpeedSettings, values, "reports/speed.json", "details")


def _stranger(speed: Measurements) -> str:
    """Why gains measured here say nothing about the stated ones; empty where they do."""
    here, there = Environment.capture(), speed.environment
    if _kind(here) != _kind(there):
        return f"another kind of processor: stated for {there.cpu}, measured on {here.cpu}"
    if here.cores < there.threads:
        return f"stated for {there.threads} threads, this machine has {here.cores} cores"
    return ""


def _kind(where: Environment) -> Set[str]:
    """The kind of processor: its instruction sets, or its name where none are known."""
    return set(where.instruction_sets) or {where.cpu}
