"""Silence for the messages and progress bars of libraries."""

import contextlib
from collections.abc import Iterator

from datasets import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from distilrubert.modeling.checkpoints import quiet_transformers


@contextlib.contextmanager
def without_bars() -> Iterator[None]:
    """Without the progress bars of `datasets`, which it draws even without a terminal."""
    shown = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            enable_progress_bars()


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence what transformers and datasets say on their own account: new heads, loading bars, tables."""
    with quiet_transformers(), without_bars():
        yield
