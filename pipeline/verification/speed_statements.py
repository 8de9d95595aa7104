"""A speed report against the files and this machine: sizes, parameters, and how much faster one file is."""

import dataclasses
from collections.abc import Iterator, Mapping, Set
from pathlib import Path

from distilrubert.common.configuration import stated_settings
from distilrubert.common.errors import UserError
from distilrubert.common.formats import CASES
from distilrubert.common.measurements import Environment, Measurements, Row
from distilrubert.evaluation.speed.benchmark import SpeedCase, measure_speed
from distilrubert.evaluation.speed.parameter_count import count_parameters
from distilrubert.evaluation.speed.speed_settings import SpeedSettings
from distilrubert.pipeline.verification.statement import Statement, checked, unchecked

Models = Mapping[str, Path]
"""Folder of each model that is at hand, by the name with which its cases begin."""

# On a busy machine the spread may be so large that any ratio would hold.
LARGEST_NOISE = 0.5
SLOW = "takes minutes; ask for it with --speed"


def check_sizes(models: Models, speed: Measurements) -> Iterator[Statement]:
    """Compare size and parameters of each row with the files that are at hand."""
    for row in speed.rows:
        case = _case_of(row, models)
        stated = {key: row.values[key] for key in ("size_mib", "parameters") if row.values.get(key) is not None}
        for quantity, value in stated.items():
            if case is None:
                yield unchecked(row.case, quantity, value, _not_at_hand(row))
                continue
            folder = Path(case.folder)
            try:
                size = CASES[case.case].format.size_mib(folder)
                found = count_parameters(folder) if quantity == "parameters" else size
                yield checked(row.case, quantity, value, found, holds=found == value)
            except UserError as error:
                yield checked(row.case, quantity, value, None, str(error), holds=False)


def check_speed(models: Models, speed: Measurements, tolerance: float) -> Iterator[Statement]:
    """Measure the rows again, with the report's settings, and compare their ratios to the first one at hand.

    A stated ratio may be larger than the measured one by the tolerance plus the relative interquartile ranges of the
    new times. It is shown and not checked on a processor with other instruction sets (another name, if none are known)
    or with fewer cores than the report's threads, and where the ranges add up to more than :data:`LARGEST_NOISE`.

    Args:
        models: folders of the models at hand.
        speed: the report.
        tolerance: by which share the stated ratio may be larger than the measured one.

    Raises:
        UserError: if the report's settings are not valid, or a process dies.
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
        stated, found = _ratios(row, rows[0]), _ratios(measured[row.case], measured[rows[0].case])
        for quantity, ratio in stated.items():
            # The spread of the new times: a report could state any.
            noise, value = found[quantity].noise, found[quantity].value
            if stranger or noise > LARGEST_NOISE:
                reason = stranger or f"too much noise: the times spread by {100 * noise:.0f} %"
                yield unchecked(row.case, quantity, ratio.value, reason, value)
            else:
                share = tolerance + noise
                holds = value * (1 + share) >= ratio.value
                yield checked(row.case, quantity, ratio.value, value, f"within {100 * share:.0f} %", holds=holds)


def list_speed(speed: Measurements) -> Iterator[Statement]:
    """The ratios that :func:`check_speed` would check, unchecked."""
    for row in speed.rows[1:]:
        for quantity, ratio in _ratios(row, speed.rows[0]).items():
            yield unchecked(row.case, quantity, ratio.value, SLOW)


@dataclasses.dataclass(frozen=True)
class _Ratio:
    """How many times better one row is than another, and the relative spread of the two medians together."""

    value: float
    noise: float


def _ratios(row: Row, baseline: Row) -> dict[str, _Ratio]:
    own, other = row.values, baseline.values
    values = {
        "latency": (other["latency_s"] / own["latency_s"], "latency_s", "latency_spread_s"),
        "throughput": (own["samples_per_s"] / other["samples_per_s"], "samples_per_s", "samples_spread_per_s"),
    }
    return {
        f"{name} ratio to {baseline.case}": _Ratio(
            ratio, sum(figures.get(spread, 0.0) / figures[median] for figures in (own, other))
        )
        for name, (ratio, median, spread) in values.items()
    }


def _case_of(row: Row, models: Models) -> SpeedCase | None:
    """The case that a row was measured on, if its model is at hand and its runtime known."""
    model, _, name = row.case.removesuffix("-cuda").partition("-")
    return SpeedCase(row.case, models[model], name) if model in models and name in CASES else None


def _runnable(row: Row, models: Models) -> SpeedCase | None:
    return None if _why_not(row, models) else _case_of(row, models)


def _why_not(row: Row, models: Models) -> str:
    """Why the speed of a row cannot be measured here; empty if it can."""
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
    """Why ratios measured here cannot be compared with the stated ones; empty if they can."""
    here, there = Environment.capture(), speed.environment
    if _kind(here) != _kind(there):
        return f"another kind of processor: stated for {there.cpu}, measured on {here.cpu}"
    if here.cores < there.threads:
        return f"stated for {there.threads} threads, this machine has {here.cores} cores"
    return ""


def _kind(where: Environment) -> Set[str]:
    """The kind of processor: its instruction sets, or its name if none are known."""
    return set(where.instruction_sets) or {where.cpu}
