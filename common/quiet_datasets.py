"""Silence for the progress bars of `datasets`."""

import contextlib
from collections.abc import Iterator

import datasets


@contextlib.contextmanager
def quiet_datasets() -> Iterator[None]:
    """Keep the library from drawing bars, which it does on whatever standard error is."""
    were_disabled = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not were_disabled:
            datasets.enable_progress_bars()
