"""Processes that tokenise, started once for a whole corpus."""

import multiprocessing
import os
import queue
import signal
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Self

import pyarrow as pa

from distilrubert.common.errors import UserError
from distilrubert.common.processes import end_with

Encoder = Callable[[list[str]], pa.Table]

# A small corpus is done before a process has started.
TEXTS_WORTH_PROCESSES = 1_000
# Lists of texts that wait for each process: enough that it never waits itself.
WAITING = 4


class EncoderPool:
    """Turns lists of texts into tables while the caller goes on, on processes that start with the first real work.

    Each process has a connection and a thread of its own that waits for it. (The processes of a ProcessPoolExecutor
    share a queue for results: one that is killed while it writes to it leaves the others waiting for ever.)

    Args:
        encode: what turns texts into a table.
        processes: how many tokenise; with one, the calling process does it.

    Attributes:
        capacity: lists that may wait before the caller should take results.
    """

    def __init__(self, encode: Encoder, processes: int) -> None:
        self._encode = encode
        self._count = processes
        self._texts = 0
        self._processes: list[multiprocessing.process.BaseProcess] = []
        self._threads: ThreadPoolExecutor | None = None
        self._of_thread = threading.local()
        self.capacity = processes * WAITING if processes > 1 else 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.terminate()
            process.join()
        if self._threads:
            self._threads.shutdown(wait=True, cancel_futures=True)

    def submit(self, texts: list[str]) -> Future[pa.Table]:
        """Have texts tokenised.

        The result of the future is their table, or a UserError if a process was killed.
        """
        self._texts += len(texts)
        if self._count == 1 or self._texts <= TEXTS_WORTH_PROCESSES:
            done: Future[pa.Table] = Future()
            done.set_result(self._encode(texts))
            return done
        if self._threads is None:
            self._threads = self._start()
        return self._threads.submit(self._ask, texts)

    def _start(self) -> ThreadPoolExecutor:
        connections: queue.SimpleQueue[Connection] = queue.SimpleQueue()
        for _ in range(self._count):
            ours, theirs = multiprocessing.Pipe()
            process = multiprocessing.Process(target=_work, args=(self._encode, theirs), daemon=True)
            process.start()
            # A later process would inherit it, and the end of this one would go unnoticed.
            theirs.close()
            self._processes.append(process)
            connections.put(ours)

        def take() -> None:
            self._of_thread.connection = connections.get()

        return ThreadPoolExecutor(self._count, initializer=take)

    def _ask(self, texts: list[str]) -> pa.Table:
        connection: Connection = self._of_thread.connection
        try:
            connection.send(texts)
            answer = connection.recv()
        except (EOFError, OSError) as error:
            raise UserError(
                f"corpus: one of {self._count} tokenising processes was killed, perhaps for lack of memory; set "
                "corpus.processes to fewer. Finished work is kept"
            ) from error
        if isinstance(answer, BaseException):
            raise answer
        return answer


def _work(encode: Encoder, connection: Connection) -> None:
    """Be one of several tokenising processes."""
    # One thread a process; without this the tokenizer warns about the fork.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    # Ctrl-C reaches all processes; the main one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    end_with(multiprocessing.parent_process())
    while True:
        texts = connection.recv()
        try:
            answer: object = encode(texts)
        except Exception as error:
            error.add_note(f"in a tokenising process:\n{traceback.format_exc()}")
            answer = error
        connection.send(answer)
