"""Which batches make up which update of a run, and their loaders.

Legend: N examples, B rows of a batch, L its padded width.
"""

import signal
from collections.abc import Iterator, Sequence
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from distilrubert.common.errors import UserError
from distilrubert.common.training.padding import WIDTH_STEP, padded_widths
from distilrubert.common.training.training_settings import OptimizationSettings

GPU_WORKERS = 2

Example = TypeVar("Example")
Example_co = TypeVar("Example_co", covariant=True)
Example_contra = TypeVar("Example_contra", contravariant=True)


class Examples(Protocol[Example_co]):
    """The training data: examples by index, with their lengths."""

    @property
    def lengths(self) -> NDArray[np.int32]:
        """Tokens of each example, (N,)."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example_co: ...


class Collator(Protocol[Example_contra]):
    """Makes a batch of examples: masks where the task needs it, pads."""

    def collate(self, examples: Sequence[Example_contra], epoch: int, indices: Sequence[int]) -> dict[str, Tensor]:
        """Mask and pad examples, given with their indices. What is drawn for one does not depend on the others."""
        ...


def plan_epoch(
    lengths: NDArray[np.int32],
    *,
    batch_tokens: int,
    batches_per_update: int,
    seed: int,
    epoch: int,
    batch_size: int | None = None,
) -> list[NDArray[np.int64]]:
    """The batches of an epoch, a pure function of the arguments: the indices of the examples of each.

    Examples are shuffled by `seed` and `epoch`, then sorted by padded width and cut, so that a batch has at most
    `batch_size` rows (None: any number), and at most `batch_tokens` tokens with padding. What is left over of one width
    goes to the next wider one. Then the batches are shuffled. Their number is a multiple of `batches_per_update`, over
    all ranks and accumulation steps: the batches with most tokens are halved until it is. Every example of `lengths`,
    (N,), is in exactly one batch.

    Raises:
        UserError: if one example alone is longer than `batch_tokens`, or there are too few for one update.
    """
    widths = padded_widths(lengths)
    if len(widths) and widths.max() > batch_tokens:
        raise UserError(
            f"batch_tokens: {batch_tokens} is less than the longest sequence, {widths.max()} tokens when padded"
        )
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch])))
    order = generator.permutation(len(widths))
    # On 16-bit keys the stable sort is a radix sort: a second for ten million examples.
    order = order[np.argsort((widths[order] // WIDTH_STEP).astype(np.uint16), kind="stable")]
    batches = _split_largest(_cut(order, widths[order], batch_tokens, batch_size), lengths, batches_per_update)
    return [batches[i] for i in generator.permutation(len(batches))]


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


def _cut(
    order: NDArray[np.int64], widths: NDArray[np.int32], batch_tokens: int, batch_size: int | None
) -> list[NDArray[np.int64]]:
    """Cut examples that are sorted by width into batches within the limits."""
    batches: list[NDArray[np.int64]] = []
    start = 0
    for end in (np.flatnonzero(np.diff(widths, append=0)) + 1).tolist():
        rows = min(batch_tokens // int(widths[end - 1]), batch_size or len(order))
        stop = start + (end - start) // rows * rows
        batches += list(order[start:stop].reshape(-1, rows))
        start = stop
    return [*batches, order[start:]] if start < len(order) else batches


def _split_largest(
    batches: list[NDArray[np.int64]], lengths: NDArray[np.int32], batches_per_update: int
) -> list[NDArray[np.int64]]:
    """Halve the batches with most tokens, padded, until their number is a multiple of `batches_per_update`."""
    missing = -len(batches) % batches_per_update
    sequences = sum(map(len, batches))
    if len(batches) + missing > sequences:
        raise UserError(
            f"batches_per_update: {batches_per_update} batches cannot be made of {sequences} sequences; at most one of "
            "each can"
        )

    def size(batch: NDArray[np.int64]) -> int:
        return len(batch) * int(padded_widths(lengths[batch]).max()) if len(batch) > 1 else 0

    sizes = [size(batch) for batch in batches] if missing else []
    for _ in range(missing):
        largest = int(np.argmax(sizes))
        halves = np.array_split(batches[largest], 2)
        batches[largest : largest + 1] = halves
        sizes[largest : largest + 1] = map(size, halves)
    return batches


def _ignore_signals(_: int) -> None:
    """Ignore what asks a whole group to stop: the training process saves first and then ends its workers."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


class CollatedBatches(Dataset[dict[str, Tensor]], Generic[Example]):
    """The given batches of an epoch, masked and padded when they are asked for."""

    def __init__(
        self, examples: Examples[Example], collator: Collator[Example], batches: Sequence[NDArray[np.int64]], epoch: int
    ) -> None:
        self._examples, self._collator, self._batches, self._epoch = examples, collator, batches, epoch

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        indices = self._batches[number].tolist()
        return self._collator.collate([self._examples[index] for index in indices], self._epoch, indices)


def choose_workers(wanted: int | None, device: torch.device) -> int:
    """`wanted`, or for None two with a GPU, which should not wait for batches, and none on a CPU."""
    if wanted is not None:
        return wanted
    return GPU_WORKERS if device.type == "cuda" else 0


def build_loader(
    examples: Examples[Example],
    collator: Collator[Example],
    batches: Sequence[NDArray[np.int64]],
    *,
    epoch: int,
    num_workers: int = 0,
    pin_memory: bool = False,
) -> DataLoader[dict[str, Tensor]]:
    """A loader of the given batches in their order; what it yields does not depend on `num_workers`.

    Slice the plan to begin at some batch or to take a rank's share; batches that are left out cost nothing.

    Args:
        examples: what is batched.
        collator: makes the batches.
        batches: indices of the examples of each batch: a plan, or a slice of one.
        epoch: number of the epoch.
        num_workers: processes that mask and pad ahead; 0 does it in this one, when a batch is asked for.
        pin_memory: put batches into pinned memory, from which copies to a GPU are asynchronous.
    """
    return DataLoader(
        CollatedBatches(examples, collator, batches, epoch),
        batch_size=None,
        num_workers=num_workers,
        pin_memory=pin_memory,
        worker_init_fn=_ignore_signals,
        # A loader without a generator draws from the global one, and dropout would depend on it.
        generator=torch.Generator(),
    )
