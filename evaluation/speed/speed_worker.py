"""The process in which one case of a speed measurement runs alone.

``python -m distilrubert.evaluation.speed.speed_worker``

It reads a command a line on standard input and answers each with a line on standard output, both JSON:
``{"open": {folder, case, device, threads}}``, ``{"measure": {batch_size, sequence_length, vocabulary, seed, warmup,
minimum_time_s}}``, ``{"measure_texts": {texts, tokenizer, padding_id, batch_size, sequence_length, warmup,
minimum_time_s}}``, ``{"memory": {}}``. It ends when its input does.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilrubert.common.formats import CASES
from distilrubert.common.processes import peak_memory_mib
from distilrubert.modeling.runtimes import Inputs, OpenModel, open_model


class Worker:
    """Answers the commands; a method for each."""

    def __init__(self) -> None:
        self._model: OpenModel | None = None
        self._device = "cpu"

    def open(
        self, *, folder: str, case: str, device: str, threads: int, task: str = "feature-extraction"
    ) -> dict[str, Any]:
        """Load the model."""
        opened = CASES[case]
        self._model = open_model(Path(folder), opened.format, task, device=device, threads=threads, hint=opened.hint)
        self._device = device
        return {}

    def measure(
        self, *, batch_size: int, sequence_length: int, vocabulary: int, seed: int, warmup: int, minimum_time_s: float
    ) -> dict[str, Any]:
        """Seconds of each pass of :func:`timed_passes` over a batch of random sequences."""
        assert self._model is not None
        ids_BL = np.random.default_rng(seed).integers(0, vocabulary, (batch_size, sequence_length), dtype=np.int64)
        forward = self._model.prepare(whole_sequences(ids_BL))
        return {"seconds": timed_passes(forward, warmup, minimum_time_s)}

    def measure_texts(
        self,
        *,
        texts: list[Any],
        tokenizer: str,
        padding_id: int,
        batch_size: int,
        sequence_length: int,
        warmup: int,
        minimum_time_s: float,
    ) -> dict[str, Any]:
        """Seconds of a batch, the mean over all texts, in each pass of :func:`timed_passes` over them.

        A pass tokenises and runs every batch; texts of like length are batched together. A text may be a pair.
        ``tokens_per_text`` is their mean length.
        """
        # Not transformers' tokenizer around it: importing that loads PyTorch.
        from tokenizers import Tokenizer

        encoder = Tokenizer.from_file(tokenizer)
        encoder.enable_truncation(sequence_length)
        encoder.enable_padding(pad_id=padding_id)
        ordered = sorted(texts, key=lambda text: sum(map(len, text)))
        given = [tuple(text) if isinstance(text, list) else text for text in ordered]
        batches = [given[start : start + batch_size] for start in range(0, len(given), batch_size)]

        def forward() -> None:
            assert self._model is not None
            for batch in batches:
                self._model.prepare(_inputs_of(encoder.encode_batch(batch)))()

        tokens = sum(sum(encoding.attention_mask) for encoding in encoder.encode_batch(given))
        seconds = timed_passes(forward, warmup, minimum_time_s)
        return {
            "seconds": [taken * batch_size / len(texts) for taken in seconds],
            "tokens_per_text": tokens / len(texts),
        }

    def memory(self) -> dict[str, Any]:
        """The most memory that this process, and its tensors on the GPU, ever took."""
        peaks = {"peak_memory_mib": peak_memory_mib()}
        if self._device == "cuda":
            import torch

            peaks["gpu_peak_memory_mib"] = torch.cuda.max_memory_allocated() / 2**20
        return peaks


def timed_passes(forward: Callable[[], object], warmup: int, minimum_time_s: float) -> list[float]:
    """Seconds of each of as many passes as fill the time, at least one, after `warmup` passes that do not count.

    After a warm-up that takes longer than that time no other follows: it would cost minutes and change little.
    """

    def timed() -> float:
        begin = time.perf_counter()
        forward()
        return time.perf_counter() - begin

    for _ in range(warmup):
        if timed() > minimum_time_s:
            break
    seconds: list[float] = []
    while sum(seconds) < minimum_time_s or not seconds:
        seconds.append(timed())
    return seconds


def _inputs_of(encodings: list[Any]) -> Inputs:
    columns = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
    return {
        name: np.array([getattr(encoding, column) for encoding in encodings], dtype=np.int64)
        for name, column in columns.items()
    }


def whole_sequences(ids_BL: NDArray[np.int64]) -> Inputs:
    """The inputs of a model for token ids without padding."""
    return {"input_ids": ids_BL, "attention_mask": np.ones_like(ids_BL), "token_type_ids": np.zeros_like(ids_BL)}


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
