"""Spare a process that trains on a CPU from asking for its memory anew in every step."""

import ctypes
import functools
import platform

# Numbers of glibc's mallopt parameters, from its malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 2**31 - 1


@functools.cache
def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory for the next step instead of giving it back.

    Tensors of some megabytes are otherwise mapped and unmapped each time, and the kernel clears every fresh page: a
    training step of a 6-layer, 384-wide model on 4,096 tokens took 1.1 to 1.3 times as long. The process holds on to
    its largest use of memory. Where there is no glibc nothing happens.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_THRESHOLD, 2**30)
    libc.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
