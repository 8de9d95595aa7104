"""Where two tokenisations of the same text agree, by character offsets.

Both are cut into the same spans: the shortest stretches of text that begin and end with a token on either side. One
token may face one or several, several may face several, and none where one tokenizer drops a character that the other
keeps (a combining mark, say).

Strings are not compared: an equal piece further on, a letter that a tokenizer rewrites (ё, й) or an [UNK] would lead
that astray.

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
    """Where tokens stand in a text, in characters.

    Attributes:
        start_N: first character of each token; never falling.
        end_N: behind its last one; never falling, and more than its start.
    """

    start_N: Integers
    end_N: Integers

    @classmethod
    def of(cls, encodings: Sequence[Encoding], texts: Sequence[str]) -> Self:
        """Of tokenised texts, as if these stood one behind the other."""
        first = np.cumsum([0, *map(len, texts)])[:-1]
        offsets = [pair for encoding in encodings for pair in encoding.offsets]
        pairs_N2 = np.array(offsets, dtype=np.int64).reshape(-1, 2)
        pairs_N2 += np.repeat(first, [len(encoding) for encoding in encodings])[:, None]
        return cls(pairs_N2[:, 0], pairs_N2[:, 1])

    def hide(self, places: Integers) -> NDArray[np.bool_]:
        """Which of the `places` between characters lie inside a token."""
        if not len(self.start_N):
            return np.zeros(len(places), dtype=bool)
        before = np.searchsorted(self.start_N, places, side="left") - 1
        return (before >= 0) & (self.end_N[before] > places)


def align(first: Offsets, second: Offsets) -> tuple[Integers, Integers]:
    """The span that each token belongs to, counted from 0 in the order of the text.

    Returns:
        For both tokenisations an array (N,), never falling. Each span has a token on at least one side.
    """
    places = np.unique(np.concatenate((first.start_N, second.start_N)))
    begins_S = places[~(first.hide(places) | second.hide(places))]
    spans = [np.searchsorted(begins_S, tokens.start_N, side="right") - 1 for tokens in (first, second)]
    return spans[0], spans[1]
