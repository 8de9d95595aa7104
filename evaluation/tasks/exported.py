"""Scores of fine-tuned models as exported files. The files themselves are another room's: it hands in an exporter.

Axes: B batch, L padded length.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.trainer_pt_utils import nested_concat

from distilrubert.evaluation.tasks.row_results import score_test
from distilrubert.evaluation.tasks.task import TaskDefinition
from distilrubert.modeling.runtimes import Inputs

# As many rows at once, of similar length: int8 files find the range of their activations in the whole batch.
BATCH_SIZE = 32

RunFile = Callable[[Inputs], tuple[NDArray[np.float32], ...]]
"""From a model's inputs, each (B, L), to its outputs: the logits, of which question answering has two kinds."""
Export = Callable[
    [PreTrainedModel, PreTrainedTokenizerBase, str, Sequence[Mapping[str, Sequence[int]]], Path],
    RunFile,
]
"""Writes a file of a fine-tuned model in fp32 on the CPU and opens it. Its arguments are the model, its tokenizer, the
exporters' name for its kind of task, inputs to calibrate on and an empty folder."""


@dataclasses.dataclass(frozen=True)
class Exporter:
    """A kind of file to score.

    Attributes:
        export: writes one of a model and opens it.
        settings: what decides the file besides the model, as plain JSON values.
    """

    export: Export
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def score_exported(
    exporter: Exporter,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: TaskDefinition,
    rows: Dataset,
    features: Mapping[str, Dataset],
    folder: Path,
) -> dict[str, Any]:
    """Export a fine-tuned model and score the file.

    Args:
        exporter: writes the file and opens it.
        model: fine-tuned on the task; it is moved to the CPU.
        tokenizer: its own.
        task: the task.
        rows: the part to score on, in standard form.
        features: of ``rows`` as ``test``, and of the training part, to calibrate on, as ``train``.
        folder: where the file lies for a while.

    Returns:
        The task's metrics, and ``rows``: see :func:`.row_results.score_test`.
    """
    names = [name for name in tokenizer.model_input_names if name in features["test"].column_names]
    folder.mkdir()
    export_task = task.task_kind.export_task
    run = exporter.export(model.eval().cpu(), tokenizer, export_task, features["train"].select_columns(names), folder)
    batches = _batches(features["test"].select_columns(names), tokenizer)
    outputs = reduce(nested_concat, (run(batch) for batch in batches))
    logits = outputs if len(outputs) > 1 else outputs[0]
    return score_test(task, *task.task_kind.decode(rows, features["test"], logits, task.classes))


def _batches(features: Dataset, tokenizer: PreTrainedTokenizerBase) -> list[Inputs]:
    return [
        dict(tokenizer.pad(features[start : start + BATCH_SIZE], return_tensors="np"))
        for start in range(0, len(features), BATCH_SIZE)
    ]
