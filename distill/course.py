"""The course of a training run in index arithmetic: which batches make up which update."""

import dataclasses
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from distilrubert.distill.batching import plan_epoch
from distilrubert.distill.settings import OptimizationSettings


@dataclasses.dataclass(frozen=True)
class Stretch:
    """Consecutive updates within one epoch.

    Attributes:
        epoch: which one, from 0.
        first: index in the epoch's plan of the first batch below.
        batches: example indices of each batch; every `batches_per_update` of them make one update.
    """

    epoch: int
    first: int
    batches: list[NDArray[np.int64]]


class Course:
    """All updates of a run, a pure function of the example lengths, the settings and the seed.

    Update u of an epoch takes the batches [u·K, (u+1)·K) of that epoch's plan, K = `batches_per_update`,
    whatever the number of processes; so any update can be gone to directly.

    Attributes:
        total_steps: number of updates: those of all epochs, or `max_steps` if that is less.
    """

    def __init__(self, lengths: NDArray[np.int32], settings: OptimizationSettings, seed: int) -> None:
        self._lengths, self._settings, self._seed = lengths, settings, seed
        self._updates: list[int] = []
        for epoch in range(settings.epochs):
            self._updates.append(len(self._plan(epoch)) // settings.batches_per_update)
            if settings.max_steps is not None and sum(self._updates) >= settings.max_steps:
                break
        self.total_steps = min(sum(self._updates), settings.max_steps or sum(self._updates))

    def after(self, step: int) -> Iterator[Stretch]:
        """What is left to do when `step` updates are done, epoch by epoch."""
        start = 0
        for epoch, updates in enumerate(self._updates):
            end = min(start + updates, self.total_steps)
            if step < end:
                first, last = (max(step - start, 0), end - start)
                per_update = self._settings.batches_per_update
                yield Stretch(epoch, first * per_update, self._plan(epoch)[first * per_update : last * per_update])
            start += updates

    def _plan(self, epoch: int) -> list[NDArray[np.int64]]:
        return plan_epoch(
            self._lengths,
            batch_tokens=self._settings.batch_tokens,
            batches_per_update=self._settings.batches_per_update,
            seed=self._seed,
            epoch=epoch,
        )
