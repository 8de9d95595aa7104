"""What the fast path is compared with, worked by hand."""

import math

import pytest
import torch

from distilrubert.common.training.padding import IGNORED
from tests.distill.losses.reference_formulas import kl_divergence, masked_cross_entropy


def test_divergence_by_hand() -> None:
    teacher = torch.tensor([[0.0, 0.0]])
    student = torch.tensor([[0.0, math.log(3.0)]])
    # p = (1/2, 1/2), q = (1/4, 3/4)
    expected = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    assert kl_divergence(student, teacher, 1.0).item() == pytest.approx(expected, rel=1e-6)


def test_temperature_divides_logits_and_is_squared_in_front() -> None:
    teacher, student = torch.randn(2, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    softened = kl_divergence(student, teacher, 3.0)
    assert softened.item() == pytest.approx(9 * kl_divergence(student / 3, teacher / 3, 1.0).item())
    assert softened.item() != pytest.approx(kl_divergence(student, teacher, 1.0).item(), rel=0.01)


def test_the_teacher_comes_first() -> None:
    wide, narrow = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 20.0]])
    # A student that is sure where the teacher is not is punished; the other way round much less.
    assert kl_divergence(narrow, wide, 1.0) > 10 * kl_divergence(wide, narrow, 1.0)


def test_rows_are_summed() -> None:
    teacher, student = torch.randn(2, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    parts = [kl_divergence(student[rows], teacher[rows], 2.0) for rows in (slice(2), slice(2, 5))]
    torch.testing.assert_close(kl_divergence(student, teacher, 2.0), sum(parts))


def test_equal_predictions_and_no_rows_give_zero() -> None:
    logits = torch.randn(3, 7, dtype=torch.float64)
    assert kl_divergence(logits + 5, logits, 2.0).item() == pytest.approx(0, abs=1e-12)
    assert kl_divergence(logits[:0], logits[:0], 2.0).item() == 0


def test_cross_entropy_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)], [5.0, 5.0], [0.0, math.log(3.0)]])
    labels = torch.tensor([0, IGNORED, 1])
    assert masked_cross_entropy(logits, labels).item() == pytest.approx(math.log(4) + math.log(4 / 3), rel=1e-6)


def test_rows_that_are_ignored_have_no_gradient() -> None:
    logits = torch.randn(3, 5, requires_grad=True)
    masked_cross_entropy(logits, torch.tensor([1, IGNORED, 4])).backward()
    assert logits.grad[1].count_nonzero() == 0
    assert logits.grad[[0, 2]].count_nonzero() == 10


def test_nothing_to_predict_gives_zero() -> None:
    logits = torch.randn(2, 5, requires_grad=True)
    loss = masked_cross_entropy(logits, torch.tensor([IGNORED, IGNORED]))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.count_nonzero() == 0
