"""One statement of a card or report, and what a check found."""

import dataclasses
import math
from typing import Any, Literal

Verdict = Literal["holds", "does not hold", "not checked"]
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

    def to_dict(self) -> dict[str, Any]:
        """The form for machines. A value that JSON does not have, such as NaN, is text."""
        return {name: value if _is_plain(value) else str(value) for name, value in dataclasses.asdict(self).items()}


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


def checked(subject: str, quantity: str, stated: Value, found: Value, reason: str = "", *, holds: bool) -> Statement:
    """A statement that was checked."""
    return Statement(subject, quantity, stated, found, "holds" if holds else "does not hold", reason)


def unchecked(subject: str, quantity: str, stated: Value, reason: str, found: Value = None) -> Statement:
    """A statement that could not be checked, and why."""
    return Statement(subject, quantity, stated, found, "not checked", reason)
