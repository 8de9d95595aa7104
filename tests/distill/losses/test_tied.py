"""Axes: V vocabulary, D width."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from distilrubert.distill.losses.chunks import HeadInput
from distilrubert.distill.losses.tied import TiedWeight
from distilrubert.distill.losses.vocabulary import VocabularyLoss

PADDING = 2
IDS = torch.tensor([[3, 3, 0, PADDING], [5, 1, 3, PADDING]])
LABELS = torch.tensor([4, 0])


@pytest.fixture
def weight_VD() -> Tensor:
    return torch.randn(7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()


class Operations(TorchDispatchMode):
    """Names of the operations that run while the mode is on."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.name())
        return func(*args, **(kwargs or {}))


def tied_loss(weight_VD: Tensor, factor: float = 1.0) -> Tensor:
    tied = TiedWeight(weight_VD)
    hidden_ND = torch.tanh(tied.look_up(IDS, PADDING)).flatten(0, 1)
    loss = VocabularyLoss(2.0, 3)
    return loss(HeadInput(factor * hidden_ND, tied.weight_VD, None, tied), None, LABELS, 0.0, 1.0)[0]


def plain_loss(weight_VD: Tensor, factor: float = 1.0) -> Tensor:
    hidden_ND = torch.tanh(torch.nn.functional.embedding(IDS, weight_VD, PADDING)).flatten(0, 1)
    logits_NV = factor * hidden_ND[: len(LABELS)] @ weight_VD.T
    return torch.nn.functional.cross_entropy(logits_NV, LABELS, reduction="sum")


def gradient(loss: Tensor, weight_VD: Tensor) -> Tensor:
    return torch.autograd.grad(loss, weight_VD)[0]


def test_the_gradient_is_that_of_both_uses_and_the_lookup_makes_none_of_its_own(weight_VD: Tensor) -> None:
    expected = gradient(plain_loss(weight_VD), weight_VD)
    loss = tied_loss(weight_VD)
    with Operations() as ran:
        found = gradient(loss, weight_VD)
    torch.testing.assert_close(found, expected)
    assert "aten::index_add_" in ran.names
    assert "aten::embedding_dense_backward" not in ran.names


def test_several_batches_in_one_backward_pass_do_not_lose_each_others_lookups(weight_VD: Tensor) -> None:
    factors = 1.0, 0.3, -2.0
    total = sum(tied_loss(weight_VD, factor) for factor in factors) + weight_VD.square().sum()
    expected = sum(plain_loss(weight_VD, factor) for factor in factors) + weight_VD.square().sum()
    torch.testing.assert_close(gradient(total, weight_VD), gradient(expected, weight_VD))


def test_a_second_backward_pass_is_refused_and_not_wrong(weight_VD: Tensor) -> None:
    loss = tied_loss(weight_VD)
    torch.autograd.grad(loss, weight_VD, retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        gradient(loss, weight_VD)


def test_a_lookup_alone_has_the_gradient_of_an_embedding(weight_VD: Tensor) -> None:
    lookup = TiedWeight(weight_VD).look_up(IDS, PADDING).square().sum()
    embedding = torch.nn.functional.embedding(IDS, weight_VD, PADDING).square().sum()
    found = gradient(lookup, weight_VD)
    torch.testing.assert_close(found, gradient(embedding, weight_VD))
    assert found[PADDING].count_nonzero() == 0
    assert found[3].count_nonzero() == 5


def test_a_frozen_weight_gets_no_gradient(weight_VD: Tensor) -> None:
    frozen = weight_VD.detach()
    tied = TiedWeight(frozen)
    hidden_ND = tied.look_up(IDS, PADDING).flatten(0, 1).requires_grad_()
    loss = VocabularyLoss(2.0, 3)(HeadInput(hidden_ND, tied.weight_VD, None, tied), None, LABELS, 0.0, 1.0)[0]
    assert gradient(loss, hidden_ND).isfinite().all()
    assert frozen.grad is None
