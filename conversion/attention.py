"""Attention written out for ONNX graphs.

Axes: B batch, H heads, L padded length, E width of a head, F one more than that.
"""

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


def _attend(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor, **_: Any) -> Tensor:
    """What scaled_dot_product_attention computes for an encoder, whose mask (B, 1, L, L) has equal rows.

    The mask is one more component of the keys, which the queries multiply by 1.
    """
    scaled_BHLE = query / math.sqrt(query.shape[-1])
    row_BHL1 = attn_mask[:, :, :1].transpose(-1, -2).expand(-1, key.shape[1], -1, -1)
    query_BHLF = torch.cat([scaled_BHLE, torch.ones_like(scaled_BHLE[..., :1])], dim=-1)
    key_BHLF = torch.cat([key, row_BHL1], dim=-1)
    return torch.softmax(query_BHLF @ key_BHLF.transpose(-1, -2), dim=-1) @ value


@contextlib.contextmanager
def attention_written_out() -> Iterator[None]:
    """Let optimum's exporter trace attention as two products and a softmax instead of torch's one operator.

    The exporter unfolds that operator into two scalings, and a mask of length × length that is added to the scores of
    every head: base shapes at 512 tokens then take 124 ms in int8 on one thread, written out 119.
    """
    from optimum.exporters.onnx import model_patcher

    original = model_patcher.original_scaled_dot_product_attention
    model_patcher.original_scaled_dot_product_attention = _attend
    try:
        yield
    finally:
        model_patcher.original_scaled_dot_product_attention = original
