import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from distilrubert.distill.losses.chunks import HeadInput, compare_in_chunks
from distilrubert.distill.losses.first_token import FirstTokenComparison
from distilrubert.distill.losses.match import MatchComparison
from distilrubert.distill.losses.reduce_map import ReduceMapComparison
from distilrubert.distill.losses.rows import SideRows
from distilrubert.modeling.splitting import SplitMap
from tests.distill.losses.reference_formulas import kl_divergence

T = 2.0


def drawn(*shape: int, seed: int = 0, scale: float = 3.0) -> Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ids(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def match_by_definition(student: Tensor, teacher: Tensor, own: np.ndarray, its: np.ndarray, rest: bool) -> Tensor:
    p, q = (logits / T for logits in (teacher, student))
    if not rest:
        p, q = p[:, its].softmax(1), q[:, own].softmax(1)
    else:
        p, q = p.softmax(1), q.softmax(1)
        p, q = (torch.cat((x[:, i], 1 - x[:, i].sum(1, keepdim=True)), dim=1) for x, i in ((p, its), (q, own)))
    return T**2 * (p * (p / q).log()).sum()


@pytest.mark.parametrize("rest", [True, False])
def test_match_is_its_definition(rest: bool) -> None:
    its, own = ids(0, 2, 5, 6), ids(3, 0, 1, 4)
    student = drawn(5, 7).requires_grad_()
    teacher = drawn(5, 9, seed=1)
    loss, gradient = MatchComparison(its, own, (9, 7), T, rest)(student.detach(), teacher.clone())
    expected = match_by_definition(student, teacher, own, its, rest)
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, student)[0])


def test_the_rest_keeps_what_the_common_pieces_do_not_have() -> None:
    """By hand: the teacher gives the common piece 1/4, the student 1/2, and all else is one class."""
    teacher = torch.log(torch.tensor([[0.25, 0.5, 0.25]]))
    student = torch.log(torch.tensor([[0.1, 0.5, 0.4]]))
    comparison = MatchComparison(ids(0), ids(1), (3, 3), 1.0)
    loss, gradient = comparison(student, teacher.clone())
    assert loss.item() == pytest.approx(0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5))
    # 1/4 too much on the common piece; the rest lacks it, shared out as the student has it.
    torch.testing.assert_close(gradient, torch.tensor([[-0.05, 0.25, -0.2]]))
    without, nothing = MatchComparison(ids(0), ids(1), (3, 3), 1.0, with_rest=False)(student, teacher)
    assert without.item() == pytest.approx(0.0, abs=1e-6)
    assert nothing.abs().max() < 1e-6


@pytest.mark.parametrize("rest", [True, False])
def test_two_tokens_of_the_teacher_that_are_one_of_the_student_are_added_up(rest: bool) -> None:
    """As "," and "▁," of XLM-R are for BERT."""
    student, teacher = drawn(5, 4), drawn(5, 6, seed=1)
    found = MatchComparison(ids(1, 2, 5), ids(3, 0, 3), (6, 4), T, rest)(student, teacher.clone())
    both = T * torch.logaddexp(teacher[:, 1] / T, teacher[:, 5] / T)
    merged = torch.cat((teacher[:, :1], both[:, None], teacher[:, 2:5]), dim=1)
    expected = MatchComparison(ids(1, 2), ids(3, 0), (5, 4), T, rest)(student, merged)
    torch.testing.assert_close(found, expected)


def test_a_student_without_pieces_of_its_own_has_no_rest() -> None:
    student, teacher = drawn(3, 3), drawn(3, 5, seed=1)
    loss, gradient = MatchComparison(ids(1, 2, 4), ids(0, 1, 2), (5, 3), T)(student, teacher.clone())
    torch.testing.assert_close(loss, kl_divergence(student, teacher[:, [1, 2, 4]], T))
    assert gradient.isfinite().all()


def test_a_teacher_without_pieces_of_its_own() -> None:
    """What the student gives to its own pieces is lost to the common ones, and costs."""
    its, own = ids(0, 1, 2), ids(0, 2, 3)
    student, teacher = drawn(4, 5).requires_grad_(), drawn(4, 3, seed=1)
    loss, gradient = MatchComparison(its, own, (3, 5), T)(student.detach(), teacher.clone())
    p, log_q = (teacher / T).softmax(1), (student / T).log_softmax(1)[:, own]
    expected = T**2 * (p * (p.log() - log_q)).sum()
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, student)[0])


