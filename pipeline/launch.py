"""The processes of one launch: by itself, or started together by torchrun or ``accelerate launch``.

The first process does everything; the others join it in the stages that train. Between two of those they wait, if
necessary for days, on the key-value store of the launch: a barrier of the process group would time out while a corpus
is tokenised.
"""

import dataclasses
import datetime
import functools
import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from distilrubert.common.errors import UserError

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]

# What torchrun and accelerate launch set for the processes that they start.
LAUNCHER_VARIABLES = (
    "RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "MASTER_",
    "TORCHELASTIC_", "TORCH_NCCL_", "ACCELERATE_",
)  # fmt: skip
# Set for the command that goes on alone: what was new on the Hub has been taken already.
CONTINUED = "DISTILRUBERT_CONTINUED"
PATIENCE = datetime.timedelta(days=30)


@dataclasses.dataclass(frozen=True)
class Launch:
    """This process's place among those that were started together.

    Attributes:
        rank: its number; 0 leads.
        processes: how many there are, on all machines.
    """

    rank: int = 0
    processes: int = 1

    @classmethod
    def of_this_process(cls) -> Self:
        """As the launcher's environment variables say; alone without a launcher.

        Raises:
            UserError: if they hold no numbers.
        """
        return cls(_number("RANK", 0), _number("WORLD_SIZE", 1))

    @classmethod
    def of_independent_processes(cls) -> Self:
        """As :meth:`of_this_process`, also of the processes that Slurm's ``srun`` starts: for work without messages.

        Raises:
            UserError: if the environment variables hold no numbers.
        """
        if "RANK" in os.environ:
            return cls.of_this_process()
        return cls(_number("SLURM_PROCID", 0), _number("SLURM_NTASKS", 1))

    @property
    def leads(self) -> bool:
        """Whether this is the process that decides, writes and prints."""
        return self.rank == 0

    def send(self, key: str, message: str) -> None:
        """Give the other processes a message, which each waits for with :meth:`receive`."""
        if self.processes > 1:
            _store(*self._address()).set(key, message)

    def receive(self, key: str) -> str:
        """Wait for the message of the leading process."""
        store = _store(*self._address())
        # Not with the store's own wait(), in which no signal is heeded.
        _wait_until(lambda: store.check([key]), PATIENCE)
        message = store.get(key).decode()
        store.add(_readers(key), 1)
        return str(message)

    def wait_until_read(self, key: str) -> None:
        """Wait, at most 5 minutes, until the others have read a message: the store may end with this process."""
        if self.processes > 1:
            store = _store(*self._address())
            _wait_until(lambda: store.add(_readers(key), 0) >= self.processes - 1, datetime.timedelta(minutes=5))

    def go_on_alone(self) -> None:
        """Leave the launch: the leading process begins its command anew, without the others.

        Libraries that see the launcher's variables or its process group wait for processes that have ended. What is
        done already is not done again, so beginning anew only costs the imports.
        """
        if self.processes > 1:
            from distilrubert.common.training.ranks import destroy_process_group

            destroy_process_group()
            alone = {name: value for name, value in os.environ.items() if not name.startswith(LAUNCHER_VARIABLES)}
            # What torchrun sets for the sake of the others; `speed.threads` is for who wants one.
            if "TORCHELASTIC_RUN_ID" in os.environ and alone.get("OMP_NUM_THREADS") == "1":
                del alone["OMP_NUM_THREADS"]
            os.execve(sys.executable, sys.orig_argv, {**alone, CONTINUED: "1"})  # noqa: S606  our own command

    def _address(self) -> tuple[int, int, str | None, str | None]:
        return self.rank, self.processes, os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT")


@functools.cache
def _store(rank: int, processes: int, _address: str | None, _port: str | None) -> "Store":
    """The store of the launch, kept: without torchrun the leading process serves it for as long as it holds it."""
    from torch.distributed import PrefixStore, rendezvous  # type: ignore[attr-defined]

    store, _, _ = next(rendezvous("env://", rank, processes, timeout=PATIENCE))
    return PrefixStore("stages", store)


def _wait_until(is_so: Callable[[], bool], patience: datetime.timedelta) -> None:
    end = time.monotonic() + patience.total_seconds()
    while not is_so() and time.monotonic() < end:
        time.sleep(0.1)


def _readers(key: str) -> str:
    """Where is counted how many processes have read a message."""
    return f"readers of {key}"


def _number(variable: str, default: int) -> int:
    text = os.environ.get(variable, str(default))
    try:
        return int(text)
    except ValueError:
        raise UserError(f"{variable}={text}: a launcher sets this environment variable to a number; unset it") from None
