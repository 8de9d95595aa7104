"""Compiled encoders and losses: the same numbers for any shape, mostly without the compiler's code generator."""

import copy
import shutil

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import DistilBertConfig, DistilBertForSequenceClassification

from distilrubert.common.errors import UserError
from distilrubert.common.training import compiling
from distilrubert.distill.losses import LossWeights, tiles
from distilrubert.distill.losses.chunks import HeadInput
from distilrubert.distill.losses.objective import Objective
from distilrubert.distill.losses.vocabulary import VocabularyLoss
from distilrubert.distill.objective_settings import ObjectiveSettings
from distilrubert.evaluation.evaluation_settings import FinetuningProtocol
from distilrubert.evaluation.tasks.finetuning import _optimization
from distilrubert.evaluation.tasks.task_loss import TaskLoss
from distilrubert.modeling.architecture import StudentArchitecture
from distilrubert.modeling.student import build_student
from distilrubert.modeling.teacher import Teacher
from distilrubert.pipeline.task_settings import TaskDistillationSettings, TaskFinetuningSettings


@pytest.fixture(autouse=True)
def _without_code_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "BACKEND", "aot_eager")
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()


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


def test_a_compiled_objective_computes_the_same(tiny_teacher: Teacher, sentences: list[str]) -> None:
    plain, compiled = (objective_of(tiny_teacher, kl=5.0, mlm=2.0, cosine=1.0) for _ in range(2))
    compiled.set_compiled(compiled=True)
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
    # One graph of each encoder and of each function of the losses, for all shapes.
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 8
    compiled.set_compiled(compiled=False)
    assert not any(compiling.is_compiled(module) for module in compiled.modules())


@pytest.mark.parametrize(
    ("backend", "tile", "dtype"),
    [
        ("aot_eager", 16, torch.float32),
        ("aot_eager", 1000, torch.bfloat16),
        pytest.param("inductor", 16, torch.bfloat16, marks=pytest.mark.slow),
        pytest.param("inductor", 1000, torch.float32, marks=pytest.mark.slow),
    ],
)
def test_compiled_losses_over_the_vocabulary(
    monkeypatch: pytest.MonkeyPatch, backend: str, tile: int, dtype: torch.dtype
) -> None:
    """Rows, labels and weights of the losses change from call to call; the graphs do not.

    A compiler has forms of their own for none and for one of anything. Chunks with no, with one and with several labels
    are among the first three calls.
    """
    if backend == "inductor" and not shutil.which("c++"):
        pytest.skip("there is no C++ compiler")
    monkeypatch.setattr(compiling, "BACKEND", backend)
    monkeypatch.setattr(tiles, "CPU_TILE", tile)
    plain, compiled = VocabularyLoss(2.0, 4), VocabularyLoss(2.0, 4)
    compiled.is_compiled = True
    generator = torch.Generator().manual_seed(1)
    graphs = []
    for number, (rows, labelled) in enumerate([(11, 6), (9, 9), (13, 5), (10, 3), (7, 0), (12, 7)]):
        sides = [
            [torch.randn(*shape, generator=generator) for shape in ((rows, width), (37, width), (37,))]
            for width in (6, 9)
        ]
        labels_M = torch.randint(37, (labelled,), generator=generator)
        for tensor in sides[0]:
            tensor.requires_grad_()
        for teacher in (HeadInput(*sides[1]), None):
            found = []
            for loss in (plain, compiled):
                with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
                    results = loss(HeadInput(*sides[0]), teacher, labels_M, 0.3 + 0.1 * number, 0.7 / rows)
                found.append([*results, *torch.autograd.grad(results[0], sides[0])])
            torch.testing.assert_close(found[0], found[1])
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert not torch._dynamo.utils.counters["graph_break"]
    assert graphs[-1] == graphs[2]


def test_attention_maps_are_not_compiled(tiny_teacher: Teacher) -> None:
    with pytest.raises(UserError, match=r"distillation\.compile: not with the loss attention"):
        objective_of(tiny_teacher, attention=1.0).set_compiled(compiled=True)


@pytest.mark.parametrize("section", [TaskFinetuningSettings, TaskDistillationSettings])
def test_models_of_tasks_are_compiled_by_their_section(section: type[FinetuningProtocol]) -> None:
    lengths = np.array([5, 9], dtype=np.int32)
    found = [_optimization(section(**given), 1e-4, lengths).compile for given in ({}, {"compile": True})]
    assert found == [False, True]
    torch.manual_seed(0)
    config = DistilBertConfig(vocab_size=20, dim=16, n_layers=2, n_heads=2, hidden_dim=32, num_labels=3)
    objective = TaskLoss(DistilBertForSequenceClassification(config).eval(), {})
    for length in (5, 9):
        ids_BL = torch.randint(20, (4, length))
        batch = {"input_ids": ids_BL, "attention_mask": torch.ones_like(ids_BL), "labels": torch.tensor([0, 2, 1, 0])}
        expected = objective(batch, {"task": 4.0})["loss"]
        objective.set_compiled(compiled=True)
        torch.testing.assert_close(objective(batch, {"task": 4.0})["loss"], expected)
        objective.set_compiled(compiled=False)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
