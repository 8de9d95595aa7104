"""Agreement in logits and in decisions, by hand."""

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from distilrubert.common.errors import UserError
from distilrubert.common.measurements import Row
from distilrubert.evaluation.evaluation_settings import FinetuningSettings
from distilrubert.evaluation.tasks import file_agreement
from distilrubert.evaluation.tasks.file_agreement import BOUNDS, AgreementBound, FileComparison
from distilrubert.evaluation.tasks.finetuning import Learner
from distilrubert.evaluation.tasks.kinds.question_answering import QUESTION_ANSWERING
from distilrubert.evaluation.tasks.kinds.task_kind import lead_of_first
from distilrubert.evaluation.tasks.kinds.token_classification import TOKEN_CLASSIFICATION
from distilrubert.evaluation.tasks.task import TaskDefinition
from distilrubert.evaluation.tasks.task_data import TaskRows, load_rows

TEXTS = ["Вчера шёл дождь.", "Сегодня светит солнце, а завтра обещают снег.", "Мама мыла раму."]
TAGS = ["O", "B-PET", "I-PET"]


def tagged() -> Dataset:
    sentences = [["кот", "дома"], ["летом", "у", "бабушки", "собака", "опять"], ["сыр"]]
    raws = [{"tokens": tokens, "tags": ["B-PET", *["O"] * (len(tokens) - 1)]} for tokens in sentences]
    labels = {name: index for index, name in enumerate(TAGS)}
    return Dataset.from_list([TOKEN_CLASSIFICATION.read_row(raw, labels) for raw in raws])


def asked() -> Dataset:
    raws = [{"question": "Что?", "context": text, "answer": text[:5], "answer_start": 0} for text in TEXTS]
    return Dataset.from_list([QUESTION_ANSWERING.read_row(raw, {}) for raw in raws])


@pytest.fixture(params=["sentence-classification", "token-classification", "question-answering"])
def learner(request: pytest.FixtureRequest, student_folder: Path, noun_task: TaskDefinition) -> Learner:
    changes: dict[str, Any] = {"kind": request.param}
    if request.param == "sentence-classification":
        rows = load_rows(noun_task)
    elif request.param == "token-classification":
        rows = TaskRows(tagged(), tagged(), tagged())
        changes |= {"labels": TAGS, "metrics": ["span_f1"]}
    else:
        rows = TaskRows(asked(), asked(), asked())
        changes |= {"labels": [], "metrics": ["answer_f1"], "max_length": 64}
    return Learner.prepare(student_folder, noun_task.model_copy(update=changes), rows, FinetuningSettings(), 1)


def file_of(learner: Learner, change: Any) -> Any:
    """A file whose outputs are the model's, changed."""
    kinds = ("start_logits", "end_logits") if learner.task.kind == "question-answering" else ("logits",)

    @torch.inference_mode()
    def run(inputs: dict[str, np.ndarray]) -> tuple[np.ndarray, ...]:
        output = learner.model(**{name: torch.from_numpy(array) for name, array in inputs.items()})
        return tuple(change(output[kind].numpy().copy(), inputs) for kind in kinds)

    return run


def units(learner: Learner) -> int:
    """Texts, words or questions, of the validation and the test part."""
    rows = [row for part in ("validation", "test") for row in getattr(learner.rows, part)]
    return sum(len(row["tokens"]) for row in rows) if learner.task.kind == "token-classification" else len(rows)


def test_the_model_itself_agrees(learner: Learner) -> None:
    row = FileComparison(learner).measure("same", file_of(learner, lambda logits, inputs: logits))
    assert row.values["decisions"] == units(learner)
    assert row.values["different_decisions"] == 0
    assert row.values["maximal_difference"] < 1e-6
    BOUNDS["fp32"].check(row, "onnx/model.onnx")


def test_a_constant_changes_logits_and_no_decision(learner: Learner) -> None:
    row = FileComparison(learner).measure("moved", file_of(learner, lambda logits, inputs: logits + 0.25))
    assert row.values["different_decisions"] == 0
    assert row.values["maximal_difference"] == pytest.approx(0.25, abs=1e-5)
    assert row.values["mean_difference"] == pytest.approx(0.25, abs=1e-5)
    with pytest.raises(UserError, match=r"onnx/model.onnx: differs too much .* a logit by 0.25, at most 0.001"):
        BOUNDS["fp32"].check(row, "onnx/model.onnx")


