"""Independent pieces of work in several processes at once."""

import concurrent.futures
import multiprocessing
import os
import signal
import tempfile
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import TypeVar

import torch
from tqdm.auto import tqdm

from distilrubert.common.errors import UserError
from distilrubert.common.processes import end_with

K = TypeVar("K", bound=Hashable)
R = TypeVar("R")

# Not by fork: a forked process inherits the locks of PyTorch's threads without the threads.
_SPAWN = multiprocessing.get_context("spawn")


def run_all(jobs: Mapping[K, Callable[[], R]], processes: int, title: str) -> Iterator[tuple[K, R]]:
    """The results of jobs with their keys, as they are finished.

    Args:
        jobs: what to do; with several processes they are pickled, and what they log below a warning is not seen.
        processes: how many jobs run at once, each with its share of PyTorch's threads; with 1 they run here, one after
            another.
        title: of the progress bar over several processes.

    Raises:
        UserError: if a process ended without a word, as one that is short of memory does; and what a job raises. The
            others are then stopped.
    """
    if processes == 1 or len(jobs) < 2:
        yield from ((key, job()) for key, job in jobs.items())
        return
    others = set(multiprocessing.active_children())
    processes = min(processes, len(jobs))
    threads = max(1, torch.get_num_threads() // processes)
    # What they leave in their temporary folder is removed when all have ended, in whatever way.
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        concurrent.futures.ProcessPoolExecutor(processes, _SPAWN, _begin, (threads, folder)) as executor,
    ):
        try:
            keys = {executor.submit(job): key for key, job in jobs.items()}
            # The executor looks at its processes before it starts one for a job, and would not see the last one's end.
            executor.submit(os.getpid)
            finished = concurrent.futures.as_completed(keys)
            for future in tqdm(finished, total=len(jobs), desc=title, leave=False, disable=None):
                yield keys[future], future.result()
        except BaseException as error:
            # Else an interrupted program would wait for what nobody wants any more.
            for child in set(multiprocessing.active_children()) - others:
                child.terminate()
            if isinstance(error, concurrent.futures.BrokenExecutor):
                raise UserError(
                    f"{title}: one of {processes} processes was ended from outside, perhaps for want of memory; take "
                    "fewer. What is finished is kept"
                ) from error
            raise


def _begin(threads: int, temporary_folder: str) -> None:
    """Prepare a new process."""
    # Ctrl-C reaches all. The parent deals with it, and ends the others by SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    tempfile.tempdir = temporary_folder
    torch.set_num_threads(threads)
    end_with(multiprocessing.parent_process())
