from typing import Literal

import pytest
import torch
from torch import Tensor
from transformers import BertConfig, DistilBertConfig

from distilrubert.common.errors import UserError
from distilrubert.distill.losses.rows import Rows
from distilrubert.distill.losses.states import StateTerm, cosine_distance, squared_distance
from distilrubert.distill.losses.term import Outputs, Setup
from distilrubert.distill.objective_settings import LayerMap, ObjectiveSettings

WIDTH = 12
EVERY = torch.ones(2, 3, dtype=torch.bool)


def state_term(
    distance: Literal["cosine", "squared"],
    *,
    projected: bool = True,
    layer_map: LayerMap = "block-mean",
    width: int = WIDTH,
    student_layers: int = 2,
) -> StateTerm:
    student = DistilBertConfig(dim=width, n_heads=2, n_layers=student_layers)
    teacher = BertConfig(hidden_size=WIDTH, num_hidden_layers=4)
    setup = Setup(ObjectiveSettings(layer_map=layer_map), student, teacher, None)
    return StateTerm(["cosine"], setup, distance=distance, projected=projected)


def rows_of(mask: Tensor) -> Rows:
    return Rows.of({"attention_mask": mask, "labels": torch.zeros(mask.shape, dtype=torch.long)})


def value_of(term: StateTerm, student: list[Tensor], teacher: list[Tensor], mask: Tensor = EVERY) -> Tensor:
    """The sum of the term, for the states of the pairs."""
    outputs = (Outputs(states[-1], tuple(states)) for states in (student, teacher))
    total, sums = term(*outputs, rows_of(mask), {"cosine": 0.5})
    torch.testing.assert_close(total, 0.5 * sums["cosine"])
    return sums["cosine"]


def test_cosine_worked_by_hand() -> None:
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


def test_dimensions_are_summed_and_padding_left_out() -> None:
    student = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]], requires_grad=True)
    teacher = torch.tensor([[[0.0, 0.0], [1e4, 1.0]]])
    loss = squared_distance(student, teacher, torch.tensor([[True, False]]))
    loss.backward()
    assert loss.item() == 5
    assert student.grad.tolist() == [[[2.0, 4.0], [0.0, 0.0]]]


def test_the_mean_of_layers_stands_for_a_group_and_one_layer_for_itself() -> None:
    states = torch.randn(5, 2, 3, WIDTH)
    outputs = Outputs(states[4], tuple(states)).compared([(1, 2), (3, 0, 4), (2,)])
    assert torch.equal(outputs.hidden_states[0], (states[1] + states[2]) / 2)
    torch.testing.assert_close(outputs.hidden_states[1], (states[3] + states[0] + states[4]) / 3)
    assert outputs.hidden_states[2] is outputs.hidden_states[2]
    assert torch.equal(outputs.hidden_states[2], states[2])


@pytest.mark.parametrize(("distance", "compute"), [("cosine", cosine_distance), ("squared", squared_distance)])
def test_pairs_are_averaged_and_rows_are_real_tokens(distance: Literal["cosine", "squared"], compute: object) -> None:
    student, teacher = list(torch.randn(2, 2, 3, WIDTH)), list(torch.randn(2, 2, 3, WIDTH))
    mask = torch.tensor([[True, True, True], [True, False, False]])
    expected = sum(compute(*pair, mask) for pair in zip(student, teacher, strict=True)) / 2
    term = state_term(distance)
    torch.testing.assert_close(value_of(term, student, teacher, mask), expected)
    assert term.counts(rows_of(mask)) == {"cosine": 4}


def test_equal_widths_need_no_projection() -> None:
    term = state_term("squared")
    assert not list(term.parameters())
    states = list(torch.randn(2, 2, 3, WIDTH))
    assert value_of(term, states, states) == 0


@pytest.mark.parametrize("distance", ["cosine", "squared"])
def test_another_width_is_learnt_through_a_projection_of_each_pair(distance: Literal["cosine", "squared"]) -> None:
    torch.manual_seed(0)
    term = state_term(distance, width=8)
    assert [tuple(parameter.shape) for parameter in term.parameters()] == [(12, 8), (12,), (12, 8), (12,)]
    # A teacher that is an affine map of the student can be met exactly.
    maps, offsets = torch.randn(2, 8, 12), torch.randn(2, 12)
    student = list(torch.randn(2, 2, 3, 8))
    teacher = [states @ map_ + offset for states, map_, offset in zip(student, maps, offsets, strict=True)]
    optimizer = torch.optim.LBFGS(term.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = value_of(term, student, teacher)
        value.backward()
        return value

    before = closure().item()
    optimizer.step(closure)
    assert closure().item() < before * 1e-4


def test_projections_start_alike_and_leave_the_random_numbers_alone() -> None:
    torch.manual_seed(1)
    first = state_term("squared", width=8).state_dict()
    drawn = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(drawn, torch.rand(3))
    second = state_term("squared", width=8).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_other_widths_are_refused_without_a_projection() -> None:
    with pytest.raises(UserError, match=r"distillation\.weights\.cosine: .* 8 and the teacher's 12"):
        state_term("cosine", projected=False, width=8)
