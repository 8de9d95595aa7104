import logging
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BertConfig, DistilBertConfig

from distilrubert.common.sentence_files import PoolingMode
from distilrubert.distill.losses import LossWeights
from distilrubert.distill.losses.objective import Objective
from distilrubert.distill.losses.rows import Rows
from distilrubert.distill.losses.sentence_vectors import SentenceTerm, centred_similarities, pool
from distilrubert.distill.losses.term import Outputs, Setup
from distilrubert.distill.objective_settings import ObjectiveSettings
from distilrubert.modeling.architecture import StudentArchitecture
from distilrubert.modeling.student import build_student
from distilrubert.modeling.teacher import Teacher

BOTH = ["sentence_cosine", "similarity"]
SCALES = {"sentence_cosine": 0.5, "similarity": 2.0}


def term_of(names: list[str] = BOTH, pooling: PoolingMode = "mean", width: int = 2) -> SentenceTerm:
    student = DistilBertConfig(dim=width, n_heads=1, n_layers=1)
    teacher = BertConfig(hidden_size=2, num_attention_heads=1, num_hidden_layers=2)
    return SentenceTerm(names, Setup(ObjectiveSettings(), student, teacher, None, pooling))


def rows_of(mask: Tensor, **more: Tensor) -> Rows:
    return Rows.of({"attention_mask": mask, "labels": torch.zeros(mask.shape, dtype=torch.long), **more})


def sentences(vectors: list[list[float]]) -> Outputs:
    """Outputs of sentences of one token each."""
    return Outputs(torch.tensor(vectors)[:, None])


def test_pooling_leaves_padding_out() -> None:
    states = torch.tensor([[[1.0, 2.0], [3.0, 6.0], [math.nan, 9.0]], [[5.0, 5.0], [7.0, 1.0], [0.0, 3.0]]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]]).bool()
    assert pool(states, mask, "mean").tolist() == [[2, 4], [4, 3]]
    assert pool(states, mask, "cls").tolist() == [[1, 2], [5, 5]]


def test_losses_worked_by_hand() -> None:
    # Cosines to the teacher's vectors: 1, 0, -1.
    student, teacher = sentences([[2.0, 0.0], [0.0, 3.0], [1.0, 0.0]]), sentences([[9.0, 0.0], [1.0, 0.0], [-4.0, 0.0]])
    rows = rows_of(torch.ones(3, 1))
    total, sums = term_of()(student, teacher, rows, SCALES)
    assert sums["sentence_cosine"].item() == pytest.approx(0 + 1 + 2, abs=1e-6)
    # The student's unit vectors without their mean (2/3, 1/3), the teacher's without (1/3, 0).
    own = torch.tensor([[1 / 3, -1 / 3], [-2 / 3, 2 / 3], [1 / 3, -1 / 3]])
    other = torch.tensor([[2 / 3, 0], [2 / 3, 0], [-4 / 3, 0]])
    expected = (own @ own.T - other @ other.T).square().sum().item()
    assert sums["similarity"].item() == pytest.approx(expected, rel=1e-5)
    assert total.item() == pytest.approx(0.5 * 3 + 2 * expected, rel=1e-5)
    assert {name: int(count) for name, count in term_of().counts(rows).items()} == {
        "sentence_cosine": 3,
        "similarity": 9,
    }


def test_similarities_are_centred_twice() -> None:
    vectors = torch.randn(7, 5, generator=torch.Generator().manual_seed(0)) + 3
    unit = torch.nn.functional.normalize(vectors, dim=1)
    centring = torch.eye(7) - 1 / 7
    torch.testing.assert_close(centred_similarities(vectors), centring @ unit @ unit.T @ centring)
    # What all vectors have in common is no part of it, and neither is their length.
    torch.testing.assert_close(centred_similarities(5 * vectors), centred_similarities(vectors))
    assert centred_similarities(vectors[:1]).tolist() == [[0]]


