"""Freed memory stays with the process."""

import subprocess
import sys

import pytest

CODE = """
import resource, sys, torch
from distilrubert.modeling.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for size in (8, 64, 33, 128) * 4:
        torch.empty(size * 2**18).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if sys.argv[1] == "keep":
    keep_freed_memory()
faults()
print(faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator is meant")
def test_pages_are_not_asked_for_again():
    faults = {
        mode: int(subprocess.run([sys.executable, "-c", CODE, mode], capture_output=True, text=True, check=True).stdout)
        for mode in ("keep", "give")
    }
    # The second round takes 932 MiB, in pages of 4 KiB, from what the first has freed.
    assert faults["give"] > 200_000
    assert faults["keep"] < 60_000
