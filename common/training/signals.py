"""Signals that ask the training loop to save its work and end."""

import logging
import signal
import threading
from types import FrameType
from typing import Self

from accelerate import PartialState

from distilrubert.common.processes import STOP_SIGNALS

logger = logging.getLogger(__name__)


class Interrupted(KeyboardInterrupt):
    """Training was stopped by a signal after its work had been saved; the same call continues from there.

    A :class:`KeyboardInterrupt`, so that whatever stops at Ctrl-C stops here too (exit status 130).
    """


class StopRequest:
    """A context in which Ctrl-C and `STOP_SIGNALS` only set :attr:`received`; a second Ctrl-C stops at once.

    Outside the main thread, where Python delivers no signals, it changes nothing.

    Args:
        enabled: False leaves the signals as they are.
    """

    def __init__(self, *, enabled: bool = True) -> None:
        self.received = False
        self._enabled = enabled
        self._previous: dict[signal.Signals, signal._HANDLER] = {}

    def __enter__(self) -> Self:
        if self._enabled and threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, *STOP_SIGNALS)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self.received and PartialState().is_main_process:
            logger.warning("asked to stop: saving a checkpoint first; Ctrl-C now stops without one")
        self.received = True
