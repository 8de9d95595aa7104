"""How numbers and names are written on a card: few significant digits, always the same way."""

import math
from collections.abc import Iterable

# What Markdown would read as more than text, in a paragraph or in a table's cell.
SPECIAL = {ord(character): f"\\{character}" for character in r"\`*_[]<>|~$#"}


def number(value: float, digits: int = 3) -> str:
    """`value` with `digits` significant digits, never fewer than its integer part has, thousands separated.

    >>> [number(value) for value in (0.32849, 36.49, 52, 679.4, 135445.7, 0)]
    ['0.328', '36.5', '52.0', '679', '135,446', '0']
    """
    if value == 0:
        return "0"
    if abs(value) < 1e-3:
        return f"{value:.{digits - 1}e}".replace("e-0", "e-")
    # Rounding first: 9.996 has one digit more before the point than it seems.
    exponent = math.floor(math.log10(abs(float(f"{value:.{digits - 1}e}"))))
    return f"{value:,.{max(digits - 1 - exponent, 0)}f}"


def count(value: float) -> str:
    """A whole number, thousands separated."""
    return f"{value:,.0f}"


def counted(number: int, noun: str) -> str:
    """A number of things: 1 thread, 4 threads."""
    return f"{count(number)} {noun}{'s' if number != 1 else ''}"


def short_count(value: float) -> str:
    """A large count in words: 135,445,755 becomes '135.4 million', 2,400 stays as it is."""
    for size, word in ((1e9, "billion"), (1e6, "million")):
        if value >= size:
            return f"{value / size:,.{1 if value < 1000 * size else 0}f} {word}"
    return count(value)


def score(value: float, spread: float | None = None) -> str:
    """A share or score in three decimals, with its standard deviation where there is one."""
    decimals = 3 if abs(value) <= 1 else 1 if abs(value) >= 10 else 2
    return f"{value:.{decimals}f}" + (f" ± {spread:.{decimals}f}" if spread is not None else "")


def cosine(value: float) -> str:
    """A cosine, with the digits that tell it from 1."""
    return f"{value:.5f}"


def duration(seconds: float) -> str:
    """A wall time in the unit that suits it: seconds, minutes, hours or days."""
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{number(seconds / size, 2 if seconds < 10 * size else 3)} {unit}"
    return f"{number(seconds, 2)} seconds"


def escape(text: str) -> str:
    """`text` so that Markdown shows it as it is, on one line, also in a table's cell."""
    return " ".join(text.split()).translate(SPECIAL)


def listing(texts: Iterable[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    items = list(texts)
    return " and ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))
