"""Which batches make up which update of a training run, by index arithmetic."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from distilrubert.common.training.batching import plan_epoch
from distilrubert.common.training.training_settings import OptimizationSettings


class BatchPlan:
    """All updates of a run, a pure function of the example lengths, the settings and the seed.

    Update u of an epoch takes the batches [u·K, (u+1)·K) of that epoch's plan, K = `batches_per_update`, on any number
    of processes. So a resumed run goes directly to its next update.

    Attributes:
        total_steps: number of updates: those of all epochs, or `max_steps` if that is less.
    """

    def __init__(self, lengths: NDArray[np.int32], settings: OptimizationSettings, seed: int) -> None:
        self._lengths, self._settings, self._seed = lengths, settings, seed
        # Epochs differ in the order of their batches, not in their number.
        self._updates = len(self._plan(0)) // settings.batches_per_update
        every = self._updates * settings.epochs
        self.total_steps = min(every, settings.max_steps or every)

    def remaining(self, step: int) -> Iterator[tuple[int, int, list[NDArray[np.int64]]]]:
        """The updates after the first `step`, epoch by epoch.

        Yields:
            the number of the epoch, the place in its plan of the first batch, and the example indices of each batch.
        """
        per_update = self._settings.batches_per_update
        while step < self.total_steps:
            epoch, done = divmod(step, self._updates)
            first, last = done * per_update, min(self._updates, self.total_steps - epoch * self._updates) * per_update
            yield epoch, first, self._plan(epoch)[first:last]
            step = (epoch + 1) * self._updates

    def ends_epoch(self, step: int) -> bool:
        """Whether the first `step` updates end with the last one of an epoch, or of the run."""
        return step % self._updates == 0 or step == self.total_steps

    def _plan(self, epoch: int) -> list[NDArray[np.int64]]:
        return plan_epoch(
            self._lengths,
            batch_tokens=self._settings.batch_tokens,
            batch_size=self._settings.batch_size,
            batches_per_update=self._settings.batches_per_update,
            seed=self._seed,
            epoch=epoch,
        )