def test_another_width_is_projected_for_the_cosine_alone() -> None:
    student = Outputs(torch.randn(3, 1, 4, generator=torch.Generator().manual_seed(0)))
    teacher, rows = sentences([[2.0, 0.0], [0.0, 3.0], [1.0, 0.0]]), rows_of(torch.ones(3, 1))
    term = term_of(width=4)
    assert sum(parameter.numel() for parameter in term.parameters()) == 2 * 4 + 2
    torch.testing.assert_close(
        term(student, teacher, rows, SCALES)[1], term_of(width=4)(student, teacher, rows, SCALES)[1]
    )
    assert not list(term_of(["similarity"], width=4).parameters())
    assert not list(term_of().parameters())
    _, sums = term(student, teacher, rows, SCALES)
    expected = (centred_similarities(student.last_BLD[:, 0]) - centred_similarities(teacher.last_BLD[:, 0])).square()
    torch.testing.assert_close(sums["similarity"], expected.sum())


def test_vectors_that_come_with_a_batch_are_the_teachers() -> None:
    student, vectors = sentences([[2.0, 1.0], [0.0, 3.0]]), torch.tensor([[1.0, 0.0], [1.0, 4.0]])
    mask = torch.ones(2, 1)
    computed = term_of()(student, sentences(vectors.tolist()), rows_of(mask), SCALES)
    kept = term_of()(student, None, rows_of(mask, teacher_vectors=vectors), SCALES)
    torch.testing.assert_close(kept, computed, rtol=0, atol=0)


def test_a_collapsed_student_is_told_of_once_and_at_validation_alone(caplog: pytest.LogCaptureFixture) -> None:
    one, other = sentences([[1.0, 2.0], [2.0, 4.0]]), sentences([[1.0, 2.0], [2.0, 4.1]])
    teacher, rows, term = sentences([[1.0, 0.0], [0.0, 1.0]]), rows_of(torch.ones(2, 1)), term_of()
    with caplog.at_level(logging.WARNING):
        term(one, teacher, rows, SCALES)
        with torch.no_grad():
            term(other, teacher, rows, SCALES)
            term(sentences([[1.0, 2.0]]), sentences([[1.0, 0.0]]), rows_of(torch.ones(1, 1)), SCALES)
        assert caplog.messages == []
        with torch.no_grad():
            term(one, teacher, rows, SCALES)
            term(one, teacher, rows, SCALES)
        assert len(caplog.messages) == 1
        assert caplog.messages[0].startswith("the student has collapsed: it gives held-out sentences one and the same")


@pytest.fixture
def batch(tiny_teacher: Teacher, sentences: list[str]) -> dict[str, Tensor]:
    encoded = tiny_teacher.tokenizer(sentences[:6], padding=True, truncation=True, max_length=24, return_tensors="pt")
    ids = encoded["input_ids"]
    return {"input_ids": ids, "attention_mask": encoded["attention_mask"], "labels": torch.full_like(ids, -100)}


@pytest.mark.parametrize("architecture", [{"layers": 2}, {"layers": 2, "dim": 16, "initialise_from": "random"}])
def test_an_objective_of_sentences_and_states_lowers_its_losses(
    tiny_teacher: Teacher, batch: dict[str, Tensor], architecture: dict[str, Any]
) -> None:
    states = {"cosine": 1.0} if "dim" not in architecture else {"hidden": 0.1}
    weights = LossWeights(sentence_cosine=20.0, similarity=3.0, **states)
    student = build_student(tiny_teacher, StudentArchitecture(**architecture), seed=0)
    objective = Objective(student.model, tiny_teacher.model, ObjectiveSettings(weights=weights))
    optimizer = torch.optim.AdamW(objective.parameters(), lr=0.01)
    history = []
    for _ in range(20):
        losses = objective(batch, objective.counts(batch))
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
        history.append({name: float(value.detach()) for name, value in losses.items()})
    assert not objective.uses_head
    assert all(history[-1][name] < 0.7 * history[0][name] for name in BOTH)
    described = objective.describe()["sentence_cosine"]
    assert (
        described["meaning"] == "Cosine distance between the vectors of a sentence (the mean of the last hidden states)"
    )
