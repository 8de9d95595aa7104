"""Compiled encoders: the same numbers, for batches of any shape. The compiler's code generator is left out."""

import copy

import pytest
import torch
from torch import Tensor

from distilrubert.common.errors import UserError
from distilrubert.distill.losses import LossWeights, encoding
from distilrubert.distill.losses.objective import Objective
from distilrubert.distill.objective_settings import ObjectiveSettings
from distilrubert.modeling.architecture import StudentArchitecture
from distilrubert.modeling.student import build_student
from distilrubert.modeling.teacher import Teacher


def batch_of(teacher: Teacher, texts: list[str]) -> dict[str, Tensor]:
    inputs = teacher.tokenizer(texts, padding=True, return_tensors="pt")
    labels_BL = torch.full_like(inputs["input_ids"], -100)
    labels_BL[:, 2] = inputs["input_ids"][:, 2]
    return {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"], "labels": labels_BL}


def objective_of(tiny_teacher: Teacher, **weights: float) -> Objective:
    # A copy: other tests have the teacher, too.
    teacher = copy.deepcopy(tiny_teacher)
    student = build_student(teacher, StudentArchitecture(layers=2))
    return Objective(student.model, teacher.model, ObjectiveSettings(weights=LossWeights(**weights)))


def test_compiled_encoders_compute_the_same(
    tiny_teacher: Teacher, sentences: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "COMPILER", "eager")
    torch._dynamo.reset()
    plain, compiled = (objective_of(tiny_teacher, kl=5.0, mlm=2.0, cosine=1.0) for _ in range(2))
    compiled.compile_encoders()
    assert list(compiled.state_dict()) == list(plain.state_dict())
    batches = [batch_of(tiny_teacher, sentences[first : first + rows]) for first, rows in ((0, 6), (6, 4), (12, 9))]
    for batch in batches:
        prepared = plain.preparation()(batch)
        results = []
        for objective in (plain, compiled):
            objective.zero_grad()
            losses = objective(prepared.tensors, prepared.counts)
            losses["loss"].backward()
            results.append((losses, [weight.grad for weight in objective.parameters()]))
        torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-5)
    # One graph of each encoder for all shapes, after those of the first one.
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 4


def test_attention_maps_are_not_compiled(tiny_teacher: Teacher) -> None:
    with pytest.raises(UserError, match=r"distillation\.compile: not with the loss attention"):
        objective_of(tiny_teacher, attention=1.0).compile_encoders()
