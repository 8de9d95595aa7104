"""The losses on held-out text, measured the same way each time."""

import collections
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from distilrubert.common.precision import Precision
from distilrubert.common.training.batching import Collator, Examples, build_loader, plan_epoch
from distilrubert.common.training.loss_module import LossModule
from distilrubert.common.training.training_settings import OptimizationSettings
from distilrubert.common.training.update import autocast, counted, to_device

# No training epoch has this number, so the masks differ from those of training.
_EPOCH = 2**32 - 1


class Validation:
    """Held-out batches with fixed masks, shared among the processes.

    The seed chooses the examples: at most `validation_tokens`, and at least one example.
    """

    def __init__(
        self,
        examples: Examples[Any],
        collator: Collator[Any],
        objective: LossModule,
        settings: OptimizationSettings,
        seed: int,
        accelerator: Accelerator,
    ) -> None:
        order = np.random.default_rng(seed).permutation(len(examples))
        within = int((np.cumsum(examples.lengths[order]) <= settings.validation_tokens).sum())
        chosen = order[: max(within, 1)]
        plan = plan_epoch(
            examples.lengths[chosen], batch_tokens=settings.batch_tokens, batches_per_update=1, seed=seed, epoch=0
        )
        mine = [chosen[batch] for batch in plan][accelerator.process_index :: accelerator.num_processes]
        loader = build_loader(examples, collator, mine, epoch=_EPOCH, prepare=objective.preparation())
        self._batches = list(loader)
        self._objective, self._accelerator = objective, accelerator

    def measure(self, precision: Precision) -> dict[str, float]:
        """The mean of each loss over its rows; empty without held-out examples."""
        counts = self._total(counted(self._batches))
        device = self._accelerator.device
        self._objective.eval()
        with torch.no_grad(), autocast(device, precision):
            found = [self._objective(to_device(batch.tensors, device), counts) for batch in self._batches]
        if not found:
            return self._total({})
        # The device is waited for once, and not for each batch.
        values = torch.stack([torch.stack([*losses.values()]) for losses in found]).tolist()
        return self._total(dict(zip(found[0], map(sum, zip(*values, strict=True)), strict=True)))

    def _total(self, values: Mapping[str, float]) -> dict[str, float]:
        # Exchanged by name: a process without a batch does not know the names of the losses.
        totals: collections.Counter[str] = collections.Counter()
        for part in gather_object([dict(values)]):
            totals.update(part)
        return dict(totals)
