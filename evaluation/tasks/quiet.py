"""Silence for the messages and progress bars of libraries."""

import contextlib
from collections.abc import Iterator

import transformers
from datasets import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars


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
    verbosity = transformers.logging.get_verbosity()
    bars = transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        with without_bars():
            yield
    finally:
        transformers.logging.set_verbosity(verbosity)
        if bars:
            transformers.logging.enable_progress_bar()
