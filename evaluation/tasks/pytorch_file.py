"""The fine-tuned model itself as a file among the exported ones: PyTorch in fp32, with which they are compared."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distilrubert.evaluation.tasks.exported import Exporter, RunFile
from distilrubert.modeling.runtimes import PyTorchModel

CASE = "pytorch-fp32"


def _keep(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: str,
    calibration: Sequence[Mapping[str, Sequence[int]]],
    folder: Path,
) -> RunFile:
    return PyTorchModel(model, task)


def with_pytorch(exporters: Mapping[str, Exporter]) -> dict[str, Exporter]:
    """The exporters, by name, with that of the model itself before them."""
    return {CASE: Exporter(_keep)} | {name: exporter for name, exporter in exporters.items() if name != CASE}
