import pytest
import torch
from transformers import BertConfig, DistilBertConfig

from distilrubert.distill.losses.hidden import HiddenLoss, squared_distance
from distilrubert.distill.losses.layer import Activations, paired_states
from distilrubert.distill.losses.layer_map import LayerPair

PAIRS = [LayerPair(1, (1, 2)), LayerPair(2, (3, 4))]


def test_dimensions_are_summed_and_padding_left_out() -> None:
    student = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]], requires_grad=True)
    teacher = torch.tensor([[[0.0, 0.0], [1e4, 1.0]]])
    loss = squared_distance(student, teacher, torch.tensor([[True, False]]))
    loss.backward()
    assert loss.item() == 5
    assert student.grad.tolist() == [[[2.0, 4.0], [0.0, 0.0]]]


def test_equal_widths_need_no_projection() -> None:
    loss = HiddenLoss(DistilBertConfig(dim=12), BertConfig(hidden_size=12), PAIRS)
    assert not list(loss.parameters())
    states = tuple(torch.randn(5, 1, 3, 12))
    student = Activations(states[0], (states[0], (states[1] + states[2]) / 2, (states[3] + states[4]) / 2))
    mask = torch.ones(1, 3, dtype=torch.bool)
    assert loss(student, paired_states(Activations(states[4], states), PAIRS), mask).item() == pytest.approx(
        0, abs=1e-10
    )


def test_another_width_is_learnt_through_a_projection_of_each_pair() -> None:
    torch.manual_seed(0)
    loss = HiddenLoss(DistilBertConfig(dim=8, n_heads=2), BertConfig(hidden_size=12), PAIRS)
    assert [tuple(parameter.shape) for parameter in loss.parameters()] == [(12, 8), (12,), (12, 8), (12,)]
    states = torch.randn(5, 2, 3, 12)
    # A teacher that is an affine map of the student can be met exactly.
    maps, offsets = torch.randn(2, 8, 12), torch.randn(2, 12)
    hidden = torch.randn(3, 2, 3, 8)
    states[1:3] = hidden[1] @ maps[0] + offsets[0]
    states[3:5] = hidden[2] @ maps[1] + offsets[1]
    student = Activations(hidden[2], tuple(hidden))
    teacher = paired_states(Activations(states[4], tuple(states)), PAIRS)
    mask = torch.ones(2, 3, dtype=torch.bool)
    optimizer = torch.optim.LBFGS(loss.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss(student, teacher, mask)
        value.backward()
        return value

    before = closure().item()
    optimizer.step(closure)
    assert closure().item() < before * 1e-4


def test_projections_start_alike_and_leave_the_random_numbers_alone() -> None:
    configs = DistilBertConfig(dim=8, n_heads=2), BertConfig(hidden_size=12)
    torch.manual_seed(1)
    first = HiddenLoss(*configs, PAIRS).state_dict()
    drawn = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(drawn, torch.rand(3))
    second = HiddenLoss(*configs, PAIRS).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
