"""Which batches make up which update of a run, and their loaders.

Legend: N examples, B rows of a batch, L its padded width.
"""

import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from distilrubert.common.errors import UserError
from distilrubert.common.processes import STOP_SIGNALS
from distilrubert.common.training.padding import WIDTH_STEP, padded_widths
from distilrubert.common.training.training_settings import OptimizationSettings

GPU_WORKERS = 2
# Examples that are planned at once, about 30 bytes each.
WINDOW = 10_000_000

Example = TypeVar("Example")
Made = TypeVar("Made")
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
    window: int | None = None,
) -> list[NDArray[np.int64]]:
    """The batches of an epoch, a pure function of the arguments: the indices of the examples of each.

    Examples are shuffled by `seed`, `epoch` and, if `lengths` are those of one window of a corpus, its number. Then
    they are sorted by padded width and cut, so that a batch has at most `batch_size` rows (None: any number), and at
    most `batch_tokens` tokens with padding. What is left over of one width goes to the next wider one. Then the batches
    are shuffled. Their number is a multiple of `batches_per_update`, over all ranks and accumulation steps: the batches
    with most tokens are halved until it is. Every example of `lengths`, (N,), is in exactly one batch.

    Raises:
        UserError: if one example alone is longer than `batch_tokens`, or there are too few for one update.
    """
    steps = _width_steps(lengths, batch_tokens)
    cuts = _cuts(steps, batch_tokens, batch_size)
    number = _number_of_batches(cuts, len(steps), batches_per_update)
    seeds = [seed, epoch] if window is None else [seed, epoch, window]
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(seeds)))
    order = generator.permutation(len(steps))
    # On 16-bit keys the stable sort is a radix sort: a second for ten million examples.
    order = order[np.argsort(steps[order].astype(np.uint16), kind="stable")]
    batches = _split_largest(_cut(order, cuts), lengths, number)
    return [batches[i] for i in generator.permutation(len(batches))]


class BatchPlan:
    """All updates of a run, a pure function of the example lengths, the settings and the seed.

    Update u of an epoch takes the batches [u·K, (u+1)·K) of that epoch's plan, K = `batches_per_update`, on any number
    of processes. So a resumed run goes directly to its next update.

    A large corpus is planned in windows of consecutive examples, about `window` each: an epoch takes the windows in an
    order of its own, and one after another is planned when its turn comes. So the memory of a plan does not grow with
    the corpus, which lies on the disk in an order that was shuffled once.

    Attributes:
        total_steps: number of updates: those of all epochs, or `max_steps` if that is less.
    """

    def __init__(
        self, lengths: NDArray[np.int32], settings: OptimizationSettings, seed: int, window: int = WINDOW
    ) -> None:
        self._lengths, self._settings, self._seed = lengths, settings, seed
        windows = number_of_windows(len(lengths), window)
        self._bounds = np.linspace(0, len(lengths), windows + 1).astype(np.int64)
        # Epochs differ in the order of their batches, not in their number.
        self._window_updates = [self._count_updates(number) for number in range(windows)]
        self._updates = sum(self._window_updates)
        every = self._updates * settings.epochs
        self.total_steps = min(every, settings.max_steps or every)

    def remaining(self, step: int) -> Iterator[tuple[int, int, list[NDArray[np.int64]]]]:
        """The updates after the first `step`, window by window.

        Yields:
            the number of the epoch, the place in its plan of the first batch, and the example indices of each batch.
        """
        per_update = self._settings.batches_per_update
        while step < self.total_steps:
            epoch, done = divmod(step, self._updates)
            before = 0
            for window in self._order(epoch):
                updates = self._window_updates[window]
                first, last = max(done - before, 0), min(updates, self.total_steps - epoch * self._updates - before)
                if first < last:
                    batches = self._plan(epoch, window)[first * per_update : last * per_update]
                    yield epoch, (before + first) * per_update, batches
                before += updates
            step = (epoch + 1) * self._updates

    def ends_epoch(self, step: int) -> bool:
        """Whether the first `step` updates end with the last one of an epoch, or of the run."""
        return step % self._updates == 0 or step == self.total_steps

    def _order(self, epoch: int) -> list[int]:
        """The windows in the order of an epoch."""
        generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([self._seed, epoch])))
        order: list[int] = generator.permutation(len(self._window_updates)).tolist()
        return order

    def _plan(self, epoch: int, window: int) -> list[NDArray[np.int64]]:
        settings = self._settings
        batches = plan_epoch(
            self._lengths_of(window),
            batch_tokens=settings.batch_tokens,
            batch_size=settings.batch_size,
            batches_per_update=settings.batches_per_update,
            seed=self._seed,
            epoch=epoch,
            window=window if len(self._window_updates) > 1 else None,
        )
        return [self._bounds[window] + batch for batch in batches] if window else batches

    def _count_updates(self, window: int) -> int:
        """The updates of a window, from its lengths alone."""
        settings = self._settings
        steps = _width_steps(self._lengths_of(window), settings.batch_tokens)
        cuts = _cuts(steps, settings.batch_tokens, settings.batch_size)
        return _number_of_batches(cuts, len(steps), settings.batches_per_update) // settings.batches_per_update

    def _lengths_of(self, window: int) -> NDArray[np.int32]:
        return self._lengths[self._bounds[window] : self._bounds[window + 1]]


