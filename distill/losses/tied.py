"""Embeddings that the output layer shares: one gradient for both uses.

The loss over the vocabulary makes a gradient for every token. The lookup's own would be a second tensor of that size,
filled with zeros but for the tokens of the batch, only to be added to the first. Here it is added in place.

Axes: B batch, L tokens, D width, V vocabulary.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


class TiedWeight:
    """A weight with two uses in one forward pass: a lookup, and later the output layer.

    The backward pass comes to the output layer first; its gradient waits here for the lookup's. Autograd hands on the
    gradient of a tensor only when all its uses have delivered theirs. These two have a view of their own, so that no
    other use, in another batch of the same backward pass say, can come between.

    Args:
        weight_VD: the parameter.

    Attributes:
        weight_VD: the view that both uses have to take.
    """

    def __init__(self, weight_VD: Tensor) -> None:
        self.weight_VD = weight_VD.view_as(weight_VD)
        self._gradient_VD: Tensor | None = None

    def put_gradient(self, gradient_VD: Tensor | None) -> None:
        """Leave the output layer's gradient, which is about to be returned to autograd."""
        self._gradient_VD = gradient_VD

    def pop_gradient(self) -> Tensor | None:
        """The gradient that was left, once: autograd copies a gradient that somebody else holds."""
        gradient_VD, self._gradient_VD = self._gradient_VD, None
        return gradient_VD

    def look_up(self, ids_BL: Tensor, padding_id: int | None) -> Tensor:
        """``torch.nn.functional.embedding``, whose gradient joins the output layer's where there is one."""
        embedded_BLD: Tensor = _LookUp.apply(self.weight_VD, ids_BL, padding_id, self)  # type: ignore[no-untyped-call]
        return embedded_BLD


class _LookUp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight_VD: Tensor, ids_BL: Tensor, padding_id: int | None, tied: TiedWeight) -> Tensor:
        ctx.save_for_backward(ids_BL)
        ctx.size, ctx.padding_id, ctx.tied = len(weight_VD), -1 if padding_id is None else padding_id, tied
        return F.embedding(ids_BL, weight_VD, padding_id)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BLD: Tensor) -> tuple[Tensor | None, None, None, None]:
        (ids_BL,) = ctx.saved_tensors
        shared_VD = ctx.tied.pop_gradient()
        # On a GPU adding in place depends on the order of threads, and the second tensor costs little.
        if shared_VD is None or shared_VD.device.type != "cpu":
            own_VD = torch.ops.aten.embedding_dense_backward(gradient_BLD, ids_BL, ctx.size, ctx.padding_id, False)
            return own_VD, None, None, None
        gradient_BLD = gradient_BLD.masked_fill((ids_BL == ctx.padding_id)[:, :, None], 0)
        shared_VD.index_add_(0, ids_BL.flatten(), gradient_BLD.flatten(0, 1).to(shared_VD.dtype))
        return None, None, None, None
