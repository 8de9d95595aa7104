"""Processes that this one starts, or that it was started as; and the main memory of this one."""

import ctypes
import os
import resource
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

# What a system ends a job with: SIGUSR1 is what Slurm is usually asked to send some minutes before the time is over.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


def available_cores() -> int:
    """The cores that this process may use, where the system says so (Linux), else all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def is_first() -> bool:
    """Whether this is the first process of its launch, as its launcher says before the processes have met."""
    return os.environ.get("RANK", "0") == "0"


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
def stop_signals_as_interrupt() -> Iterator[None]:
    """Let `STOP_SIGNALS` be a KeyboardInterrupt: what ends at Ctrl-C ends then too, with all that it has started.

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

    previous = {number: signal.signal(number, stop) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def peak_memory_mib() -> float:
    """Largest resident memory of this process so far, MiB."""
    status = Path("/proc/self/status")
    # ru_maxrss also counts what the parent had when it forked this process, on Linux.
    if status.exists():
        for line in status.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**10
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def return_freed_memory() -> None:
    """Give the pages of freed tensors back to the system, where the C library is glibc; elsewhere do nothing.

    glibc keeps what tensors of changing sizes leave free between those that stay. In that way a CPU training whose
    batches differ in length comes to hold twice what it uses, and more the longer it lasts. (To have it map every large
    tensor by itself, which keeps nothing, makes training a third slower.)
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim:
        trim(0)
