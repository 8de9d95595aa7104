"""The process that one case of a speed measurement has for itself.

``python -m distilrubert.evaluation.speed.speed_worker``

It reads a command a line on standard input and answers each with a line on standard output, both JSON:
``{"open": {folder, backend, device, threads}}``, ``{"measure": {batch_size, sequence_length, vocabulary, seed, warmup,
minimum_time_s}}``, ``{"memory": {}}``. It ends when its input does.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from distilrubert.common.memory import peak_memory_mib
from distilrubert.evaluation.speed.backends import BACKENDS, Session


class Worker:
    """Answers the commands; a method for each."""

    def __init__(self) -> None:
        self._session: Session | None = None
        self._device = "cpu"

    def open(self, *, folder: str, backend: str, device: str, threads: int) -> dict[str, Any]:
        """Load the model."""
        self._session = BACKENDS[backend].open(Path(folder), device, threads)
        self._device = device
        return {}

    def measure(
        self, *, batch_size: int, sequence_length: int, vocabulary: int, seed: int, warmup: int, minimum_time_s: float
    ) -> dict[str, Any]:
        """Seconds of each of as many passes as fill the time, at least one, after `warmup` passes that do not count."""
        assert self._session is not None
        ids_BL = np.random.default_rng(seed).integers(0, vocabulary, (batch_size, sequence_length), dtype=np.int64)
        forward = self._session(ids_BL)
        for _ in range(warmup):
            forward()
        seconds: list[float] = []
        while sum(seconds) < minimum_time_s or not seconds:
            begin = time.perf_counter()
            forward()
            seconds.append(time.perf_counter() - begin)
        return {"seconds": seconds}

    def memory(self) -> dict[str, Any]:
        """The most memory that this process, and its tensors on the GPU, ever took."""
        peaks = {"peak_memory_mib": peak_memory_mib()}
        if self._device == "cuda":
            import torch

            peaks["gpu_peak_memory_mib"] = torch.cuda.max_memory_allocated() / 2**20
        return peaks


def serve(worker: object) -> None:
    """Answer commands until standard input ends: each names a method of the worker and gives its arguments."""
    # Libraries may print; the answers get a descriptor of their own, and what is printed goes to standard error.
    with os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1) as answers:
        os.dup2(2, 1)
        for line in sys.stdin:
            ((command, arguments),) = json.loads(line).items()
            answers.write(json.dumps(getattr(worker, command)(**arguments)) + "\n")


if __name__ == "__main__":
    serve(Worker())
