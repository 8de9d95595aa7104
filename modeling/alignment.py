"""Which tokens of two tokenisations cover the same text, by character offsets.

Both are cut into the same spans. A span is the shortest stretch of text that begins and ends with a token in both
tokenisations. It has one or more tokens of each, or none of one whose tokenizer drops a character that the other keeps
(a combining mark, for example).

Strings are not compared. That would fail on an equal token further on, on a letter that a tokenizer rewrites (ё, й) and
on [UNK].

Axes: N tokens, S spans.
"""

import dataclasses
from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding

Integers = NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class Offsets:
    """The positions of tokens in a text, in characters.

    Attributes:
        start_N: first character of each token; non-decreasing.
        end_N: the character after its last one; non-decreasing, greater than the start.
    """

    start_N: Integers
    end_N: Integers

    @classmethod
    def of(cls, encodings: Sequence[Encoding], texts: Sequence[str]) -> Self:
        """The offsets of tokenised texts, as if the texts were concatenated."""
        first = np.cumsum([0, *map(len, texts)])[:-1]
        offsets = [pair for encoding in encodings for pair in encoding.offsets]
        pairs_N2 = np.array(offsets, dtype=np.int64).reshape(-1, 2)
        pairs_N2 += np.repeat(first, [len(encoding) for encoding in encodings])[:, None]
        return cls(pairs_N2[:, 0], pairs_N2[:, 1])

    def is_inside_token(self, characters: Integers) -> NDArray[np.bool_]:
        """Whether a token covers each of the `characters` and the one before it."""
        if not len(self.start_N):
            return np.zeros(len(characters), dtype=bool)
        before = np.searchsorted(self.start_N, characters, side="left") - 1
        return (before >= 0) & (self.end_N[before] > characters)


def align(first: Offsets, second: Offsets) -> tuple[Integers, Integers]:
    """The span that each token belongs to, counted from 0 in the order of the text.

    Returns:
        An array (N,) for each tokenisation, non-decreasing. Each span has a token of at least one.
    """
    starts = np.unique(np.concatenate((first.start_N, second.start_N)))
    begins_S = starts[~(first.is_inside_token(starts) | second.is_inside_token(starts))]
    spans = [np.searchsorted(begins_S, tokens.start_N, side="right") - 1 for tokens in (first, second)]
    return spans[0], spans[1]
