"""Choosing a part of a sequence."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")


def evenly(items: Sequence[Item], count: int) -> list[Item]:
    """`count` of the items, or all if there are no more, at even distances from the first to the last."""
    return [items[int(index)] for index in np.linspace(0, len(items) - 1, min(count, len(items)), dtype=int)]


def sampled(items: Iterable[Item], count: int) -> list[Item]:
    """`count` of the items, or all if there are no more, in their order; always the same ones of the same items.

    Each is as likely as another, and only these are in memory (Vitter's algorithm R).
    """
    draw, kept = np.random.default_rng(0), list[tuple[int, Item]]()
    for index, item in enumerate(items):
        if index < count:
            kept.append((index, item))
        elif (place := int(draw.integers(index + 1))) < count:
            kept[place] = index, item
    return [item for _, item in sorted(kept, key=lambda pair: pair[0])]
