"""Processes that this one starts, or that it was started as."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


def available_cores() -> int:
    """The cores that this process may use, where the system says so (Linux), else all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def end_with(parent: Any) -> None:
    """Let this process end with its parent, which ``parent_process()`` of `multiprocessing` or `multiprocess` returns.

    Nobody tells a process that its parent was killed: it would work on, and then wait for ever.
    """
    assert parent is not None, "for processes that another has started"

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Let SIGTERM be a KeyboardInterrupt, so that what ends at Ctrl-C ends then too, with all that it has started.

    A process forked from this one just ends. Outside the main thread, where Python delivers no signals, nothing
    changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:
            os._exit(128 + number)
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