def split_map(rows: list[list[int]], width: int) -> SplitMap:
    return SplitMap(np.cumsum([0, *map(len, rows)], dtype=np.int64), ids(*(i for row in rows for i in row)), width)


ROWS = [[0], [1, 2], [3, 3, 4], [], [2], [0, 4], []]


def test_reduce_map_is_its_definition_with_the_whole_gradient() -> None:
    """Trap 10: the gradient went through at most thirty sampled pieces, unscaled."""
    student, teacher = drawn(6, 5).requires_grad_(), drawn(6, len(ROWS), seed=1)
    loss, gradient = ReduceMapComparison(split_map(ROWS, 5), T)(student.detach(), teacher.clone())
    spelt = [i for i, row in enumerate(ROWS) if row]
    mapped = torch.stack([sum(student[:, j].exp() for j in ROWS[i]).log() for i in spelt], dim=1)
    expected = kl_divergence(mapped, teacher[:, spelt], T)
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, student)[0])


def test_first_token_is_its_definition() -> None:
    student, teacher = drawn(6, 5).requires_grad_(), drawn(6, len(ROWS), seed=1)
    loss, gradient = FirstTokenComparison(split_map(ROWS, 5), T)(student.detach(), teacher.clone())
    # Rows 0 and 5 begin with piece 0, row 1 with 1, row 4 with 2, row 2 with 3; nothing begins with piece 4.
    folded = torch.stack([teacher[:, [0, 5]].logsumexp(1), teacher[:, 1], teacher[:, 4], teacher[:, 2]], dim=1)
    p, log_q = (folded / T).softmax(1), (student / T).log_softmax(1)[:, :4]
    expected = T**2 * (p * (p.log() - log_q)).sum()
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, student)[0])


def test_first_token_loses_nothing_of_what_the_teacher_predicts() -> None:
    """By hand, at temperature 1: of the words with 1/2, 1/4 and 1/4 the first two begin alike."""
    teacher = torch.log(torch.tensor([[0.5, 0.25, 0.25]]))
    student = torch.log(torch.tensor([[0.5, 0.5]]))
    loss, gradient = FirstTokenComparison(split_map([[0], [0, 1], [1]], 2), 1.0)(student, teacher)
    assert loss.item() == pytest.approx(0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5))
    torch.testing.assert_close(gradient, torch.tensor([[-0.25, 0.25]]))


@pytest.mark.parametrize("kind", [ReduceMapComparison, FirstTokenComparison])
def test_extreme_logits_are_survived(kind: type[ReduceMapComparison | FirstTokenComparison]) -> None:
    student, teacher = drawn(4, 5, scale=300.0).float(), drawn(4, len(ROWS), seed=1, scale=300.0).float()
    loss, gradient = kind(split_map(ROWS, 5), T)(student, teacher)
    assert loss.isfinite()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("name", ["first_token", "match", "reduce_map"])
def test_at_a_high_temperature_logits_are_compared_by_their_squares(name: str) -> None:
    """Trap 11, of a loss that we do not have: its temperature was taken and not used.

    With T² · KL the softened distributions become even, and what is left is half the variance of the differences.
    """
    student, teacher = drawn(6, 5, scale=1.0), drawn(6, 5, seed=1, scale=1.0)
    split = split_map([[0], [1], [2], [3], [4]], 5)
    comparison = {
        "first_token": FirstTokenComparison(split, 50.0),
        "match": MatchComparison(ids(0, 1, 2, 3, 4), ids(0, 1, 2, 3, 4), (5, 5), 50.0),
        "reduce_map": ReduceMapComparison(split, 50.0),
    }[name]
    loss, gradient = comparison(student, teacher.clone())
    differences = student - teacher
    expected = 0.5 * differences.var(dim=1, correction=0).sum()
    torch.testing.assert_close(loss, expected, rtol=0.05, atol=0.0)
    centred = (differences - differences.mean(dim=1, keepdim=True)) / 5
    torch.testing.assert_close(gradient, centred, rtol=0.1, atol=0.02)


