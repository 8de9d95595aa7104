"""The processes of one launch: by itself, or started together by torchrun or ``accelerate launch``.

The first process does everything; the others join it in the stages that train. Between two of those they wait, for
days if need be, on the launch's key-value store: a barrier of the process group would time out while a corpus is
tokenised.
"""

import dataclasses
import datetime
import os
from typing import Self

from torch.distributed import PrefixStore, Store, rendezvous  # type: ignore[attr-defined]

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
        """As the launcher's environment variables say; alone without a launcher."""
        return cls(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))

    @property
    def leads(self) -> bool:
        """Whether this is the process that decides, writes and prints."""
        return self.rank == 0

    def announce(self, stage: str, *, perform: bool) -> None:
        """Tell the others, who :meth:`hear` it, whether a stage is to be performed."""
        if self.processes > 1:
            self._store().set(stage, "perform" if perform else "skip")

    def hear(self, stage: str) -> bool:
        """Wait for the leading process to say whether a stage is to be performed."""
        store = self._store()
        store.wait([stage], PATIENCE)
        return bool(store.get(stage) == b"perform")

    def _store(self) -> Store:
        store, _, _ = next(rendezvous("env://", self.rank, self.processes, timeout=PATIENCE))
        return PrefixStore("stages", store)
