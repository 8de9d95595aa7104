"""Freed memory stays with the process."""

import subprocess
import sys

import pytest

CODE = """
import resource, sys, torch
from distilrubert.modeling.memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
for _ in range(10):
    torch.empty(16 * 2**20).fill_(1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator is meant")
def test_pages_are_not_asked_for_again():
    faults = {
        mode: int(subprocess.run([sys.executable, "-c", CODE, mode], capture_output=True, text=True, check=True).stdout)
        for mode in ("keep", "give")
    }
    # 10 tensors of 64 MiB are 163,840 pages of 4 KiB; glibc keeps smaller ones by itself.
    assert faults["give"] - faults["keep"] > 120_000
