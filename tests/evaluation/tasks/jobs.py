"""What test_parallel has other processes do. It imports little, so that they begin soon."""

import os
import signal
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import torch
from tqdm.auto import tqdm

from distilrubert.common.errors import UserError
from distilrubert.evaluation.tasks.parallel import run_all

PATIENCE_S = 600


def describe(name: str) -> tuple[str, int, int]:
    return name, os.getpid(), torch.get_num_threads()


def kill_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def refuse(seconds: float) -> None:
    time.sleep(seconds)
    raise UserError("no good")


def refuse_when_there_is(path: Path) -> None:
    while not path.exists():
        time.sleep(0.01)
    refuse(0)


def write_pid(path: Path) -> None:
    with tempfile.TemporaryDirectory(), tqdm.get_lock():
        path.write_text(str(os.getpid()))
        time.sleep(PATIENCE_S)


if __name__ == "__main__":
    dict(run_all({path: partial(write_pid, Path(path)) for path in sys.argv[1:]}, 2, "jobs"))
