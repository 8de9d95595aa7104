"""The progress bars of the Hub's client, where nobody would see them."""

import contextlib
from collections.abc import Iterator

from huggingface_hub.utils import (  # type: ignore[attr-defined]
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)

from distilrubert.common.bars import is_shown


@contextlib.contextmanager
def quiet_hub() -> Iterator[None]:
    """Keep the client's bars of downloads and uploads out of files and pipes, into which it draws them as well."""
    if is_shown() or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