COMPARISONS = {
    "first_token": FirstTokenComparison(split_map(ROWS, 5), T),
    "match": MatchComparison(ids(0, 3, 5), ids(4, 2, 0), (7, 5), T),
    "reduce_map": ReduceMapComparison(split_map(ROWS, 5), T),
}


@pytest.mark.parametrize("name", COMPARISONS)
@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_chunks_are_the_whole(name: str, chunk: int) -> None:
    comparison = COMPARISONS[name]
    shapes = [(9, 3), (5, 3), (5,)]
    hidden_ND, weight_VD, bias_V = (drawn(*shape, seed=i).requires_grad_() for i, shape in enumerate(shapes))
    teacher = HeadInput(drawn(9, 4, seed=5), drawn(7, 4, seed=6), drawn(7, seed=7))
    scaled, found = compare_in_chunks(comparison, HeadInput(hidden_ND, weight_VD, bias_V), teacher, 0.3, chunk)
    (2 * scaled).backward()
    logits_NV = F.linear(hidden_ND, weight_VD, bias_V)
    loss, gradient_NV = comparison(logits_NV.detach(), F.linear(teacher.hidden_ND, teacher.weight_VD, teacher.bias_V))
    torch.testing.assert_close(found, loss)
    torch.testing.assert_close(scaled.detach(), 0.3 * loss)
    expected = torch.autograd.grad(logits_NV, (hidden_ND, weight_VD, bias_V), 0.6 * gradient_NV)
    for tensor, gradient in zip((hidden_ND, weight_VD, bias_V), expected, strict=True):
        assert tensor.grad is not None
        torch.testing.assert_close(tensor.grad, gradient)


def test_no_rows_are_no_loss() -> None:
    comparison = MatchComparison(ids(0), ids(1), (7, 5), T)
    student = HeadInput(drawn(0, 3).requires_grad_(), drawn(5, 3).requires_grad_(), None)
    scaled, found = compare_in_chunks(comparison, student, HeadInput(drawn(0, 4), drawn(7, 4), None), 0.0, 8)
    scaled.backward()
    assert found == 0
    assert not student.weight_VD.grad.any()


def test_states_are_means_over_real_tokens() -> None:
    """Trap 9: sums grew with the number of pieces, and means were divided by the padded width."""
    spans_BL = torch.tensor([[0, 1, 1, 1, 3], [0, 2, 0, 0, 0]])
    mask_BL = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]).bool()
    states_BLD = drawn(2, 5, 3).float()
    states_BLD[1, 2:] = float("nan")  # what stands at padding reaches nothing
    side = SideRows(mask_BL, spans_BL, 4)
    expected = torch.zeros(2, 4, 3)
    expected[0, 0], expected[0, 1], expected[0, 3] = states_BLD[0, 0], states_BLD[0, 1:4].mean(0), states_BLD[0, 4]
    expected[1, 0], expected[1, 2] = states_BLD[1, 0], states_BLD[1, 1]
    torch.testing.assert_close(side.pooled(states_BLD), expected)
    assert side.counts_BS.tolist() == [[1, 3, 0, 1], [1, 0, 1, 0]]


@pytest.mark.parametrize("name", COMPARISONS)
def test_bf16_is_for_the_products_alone(name: str) -> None:
    comparison = COMPARISONS[name]
    teacher = HeadInput(drawn(9, 4, seed=5).float(), drawn(7, 4, seed=6, scale=1.0).float(), None)
    found = []
    for enabled in (False, True):
        student = HeadInput(drawn(9, 3).float().requires_grad_(), drawn(5, 3, seed=1).float().requires_grad_(), None)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            scaled, value = compare_in_chunks(comparison, student, teacher, 0.1, 4)
        scaled.backward()
        assert student.weight_VD.grad.dtype == torch.float32
        found.append((value, student.weight_VD.grad))
    torch.testing.assert_close(found[1][0], found[0][0], rtol=0.05, atol=0.1)
    torch.testing.assert_close(found[1][1], found[0][1], rtol=0.1, atol=0.1)
