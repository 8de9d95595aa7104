"""How the tokens of one WordPiece vocabulary are spelled in another.

Axes: T tokens of the vocabulary that is split (the teacher's), V tokens of the vocabulary that spells them (the
student's), K entries of the map.
"""

import dataclasses
from collections.abc import Collection, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from distilrubert.modeling.trimming import CONTINUATION, longest_tokens, tokens_of


def split_token(token: str, vocabulary: Collection[str]) -> list[str] | None:
    """A token spelled in the tokens of `vocabulary`, the longest first; None if that is not possible.

    A token with ``##`` continues a word, so its first part needs ``##`` too.
    """
    text = token.removeprefix(CONTINUATION)
    parts = list(longest_tokens(text, vocabulary, is_inside=text != token))
    return [part for part in parts if part is not None] if parts and None not in parts else None


@dataclasses.dataclass(frozen=True)
class SplitMap:
    """The tokens of one vocabulary that spell each token of another, as a sparse matrix of counts (T, V) in CSR form.

    Attributes:
        start_T1: the first entry of each row, and the end, (T + 1,).
        token_K: id of a token that spells; it has two entries if it occurs twice.
        width: V.
    """

    start_T1: NDArray[np.int64]
    token_K: NDArray[np.int64]
    width: int

    @property
    def is_spelled_T(self) -> NDArray[np.bool_]:
        """Whether each token can be spelled."""
        return np.diff(self.start_T1) > 0

    @property
    def row_K(self) -> NDArray[np.int64]:
        """The token that each entry helps to spell."""
        return np.repeat(np.arange(len(self.start_T1) - 1), np.diff(self.start_T1))

    def __getitem__(self, token: int) -> NDArray[np.int64]:
        """The ids that spell a token, in order; none if it cannot be spelled."""
        return self.token_K[self.start_T1[token] : self.start_T1[token + 1]]

    def matrix(self) -> Tensor:
        """The map as a sparse tensor (T, V) of float32 counts."""
        return self._matrix(np.arange(len(self.token_K)))

    def first_tokens(self) -> Tensor:
        """The token that each begins with, as a sparse tensor (T, V) with a 1 in each row that can be spelled."""
        return self._matrix(self.start_T1[:-1][self.is_spelled_T])

    def _matrix(self, entries: NDArray[np.int64]) -> Tensor:
        places = torch.from_numpy(np.stack((self.row_K[entries], self.token_K[entries])))
        size = (len(self.start_T1) - 1, self.width)
        return torch.sparse_coo_tensor(places, torch.ones(len(entries)), size, check_invariants=True).coalesce()


def split_vocabulary(split: PreTrainedTokenizerFast, spelling: PreTrainedTokenizerFast) -> SplitMap:
    """Spell every token of one tokenizer in the tokens of another.

    A special token is spelled by the one of the same role. [UNK] spells only itself: a token with a character that the
    other vocabulary does not have is not spelled.
    """
    vocabulary = spelling.get_vocab()
    specials = _special_ids(split, spelling)
    ordinary = vocabulary.keys() - set(spelling.all_special_tokens)
    rows: list[Sequence[int]] = []
    for token_id, token in enumerate(tokens_of(split)):
        if token_id in specials:
            rows.append([specials[token_id]])
        elif token in split.all_special_tokens:
            rows.append([])
        else:
            rows.append([vocabulary[part] for part in split_token(token, ordinary) or ()])
    start_T1 = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    return SplitMap(start_T1, np.array([part for row in rows for part in row], dtype=np.int64), len(vocabulary))


def shared_tokens(
    first: PreTrainedTokenizerFast, second: PreTrainedTokenizerFast
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The tokens that both have, special ones by their role: their ids in the first and in the second, each (M,)."""
    both = _special_ids(first, second)
    excluded = set(first.all_special_tokens) | set(second.all_special_tokens)
    vocabulary = second.get_vocab()
    for token_id, token in enumerate(tokens_of(first)):
        if token in vocabulary and token not in excluded:
            both[token_id] = vocabulary[token]
    ids = np.array(sorted(both.items()), dtype=np.int64).reshape(-1, 2)
    return ids[:, 0], ids[:, 1]


def _special_ids(first: PreTrainedTokenizerFast, second: PreTrainedTokenizerFast) -> dict[int, int]:
    """Ids of the special tokens of the same role: padding, unknown, [CLS], [SEP], [MASK]."""
    roles = ("pad_token_id", "unk_token_id", "cls_token_id", "sep_token_id", "mask_token_id")
    return {getattr(first, role): getattr(second, role) for role in roles}
