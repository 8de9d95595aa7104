"""Processes that tokenise, started once for a whole corpus."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Self

import pyarrow as pa

from distilrubert.common.errors import UserError
from distilrubert.common.processes import end_with

Encoder = Callable[[list[str]], pa.Table]

# A small corpus is done before a process has started.
TEXTS_WORTH_PROCESSES = 1_000
# Lists of texts that wait for each process: enough that it never waits itself.
WAITING = 4

_encoder: Encoder


class EncoderPool:
    """Turns lists of texts into tables while the caller goes on, on processes that start with the first real work.

    Args:
        encode: what turns texts into a table.
        processes: how many tokenise; with one, the calling process does it.

    Attributes:
        capacity: lists that may wait before the caller should take results.
    """

    def __init__(self, encode: Encoder, processes: int) -> None:
        self._encode = encode
        self._processes = processes
        self._texts = 0
        self._executor: ProcessPoolExecutor | None = None
        self.capacity = processes * WAITING if processes > 1 else 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._executor:
            self._executor.shutdown(wait=True, cancel_futures=True)

    def submit(self, texts: list[str]) -> Future[pa.Table]:
        """Have texts tokenised; :meth:`result` waits for their table."""
        self._texts += len(texts)
        if self._processes == 1 or self._texts <= TEXTS_WORTH_PROCESSES:
            done: Future[pa.Table] = Future()
            done.set_result(self._encode(texts))
            return done
        if self._executor is None:
            self._executor = ProcessPoolExecutor(self._processes, initializer=_set_up, initargs=(self._encode,))
        try:
            return self._executor.submit(_encode, texts)
        except BrokenProcessPool as error:
            raise self._killed() from error

    def result(self, future: Future[pa.Table]) -> pa.Table:
        """The table of texts that were submitted.

        Raises:
            UserError: if a process was killed.
        """
        try:
            return future.result()
        except BrokenProcessPool as error:
            raise self._killed() from error

    def _killed(self) -> UserError:
        return UserError(
            f"corpus: one of {self._processes} tokenising processes was killed, perhaps for lack of memory; set "
            "corpus.processes to fewer. Finished work is kept"
        )


def _set_up(encode: Encoder) -> None:
    """Set signals and threads of one of several tokenising processes."""
    global _encoder
    _encoder = encode
    # One thread a process; without this the tokenizer warns about the fork.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    # Ctrl-C reaches all processes; the main one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    end_with(multiprocessing.parent_process())


def _encode(texts: list[str]) -> pa.Table:
    return _encoder(texts)
