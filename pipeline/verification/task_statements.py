"""A student of a task and its files against the report on them."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distilrubert.common.derived import derive
from distilrubert.common.errors import UserError
from distilrubert.common.formats import CASES, CHECKPOINT, FormatCase
from distilrubert.common.measurements import Measurements
from distilrubert.conversion.parity import tolerance_name
from distilrubert.conversion.writers import require_packages
from distilrubert.evaluation.evaluation_settings import FinetuningProtocol
from distilrubert.evaluation.tasks.file_agreement import CLEAR, FileComparison
from distilrubert.evaluation.tasks.finetuning import Learner
from distilrubert.evaluation.tasks.kinds import KINDS
from distilrubert.evaluation.tasks.kinds.task_kind import TaskKind
from distilrubert.evaluation.tasks.task import TaskDefinition
from distilrubert.evaluation.tasks.task_data import load_rows
from distilrubert.modeling.checkpoints import quiet_transformers
from distilrubert.modeling.runtimes import OpenModel, open_model
from distilrubert.pipeline.statement import Statement, checked, unchecked
from distilrubert.pipeline.verification.file_statements import check_bytes
from distilrubert.pipeline.verification.score_statements import SLOW

# Of the clear ones, as where the files are made, but on sentences that are not of the task. A recipe may allow less.
EQUAL_DECISIONS = {"fp32": 0.99, "fp16": 0.98, "bf16": 0.97, "int8": 0.97}
LARGEST_DIFFERENCE = 1e-3
# The same weights give the same decisions but for rounding.
SCORE_MARGIN = 0.005
REPORT = "reports/finetuning.json"


def check_task_files(folder: Path, report: Measurements, sentences: Sequence[str]) -> Iterator[Statement]:
    """Check size, SHA-256 and decisions of each file of the report.

    The rows of the task are not published, so decisions are compared on other sentences.
    """
    kind = KINDS[report.details["task"]["kind"]]
    task = kind.export_task
    reference: OpenModel | None = None
    for row in report.rows:
        if "sha256" not in row.values or (case := CASES.get(row.case)) is None:
            continue
        if lost := [path for path in case.format.paths if not (folder / path).is_file()]:
            yield checked(case.format.path, "file", None, None, f"{', '.join(lost)} is missing", holds=False)
            continue
        if case.hint == "fp32":
            yield from check_bytes(folder, case.format, row)
        try:
            require_packages(case.format.runtime)
        except UserError as error:
            yield unchecked(case.format.path, "agreement", None, str(error))
            continue
        try:
            with quiet_transformers():
                reference = reference or open_model(folder, CHECKPOINT, task)
                least = min(EQUAL_DECISIONS[tolerance_name(case)], _bound(report, case).get("equal_decisions", 1.0))
                yield from _agreement(folder, case, reference, kind, sentences, least)
        # A damaged file can make a runtime raise anything.
        except Exception as error:
            yield checked(case.format.path, "agreement", None, None, f"cannot be run: {error}", holds=False)


def check_task_scores(folder: Path, report: Measurements, task: TaskDefinition) -> Iterator[Statement]:
    """Score the model on the test part of its task again.

    Raises:
        UserError: if the report is on another task, or the data cannot be used.
    """
    require_task(report, task)
    rows = load_rows(task, report.details["rows"].get("train_limit"))
    learner = Learner.prepare(folder, task, rows, FinetuningProtocol(precision="fp32"), seed=0)
    found = learner.scores("test")
    stated: Mapping[str, Any] = derive(report)[CHECKPOINT.case].values["tasks"][task.name]
    for metric in task.metrics:
        if metric in stated:
            value = stated[metric]["mean"]
            holds = abs(value - found[metric]) <= SCORE_MARGIN
            subject = f"{CHECKPOINT.path}, {task.name}"
            yield checked(subject, metric, value, found[metric], f"± {SCORE_MARGIN}", holds=holds)
    yield from _agreement_on_task(folder, report, learner)


def list_task_scores(report: Measurements, done: Sequence[str]) -> Iterator[Statement]:
    """A statement for the scores that are not measured again: all, or with the task at hand those of other models."""
    if (task := report.details["task"]["name"]) not in done:
        yield unchecked(REPORT, f"scores on {task}", None, SLOW)
        return
    others = [row.case for row in report.rows if row.case not in CASES]
    yield unchecked(REPORT, f"scores of {', '.join(others)}", None, "they are not published")


def _agreement_on_task(folder: Path, report: Measurements, learner: Learner) -> Iterator[Statement]:
    """Check that each file makes the decisions of the model on the task's rows, by the bounds of the report."""
    comparison, kind = FileComparison(learner), learner.task.task_kind
    for row in report.rows:
        case = CASES.get(row.case)
        if case is None or case.format is CHECKPOINT or "sha256" not in row.values:
            continue
        bound, is_there = _bound(report, case), all((folder / each).is_file() for each in case.format.paths)
        # Earlier reports bounded all decisions; a file that is missing has been told of.
        if not bound or "clear_decisions" not in row.values or not is_there:
            continue
        try:
            require_packages(case.format.runtime)
            found = comparison.measure(case.name, open_model(folder, case.format, kind.export_task, hint=case.hint))
        except UserError as error:
            yield unchecked(case.format.path, "agreement", None, str(error))
            continue
        except Exception as error:
            yield checked(case.format.path, "agreement", None, None, f"cannot be run: {error}", holds=False)
            continue
        values = found.values
        counts = values["different_clear_decisions"], values["clear_decisions"]
        what = f"of the clear ones of {learner.task.name}"
        yield _equal_enough(case.format.path, *counts, bound["equal_decisions"], what)


