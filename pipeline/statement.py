"""What a check found: for a terminal, in lines, and for machines."""

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

from distilrubert.common.errors import printable

Verdict = Literal["holds", "does not hold", "not checked"]
VERDICTS: tuple[Verdict, ...] = ("holds", "does not hold", "not checked")
Value = float | str | None


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

    def __str__(self) -> str:
        """One line, safe for a terminal."""
        values = [f"stated {_shown(self.stated)}"] if self.stated is not None else []
        values += [f"found {_shown(self.found)}"] if self.found is not None else []
        return printable(": ".join(filter(None, (self.subject, self.quantity, ", ".join(values), self.reason))))

    def to_dict(self) -> dict[str, Any]:
        """The form for machines. A value that is neither a finite number nor null is text."""
        return {name: value if _is_plain(value) else str(value) for name, value in dataclasses.asdict(self).items()}


def checked(subject: str, quantity: str, stated: Value, found: Value, reason: str = "", *, holds: bool) -> Statement:
    """A statement that was checked."""
    return Statement(subject, quantity, stated, found, "holds" if holds else "does not hold", reason)


def unchecked(subject: str, quantity: str, stated: Value, reason: str, found: Value = None) -> Statement:
    """A statement that could not be checked, and why."""
    return Statement(subject, quantity, stated, found, "not checked", reason)


def problem(path: str, message: str) -> Statement:
    """What must be corrected in a file before its folder is published: what is wrong, and what is expected."""
    return Statement(path, "", None, None, "does not hold", message)


def summary(statements: Sequence[Statement]) -> str:
    """How many statements have which verdict."""
    counts = Counter[str](statement.verdict for statement in statements)
    hold, do_not, unchecked = (counts[verdict] for verdict in VERDICTS)
    return f"{hold} statements hold, {do_not} do not, {unchecked} were not checked (--all lists all)"


def statements_as_json(statements: Sequence[Statement]) -> str:
    """The form for machines, in ASCII: what is not is escaped, control characters of a stranger too."""
    values = {"statements": [statement.to_dict() for statement in statements], "holds": all_hold(statements)}
    return json.dumps(values, allow_nan=False)


def all_hold(statements: Sequence[Statement]) -> bool:
    """Whether no statement was found wrong."""
    return not any(statement.verdict == "does not hold" for statement in statements)


def first_line(error: BaseException) -> str:
    """The message of an error in one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


def _shown(value: Value) -> str:
    # A report from elsewhere may state anything.
    return f"{value:.5g}" if isinstance(value, float) else str(value)
