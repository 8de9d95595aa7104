"""The main memory of this process: how much it has held, and giving back what it no longer needs."""

import ctypes
import resource
import sys
from pathlib import Path


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
