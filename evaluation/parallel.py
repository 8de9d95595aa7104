"""Independent pieces of work in several processes at once."""

import concurrent.futures
import contextlib
import logging
import logging.handlers
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, TypeVar

import torch
from tqdm.auto import tqdm

from distilrubert.modeling.errors import UserError

K = TypeVar("K", bound=Hashable)
R = TypeVar("R")

# Not by fork: a forked process inherits the locks of PyTorch's threads without the threads.
_SPAWN = multiprocessing.get_context("spawn")
_LOGGER = "distilrubert"


def run_all(jobs: Mapping[K, Callable[[], R]], processes: int, title: str) -> dict[K, R]:
    """The results of jobs by their keys. What is logged in another process comes out of this one's handlers.

    Args:
        jobs: what to do; with several processes they are pickled.
        processes: how many jobs run at once, each with its share of PyTorch's threads; with 1 they run here, one after
            another.
        title: of the progress bar over several processes.

    Raises:
        UserError: if a process ended without a word, as one that is short of memory does; and what a job raises. The
            others are then stopped.
    """
    if processes == 1 or len(jobs) < 2:
        return {key: job() for key, job in jobs.items()}
    with _forwarded_log() as records:
        settings = (
            records,
            logging.getLogger(_LOGGER).getEffectiveLevel(),
            max(1, torch.get_num_threads() // processes),
        )
        others = set(multiprocessing.active_children())
        with concurrent.futures.ProcessPoolExecutor(min(processes, len(jobs)), _SPAWN, _begin, settings) as executor:
            try:
                futures = {key: executor.submit(_do, job) for key, job in jobs.items()}
                finished = concurrent.futures.as_completed(futures.values())
                for future in tqdm(finished, total=len(jobs), desc=title, leave=False, disable=None):
                    future.result()
                return {key: future.result() for key, future in futures.items()}
            except BaseException as error:
                # Else an interrupted program would wait for what nobody wants any more.
                for child in set(multiprocessing.active_children()) - others:
                    child.terminate()
                if isinstance(error, concurrent.futures.BrokenExecutor):
                    raise UserError(
                        f"{title}: one of {processes} processes was ended from outside, perhaps for want of memory; "
                        "take fewer. What is finished is kept"
                    ) from error
                raise


def _do(job: Callable[[], R]) -> R:
    """Do a job in a process of its own, which ends where it is asked to once the job has left nothing behind."""
    try:
        return job()
    except SystemExit:
        os._exit(1)


@contextlib.contextmanager
def _forwarded_log() -> Iterator[Any]:
    """A queue whose records are handled here as if they had been logged here."""
    records = _SPAWN.Queue()
    listener = logging.handlers.QueueListener(records, _HandledHere())
    listener.start()
    try:
        yield records
    finally:
        listener.stop()


class _HandledHere(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        logging.getLogger(record.name).handle(record)


def _begin(records: Any, level: int, threads: int) -> None:
    """Prepare a new process."""
    # Ctrl-C reaches all; the parent deals with it, and asks by SIGTERM, which lets temporary folders be removed.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    torch.set_num_threads(threads)
    logger = logging.getLogger(_LOGGER)
    logger.addHandler(logging.handlers.QueueHandler(records))
    logger.setLevel(level)
    logger.propagate = False
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Nobody tells a process that its parent was killed: it would train on, and then wait for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
