"""Attention written out for ONNX graphs.

Axes: B batch, H heads, L padded length, E width of a head.
"""

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


def _attend(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **_: Any) -> Tensor:
    """What scaled_dot_product_attention computes for an encoder, whose mask (B, 1, L, L) has equal rows."""
    scores_BHLL = (query / math.sqrt(query.shape[-1])) @ key.transpose(-1, -2)
    if attn_mask is not None:
        scores_BHLL = scores_BHLL + attn_mask[:, :, :1]
    return torch.softmax(scores_BHLL, dim=-1) @ value


@contextlib.contextmanager
def attention_written_out() -> Iterator[None]:
    """Trace attention as products and a softmax instead of torch's one operator.

    ONNX exporters unfold that operator into more: two scalings, and a mask of length × length for every head.
    """
    original = torch.nn.functional.scaled_dot_product_attention
    torch.nn.functional.scaled_dot_product_attention = _attend  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.nn.functional.scaled_dot_product_attention = original
