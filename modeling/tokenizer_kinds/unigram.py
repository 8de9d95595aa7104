"""Unigram, as SentencePiece and XLM-R have it: of all ways to cut a word the one with the largest sum of scores.

``▁`` stands for the white space before a word. Dropping tokens changes no best path that does not use them:

- All tokens of that path are still there, with their scores, so its sum is the same.
- No other path has gained anything. Where a character has no token of its own, tokenizers offers an unknown token,
  whose score is the lowest of the vocabulary less 10. A dropped character opens such a way, but one that is worse than
  the way through its token was.
- So the lowest score has to stay: if it rose, unknown tokens would be cheaper, and paths with them could win.
- Of equal sums the one that is found first wins, and dropping tokens moves none ahead of another.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from distilrubert.modeling.tokenizer_kinds.tokenizer_kind import TokenizerKind, TokenText

SPACE = "▁"
# No text has this character, which Unicode will never assign, once it is normalised or not.
NOWHERE = "\U0010ffff"


class Unigram(TokenizerKind):
    """See the module."""

    model_type = "Unigram"
    needed = "Unigram with an unknown token"

    @staticmethod
    def refused(state: Mapping[str, Any]) -> str | None:
        return "without an unknown token" if state["model"]["unk_id"] is None else None

    @staticmethod
    def forget_names(state: dict[str, Any]) -> None:
        """Make the names of special tokens match no text: they are in the vocabulary and have the highest score."""
        special = {token["content"] for token in state["added_tokens"] if token["special"]}
        vocabulary = state["model"]["vocab"]
        state["model"]["vocab"] = [
            [NOWHERE + token if token in special else token, score] for token, score in vocabulary
        ]

    def text_of(self, token: str) -> TokenText:
        text = token.removeprefix(SPACE)
        return TokenText(text, text == token)

    def model_with(self, tokens: Sequence[str]) -> dict[str, Any]:
        scores = dict(self.model["vocab"])
        kept = [token for token in tokens if token in scores]
        unknown, _ = self.model["vocab"][self.model["unk_id"]]
        return self.model | {"vocab": [[token, scores[token]] for token in kept], "unk_id": kept.index(unknown)}

    def indispensable(self) -> Collection[str]:
        """The unknown token, white space, a token of the lowest score, and the bytes that spell unknown characters."""
        scores = dict(self.model["vocab"])
        unknown, _ = self.model["vocab"][self.model["unk_id"]]
        kept = {unknown, SPACE, min(scores, key=scores.__getitem__)}
        if self.model["byte_fallback"]:
            kept |= {f"<0x{byte:02X}>" for byte in range(256)}
        return kept & scores.keys()
