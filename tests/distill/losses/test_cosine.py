import pytest
import torch
from transformers import BertConfig, DistilBertConfig

from distilrubert.common.errors import UserError
from distilrubert.distill.losses.cosine import CosineLoss, cosine_distance
from distilrubert.distill.losses.layer import Activations, paired_states
from distilrubert.distill.losses.layer_map import LayerPair

STUDENT, TEACHER = DistilBertConfig(dim=12), BertConfig(hidden_size=12)


def test_worked_by_hand() -> None:
    student = torch.tensor([[[3.0, 0.0], [0.0, 2.0], [1.0, 1.0]]])
    teacher = torch.tensor([[[5.0, 0.0], [1.0, 0.0], [-1.0, -1.0]]])
    mask = torch.ones(1, 3, dtype=torch.bool)
    assert cosine_distance(student, teacher, mask).item() == pytest.approx(0 + 1 + 2, abs=1e-6)


def test_any_length_and_even_none_will_do() -> None:
    student = torch.tensor([[[3.0, 1.0], [0.0, 0.0], [1e-3, 0.0]]], requires_grad=True)
    teacher = torch.tensor([[[6.0, 2.0], [1.0, 0.0], [1e4, 0.0]]])
    loss = cosine_distance(student, teacher, torch.ones(1, 3, dtype=torch.bool))
    loss.backward()
    assert loss.item() == pytest.approx(0 + 1 + 0, abs=1e-6)
    assert student.grad.isfinite().all()


def test_the_gradient_is_that_of_the_textbook_formula() -> None:
    student = torch.randn(1, 4, 6, dtype=torch.float32, requires_grad=True)
    teacher, mask = torch.randn(1, 4, 6), torch.ones(1, 4, dtype=torch.bool)
    expected = (1 - torch.nn.functional.cosine_similarity(student, teacher, dim=-1)).sum()
    pair = [torch.autograd.grad(loss, student)[0] for loss in (cosine_distance(student, teacher, mask), expected)]
    torch.testing.assert_close(*pair)


def test_padding_reaches_neither_value_nor_gradient() -> None:
    student = torch.randn(2, 3, 4, requires_grad=True)
    teacher = torch.randn(2, 3, 4)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    teacher[~mask] = 1e4
    loss = cosine_distance(student, teacher, mask)
    loss.backward()
    alone = sum(1 - torch.cosine_similarity(student[i, j], teacher[i, j], dim=0) for i, j in ((0, 0), (0, 1), (1, 0)))
    torch.testing.assert_close(loss, alone)
    assert student.grad[~mask].count_nonzero() == 0
    assert student.grad[mask].isfinite().all()


def test_a_pair_takes_the_mean_of_its_teacher_layers_and_pairs_are_averaged() -> None:
    states = torch.randn(7, 2, 3, 12, dtype=torch.float32)
    mask = torch.tensor([[True, True, True], [True, False, False]])
    pairs = [LayerPair(1, (1, 2)), LayerPair(2, (3, 0, 4))]
    teacher = paired_states(Activations(states[6], tuple(states[2:])), pairs)
    student = Activations(states[1], (states[0], states[0], states[1]))
    expected = (
        cosine_distance(states[0], (states[3] + states[4]) / 2, mask)
        + cosine_distance(states[1], (states[5] + states[2] + states[6]) / 3, mask)
    ) / 2
    loss = CosineLoss(STUDENT, TEACHER, pairs)
    torch.testing.assert_close(loss(student, teacher, mask), expected)
    assert loss.count(mask) == 4


def test_other_widths_are_refused() -> None:
    with pytest.raises(UserError, match=r"distillation\.weights\.cosine: .* 12 and the teacher's 24"):
        CosineLoss(STUDENT, BertConfig(hidden_size=24), [LayerPair(1, (1,))])
