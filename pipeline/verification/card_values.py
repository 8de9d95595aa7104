"""The figures in a card's text, whatever the words around them, and whether a report states them."""

import bisect
import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self

from distilrubert.model_card.formatting import WORDS

_NUMBER = r"-?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?"
_SCALES = {"million": 1e6, "billion": 1e9, "seconds": 1.0, "minutes": 60.0, "hours": 3600.0}
_QUANTITY = re.compile(rf"({_NUMBER})(?: ({'|'.join(_SCALES)}))?")
# What stands in a sentence for a figure: a number with its unit, one in words, or a word with digits such as a date.
_FIGURE = re.compile(
    rf"(?<![\w.-]){_NUMBER}(?: (?:{'|'.join(_SCALES)})\b)?(?![\w]|[.,:+-]\w)|\b(?:{'|'.join(WORDS)})\b"
    r"|[^\s()\[\]*`|,]*\d(?:[^\s()\[\]*`|,]*[^\s()\[\]*`|,.:;])?"
)
_CELL = re.compile(rf"({_NUMBER})(?: ± ({_NUMBER}))?( ?%)?(?: \([^)]*\))?")
# What has digits and claims nothing: names in code, targets of links, references and list marks, dates, years at the
# end of a phrase, versions, licences, and words that begin with a letter, such as int8.
_NO_FIGURE = re.compile(
    r"`[^`\d]*[^\W\d][^`]*`|\]\([^)]*\)|https?://\S+|arXiv:\S+|\[\d+\]|^\s*\d+[.)]\s"
    r"|\b\d{4}-\d\d-\d\d\b|\b(?:19|20)\d\d(?=[.,;)]|$)|\bv?\d+\.\d+\.\d[\w.+]*"
    r"|\b(?:CC(?:0|[ -]BY[A-Z-]*)|Apache|[AL]?GPL|MPL)(?: version| v)? ?\d(?:\.\d)?\b"
    r"|\b(?!x\d)[^\W\d][\w-]*(?:\.\d+)?"
)
_TIMES = re.compile(rf"\b(?:{'|'.join(WORDS)}) times\b", re.IGNORECASE)
# What may stand around a cell's figure.
_MARKUP = "*_`~× "
# A rounded number of fewer digits is near to something in any report.
TELLING_DIGITS = 3


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure as it is written: a number with what its last digit stands for, or a word.

    Attributes:
        text: as it is written.
        value: in words without a unit, for example 90,000,000 for "90 million"; None of a word.
        unit: what one in the last digit counts.
        digits: how many it has, leading zeros aside.
    """

    text: str
    value: float | None = None
    unit: float = 0.0
    digits: int = 0

    @classmethod
    def of(cls, text: str) -> Self:
        """Read one."""
        if text in WORDS:
            return cls(text, float(WORDS.index(text)), 1.0, 1)
        found = _QUANTITY.fullmatch(text)
        if not found:
            return cls(text)
        number, scale = found[1].replace(",", ""), _SCALES.get(found[2], 1.0)
        mantissa, _, exponent = number.partition("e")
        decimals = len(mantissa.partition(".")[2])
        unit = 10.0 ** (int(exponent or 0) - decimals) * scale
        return cls(text, float(number) * scale, unit, len(re.sub(r"[-.]", "", mantissa).lstrip("0")))

    def times(self, scale: float) -> "Figure":
        """The same in another unit; of words nothing changes."""
        value = None if self.value is None else self.value * scale
        return dataclasses.replace(self, value=value, unit=self.unit * scale)

    def agrees(self, other: "Figure") -> bool:
        """Whether both can be roundings of one value; of words, whether they are the same."""
        if self.value is None or other.value is None:
            return self.text == other.text
        return abs(self.value - other.value) <= 0.5001 * max(self.unit, other.unit) or self.text == other.text


def figures_in(line: str) -> list[Figure]:
    """The figures in a sentence, in their order."""
    return [Figure.of(found) for found in _FIGURE.findall(line)]


def claims_figures(line: str) -> bool:
    """Whether a sentence or a table's line says how much or how many of anything, in digits or as "ten times"."""
    return bool(re.search(r"\d", _NO_FIGURE.sub("", line)) or _TIMES.search(line))


def wording_of(line: str) -> str:
    """A sentence with its figures left out."""
    return _FIGURE.sub("#", line)


def figures_of_cell(cell: str) -> list[Figure]:
    """The figure in a table's cell, and its deviation where it has one; none where the cell holds words."""
    found = _CELL.fullmatch(cell.strip(_MARKUP))
    if not found:
        return []
    scale = 0.01 if found[3] else 1.0
    return [Figure.of(text).times(scale) for text in found.groups()[:2] if text]


class Facts:
    """All that some files state.

    Args:
        sources: reports and configurations, as plain values.
    """

    def __init__(self, sources: Iterable[Any]) -> None:
        leaves = [leaf for source in sources for leaf in _leaves(source)]
        self._numbers = sorted(float(leaf) for leaf in leaves if isinstance(leaf, int | float))
        self._words = {word for leaf in leaves if isinstance(leaf, str) for word in [leaf, *leaf.split()]}

    def state(self, figure: Figure) -> bool:
        """Whether one of the values is that figure, or rounds to it where it has enough digits to tell."""
        if figure.value is None:
            return figure.text in self._words
        half = 0.5001 * figure.unit if figure.digits >= TELLING_DIGITS else 1e-9
        nearest = bisect.bisect_left(self._numbers, figure.value - half)
        return nearest < len(self._numbers) and self._numbers[nearest] <= figure.value + half


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield key
            yield from _leaves(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _leaves(inner)
    elif value is not None and not isinstance(value, bool):
        yield value
