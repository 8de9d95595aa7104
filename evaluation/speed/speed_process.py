"""The measuring side's handle on a :mod:`~distilrubert.evaluation.speed.speed_worker` process."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, Self

from distilrubert.common.errors import UserError

WORKER = ("-m", "distilrubert.evaluation.speed.speed_worker")


class SpeedProcess:
    """A process for one case; it is started at once and ended with the block.

    Commands to several of these can overlap: :meth:`send` to each, then :meth:`receive` from each.
    """

    def __init__(
        self, name: str, threads: int, program: Sequence[str] = WORKER, environment: Mapping[str, str] | None = None
    ) -> None:
        """Start what Python runs as `program` with so many threads for matrix libraries; `name` is for messages."""
        self._name = name
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed in __exit__; a pipe could fill and block it)
        limits = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
        self._process = subprocess.Popen(
            [sys.executable, *program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            encoding="utf-8",
            env={**os.environ, **limits, **(environment or {})},
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def send(self, command: str, **arguments: Any) -> None:
        """Give it a command; a UserError if it has died."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({command: arguments}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._death() from None

    def receive(self) -> dict[str, Any]:
        """Wait for its answer; a UserError if it died instead."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._death()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Give it a command and wait for the answer."""
        self.send(command, **arguments)
        return self.receive()

    def _death(self) -> UserError:
        status = self._process.wait()
        self._errors.seek(0)
        said = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        if status < 0:
            reason = f"it was ended by {signal.Signals(-status).name}"
            if -status == signal.SIGKILL:
                reason += "; there may be too little memory"
        else:
            reason = said[-1] if said else f"it ended with status {status}"
        return UserError(f"speed of {self._name}: the measuring process died: {reason}")
