"""Losses over the vocabulary for a chunk of rows at a time, their gradients made in the forward pass.

The gradient of a chunk is made while its logits are there. So nothing of rows x vocabulary outlives its chunk, and each
product with the vocabulary (for the logits, and for the gradients) is done once. Nothing is kept for the backward pass
but the results.

One autograd function serves all these losses. A :class:`ChunkedLoss` does the work: that of this module compares whole
logits with any comparison; :mod:`.vocabulary` is the fast path for KL and MLM over one vocabulary.

Axes: N rows, C rows of a chunk, V tokens of the student, T tokens of the teacher, D width.
"""

import abc
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from distilrubert.distill.losses.tied import TiedWeight

# Compares the predictions of some rows. From the logits of student (C, V) and teacher (C, T), which it may overwrite,
# it makes the loss summed over the rows, and its gradient with respect to the student's logits.
Comparison = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclasses.dataclass(frozen=True)
class HeadInput:
    """``logits_NV = hidden_ND @ weight_VD.T + bias_V``, not computed yet.

    Attributes:
        hidden_ND: rows that are to predict a token of the vocabulary, after the head's transform.
        weight_VD: output embeddings, tied or not.
        bias_V: output bias, or None.
        tied: holder of the weight, where the embeddings share it.
    """

    hidden_ND: Tensor
    weight_VD: Tensor
    bias_V: Tensor | None
    tied: TiedWeight | None = None


class ChunkedLoss(abc.ABC):
    """The work of one call: sums and gradients, chunk by chunk."""

    @abc.abstractmethod
    def begin(self, student: HeadInput, needs: Sequence[bool]) -> None:
        """Start, with the rows that learn, and which of their hidden rows, weight and bias need a gradient."""

    @abc.abstractmethod
    def add_rows(self, rows: slice) -> None:
        """Add the losses and gradients of a chunk of rows."""

    @abc.abstractmethod
    def results(self) -> tuple[Tensor, Sequence[Tensor], Sequence[Tensor | None]]:
        """The total with its scales, the sum of each loss, and the gradients of hidden rows, weight and bias."""


def run_in_chunks(loss: ChunkedLoss, student: HeadInput, chunk: int) -> tuple[Tensor, ...]:
    """The total, the only one with a gradient, and the sum of each loss.

    Args:
        loss: does the work.
        student: rows that learn.
        chunk: rows that are worked on at a time; memory is proportional to it times the vocabulary.
    """
    with_gradient = torch.is_grad_enabled()
    tensors = student.hidden_ND, student.weight_VD, student.bias_V
    results: tuple[Tensor, ...] = _Chunked.apply(*tensors, student.tied, loss, chunk, with_gradient)  # type: ignore[no-untyped-call]
    return results


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        tied: TiedWeight | None,
        loss: ChunkedLoss,
        chunk: int,
        with_gradient: bool,
    ) -> tuple[Tensor, ...]:
        needs = [needed and with_gradient for needed in ctx.needs_input_grad[:3]]
        loss.begin(HeadInput(hidden_ND, weight_VD, bias_V), needs)
        for start in range(0, len(hidden_ND), chunk):
            loss.add_rows(slice(start, start + chunk))
        total, sums, gradients = loss.results()
        ctx.save_for_backward(*gradients)
        ctx.mark_non_differentiable(*sums)
        ctx.tied = tied
        return total, *sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        gradients: tuple[Tensor | None, ...] = ctx.saved_tensors
        # Spares a pass over the weight's gradient. A GPU is not asked: it would have to be waited for.
        if gradient.device.type != "cpu" or gradient != 1:
            gradients = tuple(each if each is None else each * gradient for each in gradients)
        if ctx.tied is not None:
            ctx.tied.put_gradient(gradients[1])
        return *gradients, None, None, None, None


def compare_in_chunks(
    comparison: Comparison, student: HeadInput, teacher: HeadInput, scale: float, chunk: int
) -> tuple[Tensor, Tensor]:
    """The sum over rows times the scale, the only one with a gradient, and the sum over rows.

    Under bf16 autocast the products are made in bf16; the comparison and all sums are float32 all the same.

    Args:
        comparison: what is summed.
        student: rows that learn.
        teacher: the same rows in the teacher, over its own vocabulary; receives no gradient.
        scale: weight / number of rows.
        chunk: C.
    """
    total, found = run_in_chunks(_WholeLogits(comparison, teacher, scale), student, chunk)
    return total, found


class _WholeLogits(ChunkedLoss):
    """Compares the logits of a chunk as they are."""

    def __init__(self, comparison: Comparison, teacher: HeadInput, scale: float) -> None:
        self._comparison, self._teacher, self._scale = comparison, teacher, scale

    def begin(self, student: HeadInput, needs: Sequence[bool]) -> None:
        self._student = student
        tensors = student.hidden_ND, student.weight_VD, student.bias_V
        self._gradients = [
            torch.zeros_like(tensor) if tensor is not None and needed else None
            for tensor, needed in zip(tensors, needs, strict=True)
        ]
        self._sum = student.hidden_ND.new_zeros((), dtype=_wide(student.hidden_ND))

    def add_rows(self, rows: slice) -> None:
        logits = _logits(self._student, rows), _logits(self._teacher, rows)
        with torch.autocast(self._sum.device.type, enabled=False):
            loss, gradient_CV = self._comparison(*logits)
        self._sum += loss
        hidden_ND, weight_VD, bias_V = self._gradients
        gradient_CV.mul_(self._scale)
        if hidden_ND is not None:
            hidden_ND[rows] = torch.mm(gradient_CV, self._student.weight_VD)
        if weight_VD is not None:
            weight_VD += torch.mm(gradient_CV.t(), self._student.hidden_ND[rows])
        if bias_V is not None:
            bias_V += gradient_CV.sum(dim=0)

    def results(self) -> tuple[Tensor, Sequence[Tensor], Sequence[Tensor | None]]:
        return self._scale * self._sum, [self._sum], self._gradients


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


def _logits(rows_of: HeadInput, rows: slice) -> Tensor:
    logits_CV = F.linear(rows_of.hidden_ND[rows], rows_of.weight_VD, rows_of.bias_V)
    return logits_CV.to(_wide(logits_CV))
