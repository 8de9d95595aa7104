"""Scores of fine-tuned models as exported files. The files themselves are another room's: it hands in an exporter."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distilrubert.evaluation.tasks.row_results import score_test
from distilrubert.evaluation.tasks.task import TaskDefinition
from distilrubert.evaluation.tasks.task_loss import RunFile, logits_of, model_inputs
from distilrubert.modeling.runtimes import PyTorchModel

# As many rows at once, of similar length: int8 files find the range of their activations in the whole batch.
BATCH_SIZE = 32
# The fine-tuned model itself, with which its files are compared.
PYTORCH = "pytorch-fp32"

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


def with_pytorch(exporters: Mapping[str, Exporter]) -> dict[str, Exporter]:
    """The exporters, by name, with that of the model itself, in PyTorch in fp32, before them."""
    return {PYTORCH: Exporter(_keep)} | {name: exporter for name, exporter in exporters.items() if name != PYTORCH}


def _keep(model: PreTrainedModel, _tokenizer: Any, task: str, _calibration: Any, _folder: Path) -> RunFile:
    return PyTorchModel(model, task)


def score_exported(
    exporter: Exporter,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: TaskDefinition,
    rows: Dataset,
    features: Mapping[str, Dataset],
    folder: Path,
) -> dict[str, Any]:
    """Export a fine-tuned model, which is moved to the CPU, and score the file as :func:`.row_results.score_test` does.

    `features` has those of ``rows`` as ``test``, and those of the training part, to calibrate on, as ``train``.
    """
    folder.mkdir()
    calibration = model_inputs(features["train"], tokenizer)
    run = exporter.export(model.eval().cpu(), tokenizer, task.task_kind.export_task, calibration, folder)
    logits = logits_of(run, features["test"], tokenizer, BATCH_SIZE)
    return score_test(task, rows, *task.task_kind.decode(rows, features["test"], logits, task.classes))
