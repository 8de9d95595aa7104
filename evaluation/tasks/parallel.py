"""Independent jobs in several processes at once."""

import concurrent.futures
import multiprocessing
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import TypeVar

import torch
import tqdm.std

from distilrubert.common.bars import tracked
from distilrubert.common.errors import UserError
from distilrubert.common.processes import end_with

K = TypeVar("K", bound=Hashable)
R = TypeVar("R")

# A forked process would inherit the locks of PyTorch's threads without the threads.
_SPAWN = multiprocessing.get_context("spawn")


def run_all(jobs: Mapping[K, Callable[[], R]], processes: int, title: str) -> Iterator[tuple[K, R]]:
    """Run jobs and yield each result with its key, in the order in which they finish.

    Args:
        jobs: by key; with several processes they are pickled, and only their warnings are logged.
        processes: number of jobs at once, each with its share of PyTorch's threads; with 1 they run in this process.
        title: of the progress bar, which several processes have.

    Raises:
        UserError: if a process was killed, as for want of memory. What a job raises is raised too. In both cases the
            other jobs are stopped.
    """
    if processes == 1 or len(jobs) < 2:
        yield from ((key, job()) for key, job in jobs.items())
        return
    others = set(multiprocessing.active_children())
    processes = min(processes, len(jobs))
    threads = max(1, torch.get_num_threads() // processes)
    # The temporary files of all jobs are removed at the end, however a job ends.
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        concurrent.futures.ProcessPoolExecutor(processes, _SPAWN, _begin, (threads, folder)) as executor,
    ):
        try:
            keys = {executor.submit(job): key for key, job in jobs.items()}
            # The executor checks its processes only when it starts one for a job. This job makes it check the last one.
            executor.submit(os.getpid)
            finished = concurrent.futures.as_completed(keys)
            for future in tracked(finished, title, unit="run", total=len(jobs)):
                yield keys[future], future.result()
        except BaseException as error:
            # Otherwise an interrupted program would wait for the running jobs.
            for child in set(multiprocessing.active_children()) - others:
                child.terminate()
            if isinstance(error, concurrent.futures.BrokenExecutor):
                raise UserError(
                    f"{title}: one of {processes} processes was killed, perhaps for want of memory; use fewer "
                    "processes. Finished runs are kept"
                ) from error
            raise


def _begin(threads: int, temporary_folder: str) -> None:
    """Prepare a new process."""
    # Ctrl-C reaches all processes. The parent handles it and stops the others with SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    tempfile.tempdir = temporary_folder
    # The lock that bars have by default is shared by processes: one that is stopped would leave its semaphore behind.
    tqdm.std.tqdm.set_lock(threading.RLock())
    torch.set_num_threads(threads)
    end_with(multiprocessing.parent_process())
