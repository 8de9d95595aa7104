"""What the training loop needs to fine-tune a model on a task: examples, batches and the loss.

Axes: B batch, L padded length.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distilrubert.common.precision import Precision
from distilrubert.common.training.loss_module import LossModule
from distilrubert.common.training.padding import IGNORED, WIDTH_STEP
from distilrubert.common.training.update import autocast, to_device
from distilrubert.evaluation.tasks.kinds.task_kind import Logits, TaskKind
from distilrubert.modeling.runtimes import Arrays, Inputs

RunFile = Callable[[Inputs], Arrays]
"""From a model's inputs, each (B, L), to its outputs: the logits, of which question answering has two kinds."""

TARGETS = ("labels", "start_positions", "end_positions")


class TaskExamples:
    """The features of a part of a task as examples of the training loop."""

    def __init__(self, features: Dataset, tokenizer: PreTrainedTokenizerBase) -> None:
        columns = [name for name in (*tokenizer.model_input_names, *TARGETS) if name in features.column_names]
        self.lengths: NDArray[np.int32] = np.array(features["length"][:], dtype=np.int32)
        self._features = features.select_columns(columns)

    def __len__(self) -> int:
        return len(self._features)

    def __getitem__(self, index: int) -> dict[str, Any]:
        example: dict[str, Any] = self._features[index]
        return example


class TaskCollator:
    """Pads examples of a task; nothing is drawn."""

    def __init__(self, kind: TaskKind, tokenizer: PreTrainedTokenizerBase) -> None:
        self._pad: Callable[..., Mapping[str, Tensor]] = kind.collator(tokenizer, pad_to_multiple_of=WIDTH_STEP)

    def collate(self, examples: Sequence[Mapping[str, Any]], epoch: int, indices: Sequence[int]) -> dict[str, Tensor]:
        """See :class:`~distilrubert.common.training.batching.Collator`."""
        return dict(self._pad(list(examples)))


class TaskLoss(LossModule):
    """The loss of a task model of transformers, as a sum over what has a label."""

    def __init__(self, model: PreTrainedModel, head_rates: Mapping[str, float]) -> None:
        """Take a model with the task's head, and the peak learning rate of each parameter of the head, by its name."""
        super().__init__(model)
        self._peak_rates = {f"model.{name}": rate for name, rate in head_rates.items()}

    def peak_rates(self) -> dict[str, float]:
        """See :class:`~distilrubert.common.training.loss_module.LossModule`."""
        return self._peak_rates

    def counts(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Labels of the batch: of sentences, or of words; of a question with its window, one."""
        if "labels" in batch:
            return {"task": (batch["labels"] != IGNORED).sum()}
        return {"task": torch.tensor(len(batch["input_ids"]))}

    def forward(self, batch: Mapping[str, Tensor], denominators: Mapping[str, Tensor | float]) -> dict[str, Tensor]:
        """See :class:`~distilrubert.common.training.loss_module.LossModule`."""
        output = self.model(**batch)
        labels = int(self.counts(batch)["task"])
        # The model's loss is the mean over the labels, and NaN without any.
        loss = output.loss * (labels / denominators["task"]) if labels else 0.0 * output.logits.sum()
        return {"task": loss.detach(), "loss": loss}


def model_inputs(features: Dataset, tokenizer: PreTrainedTokenizerBase) -> Dataset:
    """The columns that a model reads."""
    return features.select_columns([name for name in tokenizer.model_input_names if name in features.column_names])


def logits_of(
    run: RunFile, features: Dataset, tokenizer: PreTrainedTokenizerBase, batch_size: int, **padding: int
) -> Logits:
    """What a model puts out for features, in their order, padded to one length."""
    inputs = model_inputs(features, tokenizer)
    batches = (inputs[start : start + batch_size] for start in range(0, len(inputs), batch_size))
    padded = (dict(tokenizer.pad(rows, return_tensors="np", **padding)) for rows in batches)
    outputs = tuple(_joined(batches) for batches in zip(*map(run, padded), strict=True))
    return outputs if len(outputs) > 1 else outputs[0]


def _joined(batches: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """All rows of batches, whose second axis is padded to that of the longest."""
    width = max(batch.shape[1] for batch in batches)
    missing = [((0, 0), (0, width - batch.shape[1]), *[(0, 0)] * (batch.ndim - 2)) for batch in batches]
    return np.concatenate(
        [np.pad(batch, pad, constant_values=IGNORED) for batch, pad in zip(batches, missing, strict=True)]
    )


def predict(
    model: PreTrainedModel,
    features: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    precision: Precision,
    batch_size: int,
) -> Logits:
    """The logits of a model for features, see :func:`logits_of`; the model is put in evaluation mode."""
    device = model.eval().device

    def run(inputs: Inputs) -> Arrays:
        output = model(**to_device({name: torch.from_numpy(array) for name, array in inputs.items()}, device))
        return tuple(output[name].float().cpu().numpy() for name in output if name.endswith("logits"))

    with torch.inference_mode(), autocast(device, precision):
        return logits_of(run, features, tokenizer, batch_size, pad_to_multiple_of=WIDTH_STEP)
