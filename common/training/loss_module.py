"""What the training loop trains: a module that computes the losses of a batch."""

import abc
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn
from transformers import PreTrainedModel

from distilrubert.common.training.compiling import set_compiled

Batch = dict[str, Tensor]


class Prepared(NamedTuple):
    """A batch with all that the host has to know of it, so that no step has to ask a device.

    Attributes:
        tensors: what the loss module takes.
        counts: rows of each loss, and ``tokens`` and ``positions`` (tokens and padding).
    """

    tensors: Batch
    counts: dict[str, int]


Counting = Callable[[Batch], Mapping[str, Tensor]]


def prepared(count: Counting, batch: Batch) -> Prepared:
    """A batch with its counts; `count` gives the rows of each loss."""
    counts = {name: int(rows) for name, rows in count(batch).items()}
    mask_BL = batch["attention_mask"]
    return Prepared(batch, counts | {"tokens": int(mask_BL.sum()), "positions": mask_BL.numel()})


class LossModule(nn.Module, abc.ABC):
    """A model in training, with the losses that are minimised.

    Registered is what is trained, and nothing else: the parameters of this module are those that the optimiser
    updates, DDP exchanges and checkpoints keep.

    Args:
        model: the model that is trained.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    @abc.abstractmethod
    def counts(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The number of rows of each loss in a batch, to be summed into the denominators of an update.

        Args:
            batch: as in :meth:`forward`, on any device.
        """

    def preparation(self) -> Callable[[Batch], Prepared]:
        """What prepares a batch where it is made, on the CPU, often in another process: it can be pickled."""
        return functools.partial(prepared, self.counts)

    @abc.abstractmethod
    def forward(self, batch: Mapping[str, Tensor], denominators: Mapping[str, Tensor | float]) -> dict[str, Tensor]:
        """The losses of a batch.

        Args:
            batch: what the collator made.
            denominators: for each loss what its sum over rows is divided by: the :meth:`counts` of all batches of the
                update. Where it is 0, the loss and its gradients are 0.

        Returns:
            each loss, detached, and as ``loss`` their weighted sum.
        """

    def peak_rates(self) -> dict[str, float]:
        """Peak learning rates of those parameters, by name, that are not trained at that of the settings."""
        return {}

    def describe(self) -> dict[str, dict[str, Any]]:
        """Each loss in words, for the report and the card: its ``weight``, ``title`` and ``meaning``."""
        return {}

    def set_training(self, *, dropout: bool, gradient_checkpointing: bool) -> None:
        """Put the module into training mode.

        Args:
            dropout: whether the model's dropout is active.
            gradient_checkpointing: keep the input of each layer alone for the backward pass and compute the rest
                again. A subclass that allows it overrides this method.
        """
        assert not gradient_checkpointing, "this module has no gradient checkpointing"
        self.train(dropout)

    def set_compiled(self, *, compiled: bool) -> None:
        """Compile what takes most of the time, in place and up to rounding, or undo it; by default the encoder."""
        set_compiled(self.model.base_model, compiled=compiled)

    def end_training(self) -> None:
        """Undo :meth:`set_training`: evaluation mode."""
        self.eval()
