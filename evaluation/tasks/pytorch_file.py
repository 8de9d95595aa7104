"""The fine-tuned model itself as a file among the exported ones: PyTorch in fp32, with which they are compared."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distilrubert.evaluation.tasks.exported import Exporter, Inputs, RunFile

CASE = "pytorch-fp32"


def _keep(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: str, calibration: Sequence[Inputs], folder: Path
) -> RunFile:
    names = ("start_logits", "end_logits") if task == "question-answering" else ("logits",)

    @torch.inference_mode()
    def run(inputs: Inputs) -> tuple[NDArray[np.float32], ...]:
        output = model(**{name: torch.from_numpy(array) for name, array in inputs.items()})
        return tuple(output[name].float().numpy() for name in names)

    return run


def with_pytorch(exporters: Mapping[str, Exporter]) -> dict[str, Exporter]:
    """The exporters, by name, with that of the model itself before them."""
    return {CASE: Exporter(_keep)} | {name: exporter for name, exporter in exporters.items() if name != CASE}
