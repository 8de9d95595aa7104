"""Losses over the vocabulary for a chunk of rows at a time, their gradients made in the forward pass.

The gradient of a chunk is made while its logits are there. So nothing of rows x vocabulary outlives its chunk, and each
product with the vocabulary (for the logits, and for the gradients) is done once. Nothing is kept for the backward pass
but the results.

One autograd function serves all these losses: those of this module compare whole logits with any comparison;
:mod:`.vocabulary` is the fast path for KL and MLM over one vocabulary.

Axes: N rows, C rows of a chunk, V tokens of the student, T tokens of the teacher, D width.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from distilrubert.distill.losses.tied import TiedWeight

# Compares the predictions of some rows. From the logits of student (C, V) and teacher (C, T), which it may overwrite,
# it makes the loss summed over the rows, and its gradient with respect to the student's logits.
Comparison = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class HeadInput(NamedTuple):
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


# The total with its scales, the sum of each loss, and the gradients of hidden rows, weight and bias.
Results = tuple[Tensor, Sequence[Tensor], Sequence[Tensor | None]]
# Computes losses of the rows that learn; the second argument says which of the three gradients are needed.
Computation = Callable[[HeadInput, Sequence[bool]], Results]


def with_gradients(compute: Computation, student: HeadInput) -> tuple[Tensor, ...]:
    """The total, the only one with a gradient, and the sum of each loss."""
    results: tuple[Tensor, ...] = _WithGradients.apply(  # type: ignore[no-untyped-call]
        *student, compute, torch.is_grad_enabled()
    )
    return results


class _WithGradients(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        tied: TiedWeight | None,
        compute: Computation,
        with_gradient: bool,
    ) -> tuple[Tensor, ...]:
        needs = [needed and with_gradient for needed in ctx.needs_input_grad[:3]]
        total, sums, gradients = compute(HeadInput(hidden_ND, weight_VD, bias_V), needs)
        ctx.save_for_backward(*gradients)
        ctx.mark_non_differentiable(*sums)
        ctx.tied = tied
        return total, *sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        gradients: tuple[Tensor | None, ...] = ctx.saved_tensors
        # Spares a pass over the weight's gradient.
        if not _is_seen_to_be_one(gradient):
            gradients = tuple(each if each is None else each * gradient for each in gradients)
        if ctx.tied is not None:
            ctx.tied.put_gradient(gradients[1])
        return *gradients, None, None, None


def _is_seen_to_be_one(gradient: Tensor) -> bool:
    """Whether a factor is 1, as far as that can be told at once: a GPU would have to be waited for."""
    return gradient.device.type == "cpu" and bool(gradient == 1)


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

    def compute(student: HeadInput, needs: Sequence[bool]) -> Results:
        gradients = [
            torch.zeros_like(tensor) if tensor is not None and needed else None
            for tensor, needed in zip(student[:3], needs, strict=True)
        ]
        found = student.hidden_ND.new_zeros((), dtype=_wide(student.hidden_ND))
        for start in range(0, len(student.hidden_ND), chunk):
            rows = slice(start, start + chunk)
            logits = _logits(student, rows), _logits(teacher, rows)
            with torch.autocast(found.device.type, enabled=False):
                loss, gradient_CV = comparison(*logits)
            found += loss
            _add_gradients(gradients, student, rows, gradient_CV.mul_(scale))
        return scale * found, [found], gradients

    total, found = with_gradients(compute, student)
    return total, found


def _add_gradients(gradients: Sequence[Tensor | None], student: HeadInput, rows: slice, gradient_CV: Tensor) -> None:
    hidden_ND, weight_VD, bias_V = gradients
    kind = gradient_CV.device.type
    # The loss is not scaled yet, and these gradients may be too small for fp16.
    is_wide = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.float16
    with torch.autocast(kind, enabled=False) if is_wide else contextlib.nullcontext():
        _add_products(hidden_ND, weight_VD, bias_V, student, rows, gradient_CV)


def _add_products(
    hidden_ND: Tensor | None,
    weight_VD: Tensor | None,
    bias_V: Tensor | None,
    student: HeadInput,
    rows: slice,
    gradient_CV: Tensor,
) -> None:
    if hidden_ND is not None:
        hidden_ND[rows] = torch.mm(gradient_CV, student.weight_VD)
    if weight_VD is not None:
        weight_VD += torch.mm(gradient_CV.t(), student.hidden_ND[rows])
    if bias_V is not None:
        bias_V += gradient_CV.sum(dim=0)


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


def _logits(rows_of: HeadInput, rows: slice) -> Tensor:
    logits_CV = F.linear(rows_of.hidden_ND[rows], rows_of.weight_VD, rows_of.bias_V)
    return logits_CV.to(_wide(logits_CV))
