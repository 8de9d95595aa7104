"""What a card or a report claims, and what was found when somebody looked."""

import dataclasses
import math
from typing import Any, Literal

Verdict = Literal["holds", "does not hold", "not checked"]
Figure = float | str | None


@dataclasses.dataclass(frozen=True)
class Claim:
    """One statement and its verdict.

    Attributes:
        subject: what it is about: a file, a part of the card, a model on a task.
        figure: which of its figures, the unit in the name.
        claimed: as it is stated; a bound is text, as "≥ 0.97".
        measured: as it was found; None where nothing was measured.
        verdict: whether the two agree.
        reason: why it was not checked, or what the verdict rests on.
    """

    subject: str
    figure: str
    claimed: Figure
    measured: Figure
    verdict: Verdict
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The form for machines: what JSON has no value for, such as NaN, is text."""
        return {name: value if _is_plain(value) else str(value) for name, value in dataclasses.asdict(self).items()}


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


def judged(subject: str, figure: str, claimed: Figure, measured: Figure, reason: str = "", *, holds: bool) -> Claim:
    """A claim that was looked into."""
    return Claim(subject, figure, claimed, measured, "holds" if holds else "does not hold", reason)


def unchecked(subject: str, figure: str, claimed: Figure, reason: str, measured: Figure = None) -> Claim:
    """A claim on which nothing can be said, and why."""
    return Claim(subject, figure, claimed, measured, "not checked", reason)
