import math

import pytest
import torch

from distilrubert.common.training.padding import IGNORED
from distilrubert.distill.losses.mlm import masked_cross_entropy


def test_worked_by_hand() -> None:
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
