"""Statements of a card or report and what a check found, also for a terminal and for machines."""

import dataclasses
import itertools
import json
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

from rich.table import Table
from rich.text import Text

from distilrubert.common.errors import printable
from distilrubert.pipeline.terminal import new_table

Verdict = Literal["holds", "does not hold", "not checked"]
Value = float | str | None
STYLES = {"holds": "green", "does not hold": "bold red", "not checked": "yellow"}
SHOWN_DIGITS = 12


@dataclasses.dataclass(frozen=True)
class Statement:
    """One statement and its verdict.

    Attributes:
        subject: what the statement is about: a file, a part of the card, a model on a task.
        quantity: the value that it states, with the unit in the name.
        stated: the value as it is stated. A bound is text, for example "≥ 0.97".
        found: the value that the check found; None where nothing was found or measured.
        verdict: whether the two agree.
        reason: why it was not checked, or what the verdict rests on.
    """

    subject: str
    quantity: str
    stated: Value
    found: Value
    verdict: Verdict
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The form for machines. A value that is neither a finite number nor null is text."""
        return {name: value if _is_plain(value) else str(value) for name, value in dataclasses.asdict(self).items()}


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


def checked(subject: str, quantity: str, stated: Value, found: Value, reason: str = "", *, holds: bool) -> Statement:
    """A statement that was checked."""
    return Statement(subject, quantity, stated, found, "holds" if holds else "does not hold", reason)


def unchecked(subject: str, quantity: str, stated: Value, reason: str, found: Value = None) -> Statement:
    """A statement that could not be checked, and why."""
    return Statement(subject, quantity, stated, found, "not checked", reason)


def statement_table(statements: Sequence[Statement]) -> Table:
    """A line for each statement: what is stated, what was found, the verdict and why."""
    table = new_table("Statements", ["about", "value", "stated", "found", "verdict"])
    for before, statement in itertools.pairwise([None, *statements]):
        assert statement is not None
        subject = statement.subject if before is None or before.subject != statement.subject else ""
        texts = (subject, statement.quantity, _shown(statement.stated), _shown(statement.found))
        reason = f": {printable(statement.reason)}" if statement.reason else ""
        verdict = Text.assemble((statement.verdict, STYLES[statement.verdict]), reason)
        table.add_row(*map(printable, texts), verdict)
    return table


def summary(statements: Sequence[Statement]) -> str:
    """How many statements have which verdict."""
    counts = Counter[str](statement.verdict for statement in statements)
    hold, do_not, unchecked = (counts[verdict] for verdict in STYLES)
    return f"{hold} statements hold, {do_not} do not, {unchecked} were not checked"


def statements_as_json(statements: Sequence[Statement]) -> str:
    """The form for machines. Control characters are escaped, also those that JSON allows."""
    values = {"statements": [statement.to_dict() for statement in statements], "holds": all_hold(statements)}
    text = json.dumps(values, ensure_ascii=False, allow_nan=False)
    return "".join(character if character.isprintable() else json.dumps(character)[1:-1] for character in text)


def all_hold(statements: Sequence[Statement]) -> bool:
    """Whether no statement was found wrong."""
    return not any(statement.verdict == "does not hold" for statement in statements)


def _shown(value: Any) -> str:
    # A report from elsewhere may state anything.
    if isinstance(value, int | float):
        return f"{value:,}" if isinstance(value, int) else f"{value:.5g}"
    text = "" if value is None else str(value)
    is_digest = len(text) == 64 and " " not in text
    return f"{text[:SHOWN_DIGITS]}…" if is_digest else text
