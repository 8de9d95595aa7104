"""Choosing a part of a sequence."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")


def evenly(items: Sequence[Item], count: int) -> list[Item]:
    """`count` of the items, or all if there are no more, at even distances from the first to the last."""
    return [items[int(index)] for index in np.linspace(0, len(items) - 1, min(count, len(items)), dtype=int)]
