"""Tables and sizes on the terminal."""

import sys
from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.table import Table

from distilrubert.common.errors import printable

# Wide enough for every table: a file or a pipe gets each row in one line.
UNLIMITED = 100_000
# "(1.00–1.00)" or half of "0.774 ± 0.002".
NARROW = 11


class _SafeTable(Table):
    """A table whose cells cannot control the terminal: a run directory may come from a stranger."""

    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:
        super().add_row(*(printable(cell) if isinstance(cell, str) else cell for cell in cells), **options)


class _Console(Console):
    """A console that raises where the reader of the output has gone; rich would end the program with status 1."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def new_table(title: str | None, texts: Sequence[str], numbers: Sequence[str] = ()) -> Table:
    """A table without rows.

    Args:
        title: above the table.
        texts: headings of the columns with text; the first one has names.
        numbers: headings of the columns with numbers, behind those.
    """
    table = _SafeTable(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for heading in texts:
        table.add_column(heading, overflow="fold")
    for heading in numbers:
        table.add_column(heading, overflow="fold", justify="right")
    return table


def print_table(table: Table) -> None:
    """Print a table as wide as the terminal allows, or as wide as it is where standard output is no terminal."""
    # Cells have what users wrote: "[int8]" is no style there, and ":x:" no picture.
    console = _Console(width=None if sys.stdout.isatty() else UNLIMITED, markup=False, emoji=False)
    if console.measure(table, options=console.options.update_width(UNLIMITED)).maximum > console.width:
        # Else the names of the rows are cut first.
        for column in table.columns:
            column.max_width = NARROW if column.justify == "right" else None
    console.print(table)
    console.print()


def format_size(size: int) -> str:
    """Bytes as a person reads them, in binary units."""
    value = float(size)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"
