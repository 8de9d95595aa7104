"""Losses over two vocabularies, for a chunk of rows at a time, their gradients made in the forward pass.

As in :mod:`.vocabulary`, nothing of rows × vocabulary outlives its chunk. What is compared differs from loss to loss,
so each gives a :class:`Comparison`; the products with the student's vocabulary are here.

Axes: N rows, C rows of a chunk, V pieces of the student, T pieces of the teacher, D width.
"""

import dataclasses
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from distilrubert.distill.losses.vocabulary import Predictor


class Comparison(Protocol):
    """Compares the predictions of some rows."""

    def __call__(self, student_CV: Tensor, teacher_CT: Tensor) -> tuple[Tensor, Tensor]:
        """The loss summed over the rows, and its gradient with respect to the student's logits (C, V), from logits.

        `teacher_CT` may be overwritten.
        """
        ...


class ChunkedSum(NamedTuple):
    """A loss over all rows.

    Attributes:
        scaled: the sum over rows times the scale, the only one with a gradient.
        sum: the sum over rows.
    """

    scaled: Tensor
    sum: Tensor


def sum_in_chunks(
    comparison: Comparison, student: Predictor, teacher: Predictor, scale: float, chunk: int
) -> ChunkedSum:
    """Compare row by row, `chunk` of them at a time.

    Under bf16 autocast the products are made in bf16; the comparison and all sums are float32 all the same.

    Args:
        comparison: what is summed.
        student: rows that learn.
        teacher: the same rows in the teacher, over its own vocabulary; receives no gradient.
        scale: weight / number of rows.
        chunk: C.
    """
    task = _Task(comparison, teacher, scale, chunk, torch.is_grad_enabled())
    return ChunkedSum(*_Chunked.apply(student.hidden_ND, student.weight_VD, student.bias_V, task))  # type: ignore[no-untyped-call]


@dataclasses.dataclass(frozen=True)
class _Task:
    comparison: Comparison
    teacher: Predictor
    scale: float
    chunk: int
    with_gradient: bool


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, task: _Task
    ) -> tuple[Tensor, Tensor]:
        student, teacher = Predictor(hidden_ND, weight_VD, bias_V), task.teacher
        needs = [needed and task.with_gradient for needed in ctx.needs_input_grad[:3]]
        gradients = [
            torch.zeros_like(tensor) if tensor is not None and needed else None
            for tensor, needed in zip((hidden_ND, weight_VD, bias_V), needs, strict=True)
        ]
        total = torch.zeros((), dtype=torch.promote_types(hidden_ND.dtype, torch.float32), device=hidden_ND.device)
        for start in range(0, len(hidden_ND), task.chunk):
            rows = slice(start, start + task.chunk)
            logits = _logits(student, rows), _logits(teacher, rows)
            with torch.autocast(hidden_ND.device.type, enabled=False):
                loss, gradient_CV = task.comparison(*logits)
            total += loss
            if any(needs):
                _add_gradients(gradients, gradient_CV.mul_(task.scale), student, rows)
        ctx.save_for_backward(*gradients)
        ctx.mark_non_differentiable(total)
        return task.scale * total, total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        return *(each if each is None else each * gradient for each in ctx.saved_tensors), None


def _logits(predictor: Predictor, rows: slice) -> Tensor:
    logits_CV = F.linear(predictor.hidden_ND[rows], predictor.weight_VD, predictor.bias_V)
    return logits_CV.to(torch.promote_types(logits_CV.dtype, torch.float32))


def _add_gradients(gradients: list[Tensor | None], gradient_CV: Tensor, student: Predictor, rows: slice) -> None:
    hidden_ND, weight_VD, bias_V = gradients
    if hidden_ND is not None:
        hidden_ND[rows] = torch.mm(gradient_CV, student.weight_VD)
    if weight_VD is not None:
        weight_VD += torch.mm(gradient_CV.t(), student.hidden_ND[rows])
    if bias_V is not None:
        bias_V += gradient_CV.sum(dim=0)
