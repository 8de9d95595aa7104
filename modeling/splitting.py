"""How the pieces of one WordPiece vocabulary are spelt in another.

Axes: T pieces of the vocabulary that is split (the teacher's), V pieces of the one that spells (the student's), K
entries of the map.
"""

import dataclasses
from collections.abc import Collection, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from distilrubert.modeling.trimming import CONTINUATION, pieces_of


def split_piece(piece: str, vocabulary: Collection[str]) -> list[str] | None:
    """A piece in the pieces of `vocabulary`, the longest first; None where it cannot be spelt.

    A piece with ``##`` stands inside a word, so its first part needs the ``##`` as well.
    """
    text = piece.removeprefix(CONTINUATION)
    is_inside = piece != text
    parts: list[str] = []
    start = 0
    while start < len(text):
        prefix = CONTINUATION if start or is_inside else ""
        ends = range(len(text), start, -1)
        end = next((end for end in ends if prefix + text[start:end] in vocabulary), None)
        if end is None:
            return None
        parts.append(prefix + text[start:end])
        start = end
    return parts or None


@dataclasses.dataclass(frozen=True)
class SplitMap:
    """Which pieces of one vocabulary spell each piece of another, as a sparse matrix of counts (T, V) in CSR form.

    Attributes:
        start_T1: for each row its first entry, and the end, (T + 1,).
        piece_K: id of a piece that spells; one that stands twice in a piece has two entries.
        width: V.
    """

    start_T1: NDArray[np.int64]
    piece_K: NDArray[np.int64]
    width: int

    @property
    def is_spelt_T(self) -> NDArray[np.bool_]:
        """Which pieces can be spelt."""
        return np.diff(self.start_T1) > 0

    @property
    def row_K(self) -> NDArray[np.int64]:
        """The piece that each entry helps to spell."""
        return np.repeat(np.arange(len(self.start_T1) - 1), np.diff(self.start_T1))

    def __getitem__(self, piece: int) -> NDArray[np.int64]:
        """The ids that spell a piece, in order; none where it cannot be spelt."""
        return self.piece_K[self.start_T1[piece] : self.start_T1[piece + 1]]

    def matrix(self) -> Tensor:
        """The map as a sparse tensor (T, V) of float32 counts."""
        return self._matrix(np.arange(len(self.piece_K)))

    def first_pieces(self) -> Tensor:
        """Which piece each begins with, as a sparse tensor (T, V) with a 1 in each row that can be spelt."""
        return self._matrix(self.start_T1[:-1][self.is_spelt_T])

    def _matrix(self, entries: NDArray[np.int64]) -> Tensor:
        places = torch.from_numpy(np.stack((self.row_K[entries], self.piece_K[entries])))
        size = (len(self.start_T1) - 1, self.width)
        return torch.sparse_coo_tensor(places, torch.ones(len(entries)), size, check_invariants=True).coalesce()


def split_vocabulary(split: PreTrainedTokenizerFast, spelling: PreTrainedTokenizerFast) -> SplitMap:
    """Spell every piece of one tokenizer in the pieces of another.

    A special token is spelt by the one of the same role. [UNK] spells nothing but itself: a piece with a character
    that the other vocabulary lacks is not spelt.
    """
    vocabulary = spelling.get_vocab()
    specials = _special_ids(split, spelling)
    ordinary = vocabulary.keys() - set(spelling.all_special_tokens)
    rows: list[Sequence[int]] = []
    for piece_id, piece in enumerate(pieces_of(split)):
        if piece_id in specials:
            rows.append([specials[piece_id]])
        elif piece in split.all_special_tokens:
            rows.append([])
        else:
            rows.append([vocabulary[part] for part in split_piece(piece, ordinary) or ()])
    start_T1 = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    return SplitMap(start_T1, np.array([part for row in rows for part in row], dtype=np.int64), len(vocabulary))


def shared_pieces(
    first: PreTrainedTokenizerFast, second: PreTrainedTokenizerFast
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The pieces that both have, special tokens by their role: ids in the first and in the second, (M,) both."""
    both = _special_ids(first, second)
    excluded = set(first.all_special_tokens) | set(second.all_special_tokens)
    vocabulary = second.get_vocab()
    for piece_id, piece in enumerate(pieces_of(first)):
        if piece in vocabulary and piece not in excluded:
            both[piece_id] = vocabulary[piece]
    ids = np.array(sorted(both.items()), dtype=np.int64).reshape(-1, 2)
    return ids[:, 0], ids[:, 1]


def _special_ids(first: PreTrainedTokenizerFast, second: PreTrainedTokenizerFast) -> dict[int, int]:
    """Ids of the special tokens of the same role: padding, unknown, [CLS], [SEP], [MASK]."""
    roles = ("pad_token_id", "unk_token_id", "cls_token_id", "sep_token_id", "mask_token_id")
    return {getattr(first, role): getattr(second, role) for role in roles}
