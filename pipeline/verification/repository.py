"""Every statement of a model repository, checked: ``distilrubert verify``."""

import dataclasses
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from distilrubert.common.checked_settings import stated_settings
from distilrubert.common.errors import UserError
from distilrubert.common.formats import CASES, FORMATS
from distilrubert.common.measurements import Measurements
from distilrubert.conversion.conversion_settings import ConversionSettings
from distilrubert.conversion.parity import default_sentences
from distilrubert.evaluation.tasks.exported import Exporter
from distilrubert.evaluation.tasks.kinds import KINDS
from distilrubert.evaluation.tasks.task import TaskDefinition
from distilrubert.evaluation.tasks.task_data import load_rows
from distilrubert.model_card.inputs import REPORTS, read_reports
from distilrubert.pipeline.exporting import exporters_of
from distilrubert.pipeline.statement import Statement, unchecked
from distilrubert.pipeline.task_rows import test_texts
from distilrubert.pipeline.verification.card_statements import check_card
from distilrubert.pipeline.verification.file_statements import check_files, check_shared_files, list_other_files
from distilrubert.pipeline.verification.score_statements import check_scores, list_scores, require_scores
from distilrubert.pipeline.verification.speed_statements import SLOW, check_sizes, check_speed
from distilrubert.pipeline.verification.task_statements import (
    check_task_files,
    check_task_scores,
    list_task_scores,
    require_task,
)


@dataclasses.dataclass(frozen=True)
class Extent:
    """How much is checked beyond what takes seconds.

    Attributes:
        teacher: folder of the teacher; None where it is not at hand.
        speed: whether the ratios of speed are measured.
        tolerance: by which share a stated ratio may be larger than the measured one.
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


def check_repository(folder: Path, extent: Extent) -> Iterator[Statement]:
    """Every statement of a model repository with its verdict, as they are reached.

    Raises:
        UserError: if the folder holds no card or no reports, or they are not of their form.
    """
    reports = read_reports(folder)
    if not reports:
        raise UserError(f"{folder}: has none of the reports {', '.join(f'reports/{name}.json' for name in REPORTS)}")
    # Refuse what cannot be measured before anything is measured.
    exporters = _exporters_of(reports, extent)
    models = {"student": folder} | ({"teacher": extent.teacher} if extent.teacher else {})
    yield from check_card(folder, reports)
    if finetuning := reports.get("finetuning"):
        yield from check_shared_files(folder, finetuning.details)
        yield from check_task_files(folder, finetuning, default_sentences())
        known = {path for row in finetuning.rows if row.case in CASES for path in CASES[row.case].format.paths}
        yield from list_other_files(folder, known, "reports/finetuning.json")
        for task in extent.tasks:
            yield from check_task_scores(folder, finetuning, task)
        yield from list_task_scores(finetuning, [task.name for task in extent.tasks])
    else:
        yield from check_files(folder, reports.get("parity"), default_sentences())
    if speed := reports.get("speed"):
        yield from check_sizes(models, speed)
        if extent.speed:
            kind = finetuning.details["task"]["kind"] if finetuning else None
            returned = KINDS[kind].export_task if kind else "feature-extraction"
            texts = [text for task in extent.tasks for text in test_texts(task)] if finetuning else []
            yield from check_speed(models, speed, extent.tolerance, returned, texts)
        else:
            yield unchecked("reports/speed.json", "ratios", None, SLOW)
    if quality := reports.get("quality"):
        with tempfile.TemporaryDirectory(prefix="distilrubert-verify-") as cache:
            for task in extent.tasks:
                yield from check_scores(models, quality, task, extent.seeds, cache, exporters, extent.processes)
        yield from list_scores(quality, [task.name for task in extent.tasks])


def _exporters_of(reports: Mapping[str, Measurements], extent: Extent) -> dict[str, Exporter]:
    """What makes the files that were scored on the tasks, if there are any.

    Raises:
        UserError: if there is no report to compare with, a task's data cannot be used, or packages are missing.
    """
    if extent.speed and "speed" not in reports:
        raise UserError("--speed: there is no reports/speed.json to compare with")
    if not extent.tasks:
        return {}
    if finetuning := reports.get("finetuning"):
        for task in extent.tasks:
            require_task(finetuning, task)
        return {}
    if "quality" not in reports:
        raise UserError("--task: there is no reports/quality.json to compare with")
    quality = reports["quality"]
    for task in extent.tasks:
        require_scores(quality, task)
        load_rows(task)
    scored = [case for case in FORMATS if any(row.case == f"student-{case}" for row in quality.rows)]
    return {case: exporters_of([case], _conversion_of(quality, case))[case] for case in scored}


def _conversion_of(quality: Measurements, case: str) -> ConversionSettings:
    """How the files that were scored had been made; the defaults where a report does not say."""
    stated = dict(quality.details.get("exported", {}).get(case, {}))
    stated.pop("conversion_version", None)
    return stated_settings(ConversionSettings, stated, "reports/quality.json", f"details.exported.{case}")
