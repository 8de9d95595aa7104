"""Checked statements for a terminal and for machines."""

import itertools
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from distilrubert.common.errors import printable
from distilrubert.pipeline.terminal import new_table
from distilrubert.pipeline.verification.statement import Statement

STYLES = {"holds": "green", "does not hold": "bold red", "not checked": "yellow"}
SHOWN_DIGITS = 12


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
    return (
        f"{counts['holds']} statements hold, {counts['does not hold']} do not, {counts['not checked']} were not checked"
    )


def statements_as_json(statements: Sequence[Statement]) -> str:
    """The form for machines. Control characters are escaped, also those that JSON allows."""
    values: dict[str, Any] = {
        "statements": [statement.to_dict() for statement in statements],
        "holds": all_hold(statements),
    }
    text = json.dumps(values, ensure_ascii=False, allow_nan=False)
    return "".join(character if character.isprintable() else json.dumps(character)[1:-1] for character in text)


def all_hold(statements: Sequence[Statement]) -> bool:
    """Whether no statement was found wrong."""
    return not any(statement.verdict == "does not hold" for statement in statements)


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        is_digest = len(value) == 64 and " " not in value
        return f"{value[:SHOWN_DIGITS]}…" if is_digest else value
    if isinstance(value, int | float):
        return f"{value:,}" if isinstance(value, int) else f"{value:.5g}"
    return str(value)
