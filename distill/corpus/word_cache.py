"""Tokens of words that were met before: a text has few new words, and a look-up is faster than a tokenizer."""

import json
import string
from array import array
from collections.abc import Mapping, Sequence
from itertools import chain, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer

from distilrubert.modeling.tokenizer_kinds.wordpiece_kind import CONTINUATION

# Characters of all words that are remembered, about 250,000: 60 MB with their tokens.
CHARACTERS = 2_500_000
# New words are tokenised in lists of this many, because each call for a text takes as long as some words.
WORDS_AT_ONCE = 64
# Signs that BERT's pre-tokenizer makes tokens of their own: most words with some of them are known without these.
PUNCTUATION = string.punctuation + "«»—–…„“”"
# An added token between them. No word has a space in it, so none is taken for it.
_BETWEEN = " \n "
_BYTES = 4


def is_separable(state: Mapping[str, Any]) -> bool:
    """Whether the tokens of a text are those of the words between its spaces, one after another.

    They are with BERT's tokenizers: the normalizer changes no character for what stands beyond a space, the
    pre-tokenizer cuts at each space, and special tokens are plain characters in a text.

    Args:
        state: of the tokenizer.
    """
    model = state["model"]
    kinds = [state[part] and state[part]["type"] for part in ("normalizer", "pre_tokenizer")]
    return (
        kinds in (["BertNormalizer", "BertPreTokenizer"], [None, "BertPreTokenizer"])
        and (model["type"], model.get("continuing_subword_prefix")) == ("WordPiece", CONTINUATION)
        and all(token["special"] for token in state["added_tokens"])
    )


class WordCache:
    """Tokenises each word once, as long as it is remembered; a word is what stands between two spaces.

    Before the words have more than `CHARACTERS` characters, all are forgotten.

    Args:
        state: of a tokenizer that :func:`is_separable`.
    """

    def __init__(self, state: Mapping[str, Any]) -> None:
        # Without its special tokens, the tokenizer takes their names for plain characters.
        self._engine = Tokenizer.from_str(json.dumps({**state, "added_tokens": []}))
        self._engine.add_special_tokens([AddedToken(_BETWEEN, normalized=False, special=True)])
        self._between = self._engine.token_to_id(_BETWEEN)
        vocabulary = state["model"]["vocab"]
        self._begins_V = np.ones(max(vocabulary.values()) + 1, dtype=bool)
        self._begins_V[[number for token, number in vocabulary.items() if token.startswith(CONTINUATION)]] = False
        self._tokens: dict[str, bytes] = {}
        self._characters = 0

    def encode(self, texts: Sequence[str]) -> list[bytes]:
        """The tokens of each text, as int32."""
        words = [text.split(" ") for text in texts]
        self._learn({*chain.from_iterable(words)})
        tokens_of = self._tokens.__getitem__
        return [b"".join(map(tokens_of, each)) for each in words]

    def begin_words(self, tokens_T: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Which tokens of a text begin a word, as the tokenizer splits words, (T,)."""
        return self._begins_V[tokens_T]

    def _learn(self, words: set[str]) -> None:
        new = words.difference(self._tokens)
        characters = sum(map(len, new))
        if self._characters + characters > CHARACTERS:
            self._tokens, self._characters = {}, 0
            new, characters = words, sum(map(len, words))
        if not new:
            return
        inner = [word.strip(PUNCTUATION) or word for word in new]
        # With the signs before and behind what is inside.
        cut = [(word, *word.partition(core)) for word, core in zip(new, inner, strict=True) if word != core]
        signs = (each for _, before, _, after in cut for each in (before, after))
        unknown = {*inner, *signs}.difference(self._tokens)
        self._tokenise([*unknown])
        self._characters += characters + sum(map(len, unknown.difference(new)))
        tokens = self._tokens
        tokens.update([(word, tokens[before] + tokens[core] + tokens[after]) for word, before, core, after in cut])

    def _tokenise(self, words: list[str]) -> None:
        starts = range(0, len(words), WORDS_AT_ONCE)
        lists = [_BETWEEN.join(words[start : start + WORDS_AT_ONCE]) + _BETWEEN for start in starts]
        ids = array("i")
        for encoding in self._engine.encode_batch_fast(lists, add_special_tokens=False):
            ids.fromlist(encoding.ids)
        ids_T = np.array(ids, dtype=np.int32)
        ends = (_BYTES * np.flatnonzero(ids_T == self._between)).tolist()
        tokens = ids_T.tobytes()
        bounds = pairwise([-_BYTES, *ends])
        self._tokens.update(
            [(word, tokens[before + _BYTES : end]) for word, (before, end) in zip(words, bounds, strict=True)]
        )
