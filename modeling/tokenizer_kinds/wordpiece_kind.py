"""WordPiece, as BERT has it: repeatedly the longest token that fits, ``##`` before those that continue a word.

A dropped token changes only the words that used it: in all other words each step finds the same longest token.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from distilrubert.modeling.tokenizer_kinds.tokenizer_kind import TokenizerKind, TokenText, longest_texts

CONTINUATION = "##"


@functools.cache
def stands_alone(character: str) -> bool:
    """Whether BERT makes a word of this character, whatever stands beside it: a punctuation mark, a Chinese one."""
    normalizer = BertNormalizer(lowercase=False, strip_accents=False)
    return len(BertPreTokenizer().pre_tokenize_str(normalizer.normalize_str(f"a{character}a"))) == 3


class WordPiece(TokenizerKind):
    """See the module."""

    model_type = "WordPiece"
    needed = f"WordPiece with {CONTINUATION!r} before tokens inside words"

    @staticmethod
    def refused(state: Mapping[str, Any]) -> str | None:
        prefix = state["model"]["continuing_subword_prefix"]
        return None if prefix == CONTINUATION else f"with {prefix!r} before tokens inside words"

    def text_of(self, token: str) -> TokenText:
        text = token.removeprefix(CONTINUATION)
        return TokenText(text, text != token)

    def model_with(self, tokens: Sequence[str]) -> dict[str, Any]:
        return self.model | {"vocab": {token: number for number, token in enumerate(tokens)}}

    def needed_for_unknown(
        self, engine: Tokenizer, texts: Sequence[str], ids: Sequence[NDArray[np.int64]]
    ) -> Iterator[str]:
        """The tokens that are found in a word before nothing fits and it becomes [UNK]."""
        unknown_id = self.model["vocab"][self.model["unk_token"]]
        unknown = [text for text, found in zip(texts, ids, strict=True) if (found == unknown_id).any()]
        for text, encoding in zip(unknown, engine.encode_batch(unknown, add_special_tokens=False), strict=True):
            for word in _unknown_words(engine, text, encoding, unknown_id):
                if len(word) <= self.model["max_input_chars_per_word"]:
                    found = longest_texts(TokenText(word, is_inside=False), self._tokens)
                    yield from (self._tokens[each] for each in found if each is not None)

    @functools.cached_property
    def _tokens(self) -> dict[TokenText, str]:
        return {self.text_of(token): token for token in self.model["vocab"]}


def _unknown_words(engine: Tokenizer, text: str, encoding: Encoding, unknown_id: int) -> Iterator[str]:
    for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
        if token == unknown_id:
            yield engine.normalizer.normalize_str(text[start:end]) if engine.normalizer else text[start:end]
