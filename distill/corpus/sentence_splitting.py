"""Texts to sentences, and what is put before them."""

import re
from collections.abc import Iterator, Sequence

import numpy as np

# A sentence ends with its line, or where a space follows its last sign and a new one begins.
_END = re.compile(r"(?<=[.!?…])[\"»”)]*\s++(?=[\s\"«„“(—–-]*[A-ZА-ЯЁ0-9])|\n+")
# The dash of a reply.
_DASH = re.compile(r"^[-—–]\s+")
# "А. С. Пушкин", "ул. Ленина": what ends in one capital letter, or in a short form that a name follows, goes on.
_GOES_ON = re.compile(r"(?:^|[\s(«\"])(?:[A-ZА-ЯЁ]|г|ул|д|им|т\. ?е|т\. ?к|гр|проф|акад|св|рис|стр|см|ср|св|род)\.$")
# More characters than that has.
_LONGEST_SHORT_FORM = 12


def sentences_of(text: str) -> Iterator[str]:
    """The sentences of a text, in order; the dash that begins a reply is left out, and so is what has no letter."""
    start = 0
    for end in _END.finditer(text):
        before = text[max(start, end.start() - _LONGEST_SHORT_FORM) : end.start()]
        if "\n" not in end.group() and _GOES_ON.search(before):
            continue
        yield from _cleaned(text[start : end.end()])
        start = end.end()
    yield from _cleaned(text[start:])


def prompt_of(key: np.uint64, prompts: Sequence[str]) -> str:
    """The prompt that the text with this identity key gets; empty without prompts."""
    return prompts[int(key) % len(prompts)] if prompts else ""


def _cleaned(sentence: str) -> Iterator[str]:
    stripped = _DASH.sub("", sentence.strip())
    if any(character.isalpha() for character in stripped):
        yield stripped
