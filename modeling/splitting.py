"""How the tokens of one vocabulary are spelled in another, whatever kinds of tokenizers they are of.

BERT's tokenizers begin a word at a punctuation mark and after it, where SentencePiece and byte-level BPE see no space:
``,`` of XLM-R and its ``▁,`` are both ``,`` of BERT. So between these kinds a mark begins a word. A token without one,
as ``то`` of XLM-R, is taken for the inside of a word, which it mostly is. By :func:`begins_word` it is found where a
text has it after a mark.

Axes: T tokens of the vocabulary that is split (the teacher's), V tokens of the vocabulary that spells them (the
student's), K entries of the map.
"""

import dataclasses
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers.models import WordPiece
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from distilrubert.modeling.tokenizer_kinds import kind_of, tokens_of
from distilrubert.modeling.tokenizer_kinds.tokenizer_kind import StandsAlone, TokenText, longest_texts, never
from distilrubert.modeling.tokenizer_kinds.wordpiece_kind import stands_alone


def split_text(
    whole: TokenText, vocabulary: Collection[TokenText], alone: StandsAlone = never
) -> list[TokenText] | None:
    """A token spelled in the tokens of `vocabulary`, the longest first; None if that is not possible.

    If it continues a word, its first part has to continue one too, but for characters that stand alone.
    """
    parts = list(longest_texts(whole, vocabulary, alone))
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
    alone = _standing_alone(split, spelling)
    specials, texts = _special_ids(split, spelling), _ordinary_texts(split, alone)
    vocabulary = {text: token_id for token_id, text in _ordinary_texts(spelling, alone).items()}
    rows: list[Sequence[int]] = []
    for token_id in range(len(tokens_of(split))):
        if token_id in specials:
            rows.append([specials[token_id]])
        else:
            parts = split_text(texts[token_id], vocabulary, alone) if token_id in texts else None
            rows.append([vocabulary[part] for part in parts or ()])
    start_T1 = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    return SplitMap(start_T1, np.array([part for row in rows for part in row], dtype=np.int64), len(spelling))


def shared_tokens(
    first: PreTrainedTokenizerFast, second: PreTrainedTokenizerFast
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The tokens that both have, special ones by their role: their ids in the first and in the second, each (M,).

    Each of the first is there once. A punctuation mark of BERT's, as the second, may be two tokens of the first.
    """
    alone = _standing_alone(first, second)
    vocabulary = {text: token_id for token_id, text in _ordinary_texts(second, alone).items()}
    texts = _ordinary_texts(first, alone)
    both = {token_id: vocabulary[text] for token_id, text in texts.items() if text in vocabulary}
    ids = np.array(sorted((both | _special_ids(first, second)).items()), dtype=np.int64).reshape(-1, 2)
    return ids[:, 0], ids[:, 1]


def begins_word(tokenizer: PreTrainedTokenizerFast, other: PreTrainedTokenizerFast) -> NDArray[np.bool_]:
    """Whether each token of a tokenizer begins a word beside another tokenizer, (V,); special tokens do."""
    texts = _ordinary_texts(tokenizer, _standing_alone(tokenizer, other))
    found = np.zeros(len(tokens_of(tokenizer)), dtype=bool)
    found[[token_id for token_id, text in texts.items() if not text.is_inside]] = True
    found[tokenizer.all_special_ids] = True
    return found


def _standing_alone(first: PreTrainedTokenizerFast, second: PreTrainedTokenizerFast) -> StandsAlone:
    """Tokenizers of one kind agree on where words begin."""
    is_bert = [isinstance(tokenizer.backend_tokenizer.model, WordPiece) for tokenizer in (first, second)]
    return stands_alone if is_bert[0] != is_bert[1] else never


def _ordinary_texts(tokenizer: PreTrainedTokenizerFast, alone: StandsAlone) -> Mapping[int, TokenText]:
    """What each id stands for; special tokens, parts of characters and signs for white space alone have nothing."""
    kind, special = kind_of(tokenizer), set(tokenizer.all_special_tokens)
    ids = {kind.text_of(token): number for number, token in enumerate(tokens_of(tokenizer)) if token not in special}
    return {
        number: text._replace(is_inside=False) if alone(text.text[0]) else text
        for text, number in ids.items()
        if text and text.text
    }


def _special_ids(first: PreTrainedTokenizerFast, second: PreTrainedTokenizerFast) -> dict[int, int]:
    """Ids of the special tokens of a role that both have: padding, unknown, [CLS], [SEP], [MASK]."""
    roles = ("pad_token_id", "unk_token_id", "cls_token_id", "sep_token_id", "mask_token_id")
    ids = {getattr(first, role): getattr(second, role) for role in roles}
    return {its: own for its, own in ids.items() if its is not None and own is not None}
