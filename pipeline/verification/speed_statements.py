"""A speed report against the files and this machine: sizes, parameters, and how much faster one file is."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from distilrubert.common.checked_settings import stated_settings
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

    Raises:
        UserError: if the report's settings are not valid, or a process dies.
    """
    cases = {row.case: case for row in speed.rows if (case := _case_of(row, models)) and not _why_not(row, models)}
    for row in speed.rows:
        if row.case not in cases:
            yield unchecked(row.case, "speed", None, _why_not(row, models))
    if len(cases) < 2:
        return
    measured = measure_speed(list(cases.values()), _settings_of(speed))
    stranger = _stranger(speed)
    first, *others = cases
    for name in others:
        found = _ratios(measured[name], measured[first])
        for quantity, (stated, _) in _ratios(speed[name], speed[first]).items():
            # The spread of the new times: a report could state any.
            ratio, noise = found[quantity]
            if stranger or noise > LARGEST_NOISE:
                reason = stranger or f"too much noise: the times spread by {100 * noise:.0f} %"
                yield unchecked(name, quantity, stated, reason, ratio)
            else:
                share = tolerance + noise
                holds = ratio * (1 + share) >= stated
                yield checked(name, quantity, stated, ratio, f"within {100 * share:.0f} %", holds=holds)


def list_speed(speed: Measurements) -> Iterator[Statement]:
    """The ratios that :func:`check_speed` would check, unchecked."""
    for row in speed.rows[1:]:
        for quantity, (ratio, _) in _ratios(row, speed.rows[0]).items():
            yield unchecked(row.case, quantity, ratio, SLOW)


def _ratios(row: Row, baseline: Row) -> dict[str, tuple[float, float]]:
    """How many times better a row is than the baseline, and the relative spread of both medians together."""
    own, other = row.values, baseline.values

    def noise(median: str, spread: str) -> float:
        return math.fsum(values.get(spread, 0.0) / values[median] for values in (own, other))

    latency, throughput = other["latency_s"] / own["latency_s"], own["samples_per_s"] / other["samples_per_s"]
    return {
        f"latency ratio to {baseline.case}": (latency, noise("latency_s", "latency_spread_s")),
        f"throughput ratio to {baseline.case}": (throughput, noise("samples_per_s", "samples_spread_per_s")),
    }


def _case_of(row: Row, models: Models) -> SpeedCase | None:
    """The case that a row was measured on, if its model is at hand and its runtime known."""
    model, _, name = row.case.removesuffix("-cuda").partition("-")
    return SpeedCase(row.case, models[model], name) if model in models and name in CASES else None


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
    threads = min(speed.environment.threads, Environment.capture().cores)
    values = {**known, "device": "cpu", "threads": threads}
    return stated_settings(SpeedSettings, values, "reports/speed.json", "details")


def _stranger(speed: Measurements) -> str:
    """Why ratios measured here cannot be compared with the stated ones; empty if they can."""
    here, there = Environment.capture(), speed.environment
    # Without known instruction sets, the name tells the kind of processor.
    kinds = [set(where.instruction_sets) or {where.cpu} for where in (here, there)]
    if kinds[0] != kinds[1]:
        return f"another kind of processor: stated for {there.cpu}, measured on {here.cpu}"
    if here.cores < there.threads:
        return f"stated for {there.threads} threads, this machine has {here.cores} cores"
    return ""
