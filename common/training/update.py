"""One optimiser update from the batches of all processes: AdamW, its parameter groups and its learning rates."""

import collections
import contextlib
import dataclasses
import math
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import AdamW
from transformers import get_scheduler

from distilrubert.common.precision import Precision, choose_precision
from distilrubert.common.training.loss_module import Batch, LossModule, Prepared
from distilrubert.common.training.ranks import on_main, total, totals
from distilrubert.common.training.training_settings import OptimizationSettings

FIRST_SCALE, GROWTH_UPDATES = 2.0**16, 2000


class AbandonedUpdate(Exception):  # noqa: N818 - it is no error
    """An update was abandoned between two batches; the weights are as they were before it."""


@dataclasses.dataclass(frozen=True)
class Update:
    """The result of an update, the same on every process.

    Attributes:
        losses: the mean of each loss over its rows, and ``gradient_norm`` before clipping. If one of them is infinite
            or NaN, the update was skipped: weights and moments are as they were before.
        learning_rate: of this update, for parameters without a peak rate of their own.
        tokens: real tokens in it.
        positions: the same with padding.
        requests: which requests any process made.
    """

    losses: dict[str, float]
    learning_rate: float
    tokens: int
    positions: int
    requests: dict[str, bool]

    @property
    def is_skipped(self) -> bool:
        """Whether a loss or the gradient is not finite."""
        return not all(map(math.isfinite, self.losses.values()))


class Updater:
    """Makes updates whose gradient is that of one batch of all rows, however they are split.

    Each loss is divided by its number of rows in all batches of the update, over all processes, before the backward
    pass. Gradients are exchanged once, with the last batch. The objective must be on the accelerator's device; the seed
    is that of the dropout.

    A device is waited for once an update, for what the host has to decide: whether to skip the update. With that the
    rows of the next update are exchanged, if its batches are there.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        objective: LossModule,
        settings: OptimizationSettings,
        total_steps: int,
        seed: int,
    ) -> None:
        self._accelerator, self._objective, self._settings, self._seed = accelerator, objective, settings, seed
        # One for all processes, whose timings may differ.
        self.precision = on_main(accelerator, lambda: choose_precision(settings.precision, accelerator.device))
        self.loss_scale = LossScale(self.precision)
        self._model = accelerator.prepare_model(objective)
        self.optimizer = build_optimizer(objective, settings, objective.peak_rates())
        self._rate_factor = build_schedule(self.optimizer, settings, total_steps)
        # The batches of the next update, and their counts over all processes.
        self._next: tuple[Sequence[Prepared] | None, dict[str, int]] = (None, {})
        # DDP forms its buckets anew after the first exchange, in the order in which the gradients came. With three or
        # more processes the buckets decide the order of additions. A first exchange for nothing makes a resumed run add
        # as one that was never stopped.
        self._has_final_buckets = not isinstance(self._model, DistributedDataParallel)

    def __call__(
        self,
        step: int,
        epoch: int,
        indices: Sequence[int],
        batches: Sequence[Prepared],
        requests: Mapping[str, bool],
        should_abandon: Callable[[], bool] = lambda: False,
        following: Sequence[Prepared] | None = None,
    ) -> Update:
        """Make one update.

        Args:
            step: number of updates before it.
            epoch: pass over the corpus, from 0.
            indices: place of each batch in the epoch's plan.
            batches: this process's batches.
            requests: what this process asks of all, by name; they are exchanged with the losses.
            should_abandon: asked before each batch whether to abandon the update; the same on every process.
            following: this process's batches of the next update, if they are there; all processes have them or none.

        Raises:
            AbandonedUpdate: if it was to be abandoned.
        """
        known, counts = self._next
        if known is not batches:
            counts = total(self._accelerator, counted(batches))
        if not self._has_final_buckets:
            self._accumulate(epoch, indices[-1:], batches[-1:], counts, lambda: False)
            self.optimizer.zero_grad()
            self._has_final_buckets = True
        sums = self._accumulate(epoch, indices, batches, counts, should_abandon)
        if self.precision == "fp16":
            gradients = [weight.grad for weight in self._objective.parameters() if weight.grad is not None]
            torch._foreach_mul_(gradients, 1 / self.loss_scale.value)
        # The gradients have been exchanged, so the norm is the same on every process.
        norm = self._accelerator.clip_grad_norm_(self._objective.parameters(), self._settings.max_grad_norm)
        ahead = counted(following) if following else {}
        floats, numbers = totals(self._accelerator, sums, {**requests, **ahead}, norm)
        self._next = following, {name: numbers[name] for name in ahead}
        losses = dict(zip([*sums, "gradient_norm"], floats, strict=True))
        factor = self._rate_factor(step)
        requested = {name: numbers[name] > 0 for name in requests}
        update = Update(losses, self._settings.learning_rate * factor, counts["tokens"], counts["positions"], requested)
        if self.precision == "fp16":
            self.loss_scale.update(is_finite=math.isfinite(losses["gradient_norm"]))
        if not update.is_skipped:
            for group in self.optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor
            self.optimizer.step()
        self.optimizer.zero_grad()
        return update

    def _accumulate(
        self,
        epoch: int,
        indices: Sequence[int],
        batches: Sequence[Prepared],
        counts: Mapping[str, int],
        should_abandon: Callable[[], bool],
    ) -> dict[str, Tensor]:
        """Run the backward pass of every batch; the sums of the losses on this process."""
        accelerator = self._accelerator
        sums: dict[str, Tensor] = {}
        scale = int(self.loss_scale.value) if self.precision == "fp16" else 1
        self._model.train(self._settings.dropout)
        self._objective.set_training(
            dropout=self._settings.dropout, gradient_checkpointing=self._settings.gradient_checkpointing
        )
        for position, (index, batch) in enumerate(zip(indices, batches, strict=True)):
            if should_abandon():
                self.optimizer.zero_grad()
                raise AbandonedUpdate
            is_last = position == len(batches) - 1
            torch.manual_seed(_dropout_seed(self._seed, epoch, index))
            with contextlib.nullcontext() if is_last else accelerator.no_sync(self._model):
                with autocast(accelerator.device, self.precision):
                    losses = self._model(to_device(batch.tensors, accelerator.device), counts)
                # The processes' gradients are averaged; with global denominators their sum is meant.
                (losses["loss"] * (accelerator.num_processes * scale)).backward()
            for name, value in losses.items():
                sums[name] = sums[name] + value.detach() if name in sums else value.detach()
        return sums


def counted(batches: Iterable[Prepared]) -> dict[str, int]:
    """The sum of their counts."""
    counts: collections.Counter[str] = collections.Counter()
    for batch in batches:
        counts.update(batch.counts)
    return dict(counts)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch on `device`, without waiting for the copy."""
    return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}


