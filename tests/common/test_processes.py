"""What a process holds, and what it gives back. In processes of their own: a peak is one of the whole life."""

import subprocess
import sys

import pytest

PEAK = """
from distilrubert.common.processes import peak_memory_mib
before = peak_memory_mib()
held = bytearray(200 * 2**20)
for place in range(0, len(held), 4096):
    held[place] = 1
del held
print(peak_memory_mib() - before)
"""
# Blocks of 64 KiB come from the heap. Every second one is freed, so that no end of it is free.
FREED = """
import psutil
from distilrubert.common.processes import return_freed_memory
blocks = [bytes([index % 256]) * 2**16 for index in range(4096)]
del blocks[::2]
held = psutil.Process().memory_info().rss
return_freed_memory()
print((held - psutil.Process().memory_info().rss) / 2**20)
"""


def mib(program: str) -> float:
    return float(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout)


def test_the_peak_counts_what_was_held_and_freed() -> None:
    assert 190 < mib(PEAK) < 220


@pytest.mark.skipif(sys.platform != "linux", reason="other C libraries than glibc give pages back by themselves")
def test_pages_between_those_in_use_are_given_back() -> None:
    # Of the 128 MiB that are freed, all but the pages that a block shares with its neighbours.
    assert mib(FREED) > 100
