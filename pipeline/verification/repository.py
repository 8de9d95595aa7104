"""Everything that a model repository claims, looked into: `distilrubert verify`."""

import dataclasses
import itertools
import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from distilrubert.common.configuration import stated_settings
from distilrubert.common.errors import UserError
from distilrubert.common.measurements import Measurements
from distilrubert.conversion.conversion_settings import ConversionSettings
from distilrubert.conversion.formats import FORMATS
from distilrubert.conversion.parity import default_sentences
from distilrubert.evaluation.tasks.exported import Exporter
from distilrubert.evaluation.tasks.task import TaskDefinition
from distilrubert.evaluation.tasks.task_data import load_rows
from distilrubert.pipeline.exporting import exporters_of
from distilrubert.pipeline.verification.card_statements import check_card, read_reports
from distilrubert.pipeline.verification.file_statements import check_files
from distilrubert.pipeline.verification.score_statements import check_means, check_scores, list_scores, require_scores
from distilrubert.pipeline.verification.speed_statements import check_ratios, check_sizes, check_speed, list_speed
from distilrubert.pipeline.verification.statement import Statement

STYLES = {"holds": "green", "does not hold": "bold red", "not checked": "yellow"}
SHOWN_DIGITS = 12


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What is looked into besides what is quick.

    Attributes:
        teacher: folder of the teacher, where it is at hand.
        speed: whether the gains in speed are measured.
        tolerance: by which share a stated gain may be larger than the measured one.
        tasks: on which the models are fine-tuned again.
        seeds: of these runs; None takes those of the report.
        processes: how many of these runs go on at once.
    """

    teacher: Path | None = None
    speed: bool = False
    tolerance: float = 0.3
    tasks: Sequence[TaskDefinition] = ()
    seeds: Sequence[int] | None = None
    processes: int = 1


def check_claims(folder: Path, wanted: Wanted) -> Iterator[Statement]:
    """Every claim of a model repository with its verdict, as they are reached.

    Args:
        folder: with card, reports and files.
        wanted: the slow measurements that are asked for.

    Raises:
        UserError: if the folder holds no card or no reports, or they are not of their form.
    """
    try:
        yield from _check(folder, wanted)
    # Reports may come from anywhere, and each of a hundred figures may be missing.
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise UserError(
            f"{folder}: a report or config.json lacks a figure, or has another kind of value: {error!r}"
        ) from error


def _check(folder: Path, wanted: Wanted) -> Iterator[Statement]:
    reports = read_reports(folder)
    # Before anything is measured: what cannot be is refused.
    exporters = _exporters_of(reports, wanted)
    models = {"student": folder} | ({"teacher": wanted.teacher} if wanted.teacher else {})
    yield from check_card(folder, reports)
    yield from check_files(folder, reports.get("parity"), default_sentences())
    if speed := reports.get("speed"):
        yield from check_ratios(speed)
        yield from check_sizes(models, speed)
        yield from check_speed(models, speed, wanted.tolerance) if wanted.speed else list_speed(speed)
    if quality := reports.get("quality"):
        yield from check_means(quality)
        with tempfile.TemporaryDirectory(prefix="distilrubert-verify-") as cache:
            for task in wanted.tasks:
                yield from check_scores(models, quality, task, wanted.seeds, cache, exporters, wanted.processes)
        yield from list_scores(quality, [task.name for task in wanted.tasks])


def _exporters_of(reports: Mapping[str, Measurements], wanted: Wanted) -> dict[str, Exporter]:
    """What makes the files that were scored on the tasks, where there are any.

    Raises:
        UserError: if there is no report to compare with, a task's data is no good, or packages are missing.
    """
    if wanted.speed and "speed" not in reports:
        raise UserError("--speed: there is no reports/speed.json to compare with")
    if not wanted.tasks:
        return {}
    if "quality" not in reports:
        raise UserError("--task: there is no reports/quality.json to compare with")
    quality = reports["quality"]
    for task in wanted.tasks:
        require_scores(quality, task)
        load_rows(task)
    scored = [case for case in FORMATS if any(row.case == f"student-{case}" for row in quality.rows)]
    return {case: exporters_of([case], _conversion_of(quality, case))[case] for case in scored}


def _conversion_of(quality: Measurements, case: str) -> ConversionSettings:
    """How the files that were scored had been made; the defaults where a report does not say."""
    stated = quality.details.get("exported", {}).get(case, {})
    return stated_settings(ConversionSettings, stated, "reports/quality.json", f"details.exported.{case}")


def claims_table(claims: Sequence[Statement]) -> Table:
    """A line for each claim: what is claimed, what was measured, the verdict and why."""
    table = Table(title="Claims", title_justify="left", box=SIMPLE_HEAD)
    for heading in ("about", "figure", "claimed", "measured", "verdict"):
        table.add_column(heading, overflow="fold")
    for before, claim in itertools.pairwise([None, *claims]):
        assert claim is not None
        about = claim.subject if before is None or before.subject != claim.subject else ""
        cells = map(escape, (about, claim.quantity, _shown(claim.stated), _shown(claim.found)))
        reason = f": {escape(claim.reason)}" if claim.reason else ""
        table.add_row(*cells, f"[{STYLES[claim.verdict]}]{claim.verdict}[/]{reason}")
    return table


def summary(claims: Sequence[Statement]) -> str:
    """How many claims have which verdict."""
    counts = Counter[str](claim.verdict for claim in claims)
    return f"{counts['holds']} claims hold, {counts['does not hold']} do not, {counts['not checked']} were not checked"


def claims_as_json(claims: Sequence[Statement]) -> str:
    """The form for machines."""
    values: dict[str, Any] = {"claims": [claim.to_dict() for claim in claims]}
    return json.dumps(values | {"holds": all_hold(claims)}, ensure_ascii=False, allow_nan=False)


def all_hold(claims: Sequence[Statement]) -> bool:
    """Whether no claim was found wrong."""
    return not any(claim.verdict == "does not hold" for claim in claims)


def _shown(figure: Any) -> str:
    if figure is None:
        return ""
    if isinstance(figure, str):
        is_digest = len(figure) == 64 and " " not in figure
        return f"{figure[:SHOWN_DIGITS]}…" if is_digest else figure
    if isinstance(figure, int | float):
        return f"{figure:,}" if isinstance(figure, int) else f"{figure:.5g}"
    # A card may have come from anywhere.
    return str(figure)
