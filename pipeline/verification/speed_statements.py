"""A speed report against the files and this machine: sizes, parameters, and how much faster one file is."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from distilrubert.common.checked_settings import stated_settings
from distilrubert.common.derived import derive
from distilrubert.common.errors import UserError
from distilrubert.common.formats import CASES
from distilrubert.common.measurements import Environment, Measurements, Row
from distilrubert.evaluation.speed.benchmark import SpeedCase, Text, measure_speed
from distilrubert.evaluation.speed.parameter_count import count_parameters
from distilrubert.evaluation.speed.speed_settings import SpeedSettings
from distilrubert.model_card.cases import Case
from distilrubert.pipeline.statement import Statement, checked, unchecked

Models = Mapping[str, Path]
"""Folder of each model that is at hand, by the name with which its cases begin."""

# On a busy machine the spread may be so large that any ratio would hold.
LARGEST_NOISE = 0.5
ON_TEXTS = "measured on texts, which are not in the repository; name a model's own task with --task"
SLOW = "takes minutes; ask for it with --speed"
# The value that a ratio compares, its spread, and whether a larger one is better.
RATIOS = {
    "latency ratio": ("latency_s", "latency_spread_s", False),
    "throughput ratio": ("samples_per_s", "samples_spread_per_s", True),
}


def check_sizes(models: Models, speed: Measurements) -> Iterator[Statement]:
    """Compare size and parameters of each row with the files that are at hand."""
    for row, quantity in itertools.product(speed.rows, ("size_mib", "parameters")):
        case, stated = Case.parse(row.case), row.values.get(quantity)
        if stated is None:
            continue
        if reason := _not_at_hand(case, models):
            yield unchecked(row.case, quantity, stated, reason)
            continue
        folder, entry = models[case.model], CASES[case.file].format
        try:
            found = count_parameters(folder) if quantity == "parameters" else entry.size_mib(folder)
        except UserError as error:
            if quantity == "parameters":  # weights that cannot be read are told of by check_files
                yield unchecked(row.case, quantity, stated, str(error))
            else:
                yield checked(row.case, quantity, stated, None, str(error), holds=False)
        else:
            yield checked(row.case, quantity, stated, found, holds=found == stated)


def check_speed(
    models: Models,
    speed: Measurements,
    tolerance: float,
    task: str = "feature-extraction",
    texts: Sequence[Text] = (),
) -> Iterator[Statement]:
    """Measure the rows again, with the report's settings, and compare their ratios to the first one at hand.

    A stated ratio may be larger than the measured one by the tolerance plus the relative interquartile ranges of the
    new times. It is shown and not checked on a processor with other instruction sets (another name, if none are known)
    or with fewer cores than the report's threads, and where the ranges add up to more than :data:`LARGEST_NOISE`.
    `task` is what the files return, `texts` are those on which the rows were measured, if any.

    Raises:
        UserError: if the report's settings are not valid, or a process dies.
    """
    cases = []
    for row in speed.rows:
        case = Case.parse(row.case)
        if reason := _not_at_hand(case, models) or _why_not_here(case, models[case.model]):
            yield unchecked(row.case, "speed", None, reason)
        else:
            cases.append(SpeedCase(row.case, models[case.model], case.file, task))
    if len(cases) < 2:
        return
    if speed.details.get("texts") and not texts:
        yield unchecked("reports/speed.json", "ratios", None, ON_TEXTS)
        return
    measured = derive(measure_speed(cases, _settings_of(speed), texts=texts))
    stranger = _stranger(speed)
    first, *others = (case.name for case in cases)
    for name, ratio in itertools.product(others, RATIOS):
        stated, found = (_ratio(ratio, report[name], report[first]) for report in (speed, measured))
        # The spread of the new times: a report could state any.
        noise = _noise(ratio, measured[name], measured[first])
        quantity = f"{ratio} to {first}"
        if stranger or noise > LARGEST_NOISE:
            reason = stranger or f"too much noise: the times spread by {100 * noise:.0f} %"
            yield unchecked(name, quantity, stated, reason, found)
        else:
            share = tolerance + noise
            yield checked(
                name, quantity, stated, found, f"within {100 * share:.0f} %", holds=found * (1 + share) >= stated
            )


def _ratio(name: str, row: Row, baseline: Row) -> float:
    """How many times better a row is than the baseline."""
    value, _, is_larger_better = RATIOS[name]
    ratio: float = row.values[value] / baseline.values[value]
    return ratio if is_larger_better else 1 / ratio


def _noise(name: str, *rows: Row) -> float:
    """The relative spread of the medians together."""
    value, spread, _ = RATIOS[name]
    return math.fsum(row.values.get(spread, 0.0) / row.values[value] for row in rows)


def _not_at_hand(case: Case, models: Models) -> str:
    """Why a case cannot be looked at; empty if its model is at hand and its file known."""
    if case.model in models and case.file:
        return ""
    return "the teacher is not at hand; name it with --teacher" if case.model == "teacher" else "is not at hand"


def _why_not_here(case: Case, folder: Path) -> str:
    """Why the speed of a case cannot be measured here; empty if it can."""
    entry = CASES[case.file].format
    if case.cuda:
        return "only the CPU is measured"
    if not entry.runs_here:
        return f"its file is for {' or '.join(entry.machines)}, this machine is another one"
    return "" if entry.is_in(folder) else f"there is no {' or '.join((entry.path, *entry.alternatives))}"


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