def number_of_windows(examples: int, window: int = WINDOW) -> int:
    """In how many windows that many examples are planned, at least one."""
    return max(1, -(-examples // window))


def _width_steps(lengths: NDArray[np.int32], batch_tokens: int) -> NDArray[np.int32]:
    """The padded width of each example in units of `WIDTH_STEP`, (N,)."""
    widths = padded_widths(lengths)
    if len(widths) and widths.max() > batch_tokens:
        raise UserError(
            f"batch_tokens: {batch_tokens} is less than the longest sequence, {widths.max()} tokens when padded"
        )
    return widths // WIDTH_STEP


def _cuts(steps: NDArray[np.int32], batch_tokens: int, batch_size: int | None) -> list[tuple[int, int]]:
    """How examples that are sorted by width are cut within the limits: a number of batches, and the rows of each."""
    cuts, left = [], 0
    counts = np.bincount(steps)
    for step in np.flatnonzero(counts).tolist():
        waiting = left + int(counts[step])
        rows = min(batch_tokens // (step * WIDTH_STEP), batch_size or batch_tokens)
        cuts.append((waiting // rows, rows))
        left = waiting % rows
    return [*cuts, (1, left)] if left else cuts


def _number_of_batches(cuts: Sequence[tuple[int, int]], examples: int, batches_per_update: int) -> int:
    """The number of batches when it is made a multiple of `batches_per_update`."""
    batches = sum(number for number, _ in cuts)
    batches += -batches % batches_per_update
    if batches > examples:
        raise UserError(
            f"batches_per_update: {batches_per_update} batches cannot be made of {examples} sequences; at most one of "
            "each can"
        )
    return batches


def _cut(order: NDArray[np.int64], cuts: Sequence[tuple[int, int]]) -> list[NDArray[np.int64]]:
    """Cut examples that are sorted by width."""
    batches: list[NDArray[np.int64]] = []
    start = 0
    for number, rows in cuts:
        stop = start + number * rows
        batches += list(order[start:stop].reshape(number, rows))
        start = stop
    return batches


def _split_largest(
    batches: list[NDArray[np.int64]], lengths: NDArray[np.int32], number: int
) -> list[NDArray[np.int64]]:
    """Halve the batches with most tokens, padded, until there are `number`."""
    missing = number - len(batches)

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
    for number in (signal.SIGINT, *STOP_SIGNALS):
        signal.signal(number, signal.SIG_IGN)


class CollatedBatches(Dataset[Made], Generic[Example, Made]):
    """The given batches of an epoch, masked, padded and prepared when they are asked for."""

    def __init__(
        self,
        examples: Examples[Example],
        collator: Collator[Example],
        batches: Sequence[NDArray[np.int64]],
        epoch: int,
        prepare: Callable[[dict[str, Tensor]], Made],
    ) -> None:
        self._examples, self._collator, self._batches, self._epoch = examples, collator, batches, epoch
        self._prepare = prepare

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, number: int) -> Made:
        indices = self._batches[number].tolist()
        examples = [self._examples[index] for index in indices]
        return self._prepare(self._collator.collate(examples, self._epoch, indices))


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
    prepare: Callable[[dict[str, Tensor]], Made],
    num_workers: int = 0,
    ahead: int = 1,
    pin_memory: bool = False,
) -> DataLoader[Made]:
    """A loader of the given batches in their order; what it yields does not depend on `num_workers`.

    Slice the plan to begin at some batch or to take a rank's share; batches that are left out cost nothing.

    Args:
        examples: what is batched.
        collator: makes the batches.
        batches: indices of the examples of each batch: a plan, or a slice of one.
        epoch: number of the epoch.
        prepare: what is made of a batch, see :meth:`~.loss_module.LossModule.preparation`.
        num_workers: processes that mask, pad and prepare ahead; 0 does it in this one, when a batch is asked for.
        ahead: batches that the workers have ready at least, if they are fast enough.
        pin_memory: put batches into pinned memory, from which copies to a GPU are asynchronous.
    """
    return DataLoader(
        CollatedBatches(examples, collator, batches, epoch, prepare),
        batch_size=None,
        num_workers=num_workers,
        prefetch_factor=max(2, -(-ahead // num_workers)) if num_workers else None,
        pin_memory=pin_memory,
        worker_init_fn=_ignore_signals,
        # A loader without a generator draws from the global one, and dropout would depend on it.
        generator=torch.Generator(),
    )
