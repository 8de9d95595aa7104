"""A client in a process of its own, to be killed: `python victim.py` forks one for every line on its standard input.

A line is JSON: folder, settings, endpoint, token. It answers with the process id of the fork, which begins when it
gets another line, and with the exit status in the end. Forking an interpreter that has imported everything takes
milliseconds where starting one takes seconds.
"""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Self

import torch
from huggingface_hub import constants
from tqdm import tqdm

from distilrubert.pipeline.hub.connection import RetryPolicy, connect
from distilrubert.pipeline.hub.publish_settings import PublishSettings
from distilrubert.pipeline.hub.push import push_folder
from distilrubert.pipeline.hub.space import SpacePublisher


class Victim:
    """This file as a process, from the side of the test."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=300)

    def prepare(self, folder: Path, settings: PublishSettings, endpoint: str, token: str) -> int:
        """Make a process that is ready to publish, and tell its id."""
        task = {"folder": str(folder), "settings": settings.model_dump(), "endpoint": endpoint, "token": token}
        self._tell(json.dumps(task))
        return self._number()

    def publish(self) -> int:
        """Let it publish, and tell its exit status; minus the number of the signal that killed it."""
        self._tell("go")
        return self._number()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _number(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())


def main() -> None:
    constants.HF_HUB_DISABLE_XET = True
    for line in sys.stdin:
        task = json.loads(line)
        begin, begun = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.read(begin, 1)
            os._exit(_publish(task))
        _say(pid)
        sys.stdin.readline()
        os.write(begun, b"x")
        _say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        os.close(begin)
        os.close(begun)


def _publish(task: dict[str, Any]) -> int:
    os.environ["HF_TOKEN"] = task["token"]
    # tqdm's own lock is shared between forks: the next one would wait for ever for one that was killed holding it.
    tqdm.set_lock(threading.RLock())
    try:
        torch.set_num_threads(1)
        settings = PublishSettings(**task["settings"])
        folder, endpoint, once = Path(task["folder"]), task["endpoint"], RetryPolicy(attempts=1)
        if settings.space:
            publish_with_page(folder, settings, endpoint, once)
        else:
            push_folder(folder, settings, endpoint, once)
    except BaseException as error:
        sys.stderr.write(f"{error!r}\n")
        return 1
    return 0


def publish_with_page(folder: Path, settings: PublishSettings, endpoint: str, retry: RetryPolicy) -> None:
    """As the command does it, but for the checks of the model."""
    space = SpacePublisher(folder, settings, connect(settings, endpoint, retry))
    space.create(space.plan(None))
    space.publish(push_folder(folder, settings, endpoint, retry, download=False).revision)


def _say(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
