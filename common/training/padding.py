"""Padding of examples to one width.

Legend: N tokens of all examples, B examples, L padded width.
"""

from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

IGNORED = -100
"""The label of a position that is not to be predicted."""

NEVER = -1e4
"""The logit of a position that is no answer: its probability is 0, and no difference of two such is NaN."""

# Tensor cores want widths that are multiples of this.
WIDTH_STEP = 8

Integer = TypeVar("Integer", bound=np.integer[Any])


def padded_widths(lengths: NDArray[Integer]) -> NDArray[Integer]:
    """Lengths rounded up to a multiple of `WIDTH_STEP`."""
    return -(-lengths // WIDTH_STEP) * WIDTH_STEP


def collate(
    ids_N: NDArray[np.int32], labels_N: NDArray[np.int32], lengths_B: NDArray[np.int64], pad_id: int
) -> dict[str, Tensor]:
    """Pad examples to the longest of them, rounded up to a multiple of `WIDTH_STEP`.

    Args:
        ids_N: ids of all examples, one after another.
        labels_N: their labels.
        lengths_B: tokens of each example.
        pad_id: id at padded positions.

    Returns:
        `input_ids`, `attention_mask` (1 at tokens, 0 at padding) and `labels` (-100 at padding), all int64 (B, L).
    """
    is_token_BL = np.arange(padded_widths(lengths_B).max()) < lengths_B[:, None]
    ids_BL = np.full(is_token_BL.shape, pad_id, dtype=np.int64)
    labels_BL = np.full(is_token_BL.shape, IGNORED, dtype=np.int64)
    ids_BL[is_token_BL] = ids_N
    labels_BL[is_token_BL] = labels_N
    return {
        "input_ids": torch.from_numpy(ids_BL),
        "attention_mask": torch.from_numpy(is_token_BL.astype(np.int64)),
        "labels": torch.from_numpy(labels_BL),
    }
