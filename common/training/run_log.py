"""What a training run shows while it runs: lines of the log and a progress bar."""

import contextlib
import logging
import multiprocessing
import sys
from collections.abc import Iterator, Mapping
from typing import NoReturn

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from distilrubert.common.training.progress import Progress
from distilrubert.common.training.update import Update

logger = logging.getLogger(__name__)


class RunLog:
    """The log of one run, whose `case` begins each line; only the main process shows anything."""

    def __init__(self, case: str, level: int, *, is_main: bool) -> None:
        self._case, self._level, self._is_main = case, level, is_main

    def info(self, message: str, *values: object) -> None:
        """Log the course of things at the run's level."""
        if self._is_main:
            logger.log(self._level, f"{self._case}: {message}", *values)

    def warning(self, message: str, *values: object) -> None:
        """Log what may need attention."""
        if self._is_main:
            logger.warning(f"{self._case}: {message}", *values)

    @contextlib.contextmanager
    def bar(self, total: int, done: int) -> Iterator["tqdm[NoReturn]"]:
        """A progress bar on standard error if that is a terminal, with the lines of the log above it."""
        # Of several runs at once, each in a process of its own, none draws a bar.
        is_shown = self._is_main and sys.stderr.isatty() and not multiprocessing.parent_process()
        with contextlib.ExitStack() as stack:
            if is_shown:
                stack.enter_context(logging_redirect_tqdm([logging.getLogger("distilrubert")]))
            bar: tqdm[NoReturn] = tqdm(
                total=total,
                initial=done,
                desc=self._case,
                unit="update",
                dynamic_ncols=True,
                leave=False,
                disable=not is_shown,
            )
            yield stack.enter_context(bar)


def advance(bar: "tqdm[NoReturn]", update: Update, progress: Progress) -> None:
    """Show one more update on the bar."""
    bar.set_postfix_str(f"{progress.tokens_per_s:.0f} tokens/s, {listed(update.losses)}", refresh=False)
    bar.update()


def listed(values: Mapping[str, float]) -> str:
    """Names and values in one line."""
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in values.items()
    )
