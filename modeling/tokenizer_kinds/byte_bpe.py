"""Byte-level BPE, as RoBERTa and ModernBERT have it: the bytes of a word, merged pair by pair in the merges' order.

Each byte is written as a character (``Ġ`` is the space), so a token may be a part of a character. Dropping tokens
changes no word whose merges all stay: in each step the merge that was first is still there, and none is added. These
are the merges that build the word's tokens, one by one as if each stood alone: no merge joined bytes of two of them.
"""

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

from tokenizers.pre_tokenizers import ByteLevel

from distilrubert.modeling.tokenizer_kinds.tokenizer_kind import TokenizerKind, TokenText


def _characters_of_bytes() -> dict[str, int]:
    """The byte that each character of a token stands for: printable ones for themselves, others from 256 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


BYTES: Mapping[str, int] = _characters_of_bytes()


class ByteBpe(TokenizerKind):
    """See the module."""

    model_type = "BPE"
    needed = "byte-level BPE"

    @staticmethod
    def refused(state: Mapping[str, Any]) -> str | None:
        model, before = state["model"], state["pre_tokenizer"] or {}
        steps = before.get("pretokenizers", [before])
        if not any(step.get("type") == ByteLevel.__name__ for step in steps):
            return "over characters"
        affixes = ("continuing_subword_prefix", "end_of_word_suffix")
        return next((f"with a {name}" for name in (*affixes, "dropout") if model[name]), None)

    def text_of(self, token: str) -> TokenText | None:
        if not all(character in BYTES for character in token):
            return TokenText(token, is_inside=True)  # an added token, which is no bytes
        try:
            whole = bytes(BYTES[character] for character in token).decode()
        except UnicodeDecodeError:
            return None
        text = whole.removeprefix(" ")
        return TokenText(text, text == whole)

    def model_with(self, tokens: Sequence[str]) -> dict[str, Any]:
        vocabulary = {token: number for number, token in enumerate(tokens) if token in self.model["vocab"]}
        merges = [pair for pair in self.model["merges"] if {*pair, "".join(pair)} <= vocabulary.keys()]
        return self.model | {"vocab": vocabulary, "merges": merges}

    def indispensable(self) -> Collection[str]:
        """The bytes, in which everything can be spelt."""
        return {token for token in BYTES if token in self.model["vocab"]}

    def parts_of(self, token: str) -> Sequence[str]:
        """The tokens that the merges make on the way to a token, bytes included."""
        symbols, made = list(token), list(token)
        while len(symbols) > 1:
            pairs = [self._ranks.get(pair, len(self._ranks)) for pair in pairwise(symbols)]
            first = min(range(len(pairs)), key=pairs.__getitem__)
            if pairs[first] == len(self._ranks):
                break
            symbols[first : first + 2] = ["".join(symbols[first : first + 2])]
            made.append(symbols[first])
        return [part for part in made if part != token and part in self.model["vocab"]]

    @cached_property
    def _ranks(self) -> dict[tuple[str, str], int]:
        return {(left, right): rank for rank, (left, right) in enumerate(self.model["merges"])}