class LossScale:
    """The factor of the loss in fp16, without which small gradients would be 0.

    By the rule of :class:`torch.amp.GradScaler`: half of it after an update whose gradient was too large for fp16, and
    twice of it after :data:`GROWTH_UPDATES` without one. It is a power of two, so that dividing by it is exact. Whether
    a gradient is finite is known from its norm, and no device is waited for beyond that.

    Attributes:
        value: the factor.
        good_updates: updates since it changed.
    """

    def __init__(self, precision: Precision) -> None:
        self.value = FIRST_SCALE if precision == "fp16" else 1.0
        self.good_updates = 0

    def state(self) -> dict[str, float]:
        """For a checkpoint."""
        return {"value": self.value, "good_updates": self.good_updates}

    def restore(self, state: Mapping[str, float]) -> None:
        """Take over the state of a checkpoint; without one nothing changes."""
        self.value, self.good_updates = state.get("value", self.value), int(state.get("good_updates", 0))

    def update(self, *, is_finite: bool) -> None:
        """Learn whether the gradient of an update was finite."""
        self.good_updates = self.good_updates + 1 if is_finite else 0
        if not is_finite:
            self.value = max(self.value / 2, 1.0)
        elif self.good_updates == GROWTH_UPDATES:
            self.value, self.good_updates = 2 * self.value, 0


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """The context of a forward pass in `precision`."""
    return torch.autocast(
        device.type, torch.float16 if precision == "fp16" else torch.bfloat16, enabled=precision != "fp32"
    )


def _dropout_seed(seed: int, epoch: int, index: int) -> int:
    # A seed for each batch: dropout then depends neither on the processes nor on where a run was resumed.
    return int(np.random.SeedSequence((seed, epoch, index)).generate_state(1, np.uint64)[0])


def parameter_groups(
    module: nn.Module, weight_decay: float, peak_rates: Mapping[str, float] = types.MappingProxyType({})
) -> list[dict[str, Any]]:
    """Every trainable parameter exactly once: matrices with weight decay, vectors (biases, LayerNorms) without.

    The shape decides, not the name: DistilBERT's LayerNorms have names that lists made for BERT miss.

    Args:
        module: what is trained.
        weight_decay: of the matrices.
        peak_rates: peak learning rates of parameters that have their own, by name. They form groups of their own.
    """
    trained = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = []
    for rate in (None, *sorted(set(peak_rates.values()))):
        with_rate = [parameter for name, parameter in trained if peak_rates.get(name) == rate]
        matrices = [parameter for parameter in with_rate if parameter.ndim > 1]
        vectors = [parameter for parameter in with_rate if parameter.ndim <= 1]
        own = {} if rate is None else {"lr": rate}
        groups.append({"params": matrices, "weight_decay": weight_decay, **own})
        groups.append({"params": vectors, "weight_decay": 0.0, **own})
    return groups


def build_optimizer(
    module: nn.Module, settings: OptimizationSettings, peak_rates: Mapping[str, float] = types.MappingProxyType({})
) -> AdamW:
    """AdamW over all trainable parameters of `module`, in its one-pass form; `peak_rates` as above."""
    return AdamW(
        parameter_groups(module, settings.weight_decay, peak_rates),
        lr=settings.learning_rate,
        betas=settings.betas,
        eps=settings.epsilon,
        fused=True,
    )


def build_schedule(optimizer: AdamW, settings: OptimizationSettings, total_steps: int) -> Callable[[int], float]:
    """The factor of the peak learning rates in an update, as a function of the number of updates before it.

    A function and not a scheduler's state, so that a resumed run has nothing to restore.
    """
    warmup = round(settings.warmup * total_steps)
    # Both warm-up and decay have an update at a rate of 0. That of the warm-up is skipped.
    skipped = 1 if warmup else 0
    scheduler = get_scheduler(
        settings.schedule, optimizer, num_warmup_steps=warmup, num_training_steps=total_steps + skipped
    )
    factor: Callable[[int], float] = scheduler.lr_lambdas[0]
    return lambda step: factor(step + skipped)
