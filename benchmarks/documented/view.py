"""What a table of the documentation is."""

import dataclasses
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from distilrubert.common.derived import derive
from distilrubert.common.measurements import Measurements

Table = Callable[[Measurements], str]
"""From a file of results to Markdown."""

Entry = dict[str, Any]
# What a value is multiplied by, for a reader.
UNITS = {"ms": 1e3, "points": 1e2, "GiB": 2**-10, "MB": 1e-6, "GB": 1e-9}


class Cells(string.Formatter):
    """``str.format``, where ``{latency_s:ms .1f}`` is in another unit of :data:`UNITS`, and no value leaves nothing."""

    def get_field(self, field_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, str]:
        """The value; None where there is none."""
        try:
            return super().get_field(field_name, args, kwargs)
        except KeyError:
            return None, field_name

    def format_field(self, value: Any, format_spec: str) -> str:
        """The text."""
        unit, _, form = format_spec.rpartition(" ")
        return "" if value is None else format(value * UNITS[unit] if unit else value, form)


def all_rows(report: Measurements) -> list[Entry]:
    """The rows as they are in the file."""
    return [row.to_dict() for row in report.rows]


@dataclasses.dataclass(frozen=True)
class View:
    """A table, the first column left-aligned and the others right-aligned, and what is told below it.

    Attributes:
        headings: its first line.
        cells: the line of a row, in the notation of :class:`Cells`.
        rows: the rows of a report.
        note: text in that notation, of the report and its ``rows``; or what makes it.
    """

    headings: str
    cells: str
    rows: Callable[[Measurements], Iterable[Entry]] = all_rows
    note: str | Callable[[Measurements], str] = ""

    def __call__(self, report: Measurements) -> str:
        """Markdown."""
        rows = [*self.rows(report)]
        lines = [self.headings, " | ".join(["---", *["---:"] * self.headings.count("|")])]
        lines += [Cells().vformat(self.cells, (), row) for row in rows]
        about = {"details": report.details, "environment": report.environment, "rows": rows}
        note = self.note(report) if callable(self.note) else Cells().vformat(self.note, (), about)
        return "".join(f"| {line} |\n" for line in lines) + (f"\n{note}\n" if note else "")


def derived(report: Measurements) -> list[Entry]:
    """The rows with what follows from their raw values."""
    return all_rows(derive(report))