def require_task(report: Measurements, task: TaskDefinition) -> None:
    """Refuse, with a UserError, a task that the model was not made for."""
    if task.name != (own := report.details["task"]["name"]):
        raise UserError(f"task {task.name}: {REPORT} is on {own}")


def _agreement(
    folder: Path, case: FormatCase, reference: OpenModel, kind: TaskKind, sentences: Sequence[str], least: float
) -> Iterator[Statement]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    model = open_model(folder, case.format, kind.export_task, hint=case.hint)
    chosen: tuple[list[Any], list[Any]] = [], []
    leads: list[float] = []
    difference = 0.0
    # A model of pairs reads each sentence with the next one.
    firsts, seconds = sentences, [*sentences[1:], sentences[0]]
    for texts in zip(firsts, seconds, strict=True) if len(kind.text_columns) > 1 else zip(firsts, strict=True):
        inputs = dict(tokenizer(*texts, truncation=True, return_tensors="np"))
        for both in zip(reference(inputs), model(inputs), strict=True):
            for side, logits in zip(chosen, both, strict=True):
                side.extend(kind.choose(logits).ravel())
            leads.extend(kind.lead(both[0]).ravel())
            difference = max(difference, float(np.abs(both[0] - both[1]).max()))
    clear = [same for same, lead in zip(kind.equal(*chosen), leads, strict=True) if lead >= CLEAR]
    path = case.format.path
    yield _equal_enough(path, clear.count(False), len(clear), least, "of the clear ones")
    if tolerance_name(case) == "fp32":
        holds = difference <= LARGEST_DIFFERENCE
        yield checked(path, "maximal_difference", f"≤ {LARGEST_DIFFERENCE:g}", difference, holds=holds)


def _bound(report: Measurements, case: FormatCase) -> Mapping[str, Any]:
    """The bounds by which the file was accepted; none in an earlier report."""
    bound: Mapping[str, Any] = report.details.get("bounds", {}).get(tolerance_name(case), {})
    return bound


def _equal_enough(path: str, different: int, compared: int, least: float, what: str) -> Statement:
    share = 1 - different / max(compared, 1)
    holds = different <= 1 or share >= least
    return checked(path, "equal_decisions", f"≥ {least:g} {what}", share, holds=holds)