def test_the_contrary_decides_otherwise(learner: Learner) -> None:
    row = FileComparison(learner).measure("contrary", file_of(learner, lambda logits, inputs: -logits))
    # Of three tags the least likely; of two classes the other one; of answers nearly always another.
    assert row.values["different_decisions"] >= 0.8 * units(learner)
    with pytest.raises(UserError, match=r"decisions are equal, at least 0.9[79] is needed"):
        BOUNDS["int8"].check(row, "onnx/model_quantized.onnx")


def test_padding_counts_for_nothing(learner: Learner) -> None:
    def spoilt(logits: np.ndarray, inputs: dict[str, np.ndarray]) -> np.ndarray:
        if logits.shape[1] == inputs["input_ids"].shape[1]:
            logits[inputs["attention_mask"] == 0] = 1e6
        return logits

    row = FileComparison(learner).measure("spoilt", file_of(learner, spoilt))
    assert (row.values["different_decisions"], row.values["maximal_difference"] < 1e-6) == (0, True)


def row_of(decisions: int, different: int, clear: int, different_clear: int, largest: float = 9.0) -> Row:
    compared = {"decisions": decisions, "different_decisions": different, "maximal_difference": largest}
    return Row("file", compared | {"clear_decisions": clear, "different_clear_decisions": different_clear})


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ((1000, 30, 900, 9), None),
        ((1000, 30, 900, 10), "0.9889 of its clear decisions are equal, at least 0.99"),
        ((1000, 31, 900, 0), "0.9690 of its decisions are equal, at least 0.97"),
        # One may always differ.
        ((20, 1, 20, 1), None),
        ((20, 2, 20, 2), "of its clear decisions"),
        ((20, 2, 20, 1), "of its decisions"),
        ((1, 1, 0, 0), None),
    ],
)
def test_the_shares_of_equal_decisions_are_bounded(counts: tuple[int, int, int, int], told: str | None) -> None:
    if told is None:
        AgreementBound(0.99, 0.97).check(row_of(*counts), "file")
    else:
        with pytest.raises(UserError, match=told):
            AgreementBound(0.99, 0.97).check(row_of(*counts), "file")


def test_who_asks_for_less_asks_for_less_of_all() -> None:
    AgreementBound(0.5, 0.97).check(row_of(100, 40, 50, 20), "file")


def test_a_nan_is_never_within_the_bound() -> None:
    with pytest.raises(UserError, match="a logit by nan"):
        BOUNDS["fp32"].check(row_of(9, 0, 9, 0, float("nan")), "file")


def test_only_clear_decisions_are_counted_as_such(learner: Learner) -> None:
    """Without any differences of logits nothing is clear; of a model that is sure of all, all are."""
    for scale, share in ((0.0, 0.0), (1e4, 1.0)):
        with torch.no_grad():
            model = copy.deepcopy(learner.model)
            head = [module for module in model.modules() if isinstance(module, torch.nn.Linear)][-1]
            for parameter in head.parameters():
                parameter.mul_(scale)
        own = dataclasses.replace(learner, model=model)
        values = FileComparison(own).measure("same", file_of(own, lambda logits, inputs: logits)).values
        is_reader = learner.task.kind == "question-answering"
        assert values["clear_decisions"] >= 0.95 * (1.0 if is_reader else share) * values["decisions"]
        assert is_reader or share or values["clear_decisions"] == 0


def test_clear_decisions_are_those_of_their_own_rows(learner: Learner, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that turns the clear decisions, and these alone, differs in all of them."""
    if learner.task.kind == "question-answering":
        pytest.skip("all answers are clear")
    found: list[float] = []

    def seen(logits: np.ndarray, inputs: dict[str, np.ndarray]) -> np.ndarray:
        found.extend(lead_of_first(logits).ravel())
        return logits

    def turned(logits: np.ndarray, inputs: dict[str, np.ndarray]) -> np.ndarray:
        return np.where(lead_of_first(logits)[..., None] >= file_agreement.CLEAR, -logits, logits)

    FileComparison(learner).measure("same", file_of(learner, seen))
    monkeypatch.setattr(file_agreement, "CLEAR", float(np.median(found)))
    values = FileComparison(learner).measure("turned", file_of(learner, turned)).values
    assert values["different_clear_decisions"] == values["different_decisions"] == values["clear_decisions"]
    assert 0 < values["clear_decisions"] < values["decisions"]
