"""What is asked of every kind of tokenizer."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer


class TokenText(NamedTuple):
    """What a token stands for, whatever its kind of tokenizer writes around it.

    Attributes:
        text: its characters.
        is_inside: whether it continues a word; else it begins one.
    """

    text: str
    is_inside: bool


class TokenizerKind(ABC):
    """The vocabulary of a tokenizer, and how a part of it becomes a tokenizer again.

    Args:
        model: the part ``model`` of its tokenizer.json.
    """

    model_type: ClassVar[str]
    """Its ``type`` in tokenizer.json."""
    needed: ClassVar[str]
    """What exactly is taken, for messages."""

    def __init__(self, model: dict[str, Any]) -> None:
        self.model = model

    @staticmethod
    @abstractmethod
    def refused(state: Mapping[str, Any]) -> str | None:
        """Why a tokenizer.json of this type is not taken, to be read after the type; None if it is."""

    @abstractmethod
    def text_of(self, token: str) -> TokenText | None:
        """What a token stands for; None for a part of a character."""

    @abstractmethod
    def model_with(self, tokens: Sequence[str]) -> dict[str, Any]:
        """The part ``model`` of a tokenizer.json with only these tokens, whose ids are their places."""

    def indispensable(self) -> Collection[str]:
        """The tokens that stay whatever the texts need."""
        return ()

    def parts_of(self, token: str) -> Sequence[str]:
        """The tokens that must be there for a token to be found; one that is needed twice stands twice."""
        return ()

    def needed_for_unknown(
        self, engine: Tokenizer, texts: Sequence[str], ids: Sequence[NDArray[np.int64]]
    ) -> Iterator[str]:
        """The tokens without which what is unknown in these tokenised texts might be tokenised otherwise."""
        return iter(())


StandsAlone = Callable[[str], bool]
"""Whether a word begins, and ends, at a character."""


def never(character: str) -> bool:
    """Words begin where tokens say it."""
    return False


def longest_texts(
    whole: TokenText, vocabulary: Collection[TokenText], stands_alone: StandsAlone = never
) -> Iterator[TokenText | None]:
    """The tokens that spell a word, or the inside of one, each the longest that fits; None at the end if none fits.

    A word begins, and ends, at a character that `stands_alone`.
    """
    start = 0
    while start < len(whole.text):
        is_inside = whole.is_inside or start > 0
        if is_inside and any(map(stands_alone, whole.text[max(start - 1, 0) : start + 1])):
            is_inside = False
        candidates = (TokenText(whole.text[start:end], is_inside) for end in range(len(whole.text), start, -1))
        fitting = next((text for text in candidates if text in vocabulary), None)
        yield fitting
        start = start + len(fitting.text) if fitting else len(whole.text)
