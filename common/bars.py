"""Progress bars of one style: on standard error where that is a terminal, in a notebook, and nowhere else.

A log file, a pipe, the other processes of a launch and those that a process has started get none.
"""

import contextlib
import importlib.util
import logging
import multiprocessing
import sys
from collections.abc import Iterable, Iterator, Sized
from typing import Any, NoReturn, TypeVar

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from distilrubert.common.processes import is_first

Item = TypeVar("Item")


def is_shown() -> bool:
    """Whether somebody would see a bar of this process."""
    leads = is_first() and multiprocessing.parent_process() is None
    return leads and (sys.stderr.isatty() or in_notebook())


def in_notebook() -> bool:
    """Whether the process is the kernel of a notebook; its standard error is no terminal."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return shell is not None and hasattr(shell, "kernel")


@contextlib.contextmanager
def progress_bar(
    title: str, total: int | None, *, unit: str, done: int = 0, in_bytes: bool = False
) -> Iterator["tqdm[NoReturn]"]:
    """A bar to move by hand, with the lines of our log above it.

    Args:
        title: what is done.
        total: how many there are; None where that is not known.
        unit: what is counted, in the singular.
        done: how many were done before.
        in_bytes: whether bytes are counted, which are shown in larger units.
    """
    shown = is_shown()
    redirection = logging_redirect_tqdm([logging.getLogger("distilrubert")]) if shown else contextlib.nullcontext()
    bar: tqdm[NoReturn] = _kind()(
        total=total,
        initial=done,
        desc=title,
        unit="B" if in_bytes else f" {unit}",
        unit_scale=in_bytes,
        dynamic_ncols=True,
        leave=False,
        disable=not shown,
    )
    with redirection, bar:
        yield bar


def tracked(items: Iterable[Item], title: str, *, unit: str, total: int | None = None) -> Iterator[Item]:
    """The items, with a bar that counts them; `total` where they do not know their number."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with progress_bar(title, total, unit=unit) as bar:
        for item in items:
            yield item
            bar.update()


def _kind() -> Any:
    """The widget of a notebook that can show one, else text."""
    if in_notebook() and importlib.util.find_spec("ipywidgets"):
        from tqdm.notebook import tqdm as widget

        return widget
    return tqdm
