"""Files of a model that was fine-tuned on a task, to see what a format costs there."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from distilrubert.common.formats import FORMATS
from distilrubert.common.sampling import evenly
from distilrubert.conversion.conversion_settings import ConversionSettings
from distilrubert.conversion.export_source import ExportSource
from distilrubert.conversion.writers import write_file
from distilrubert.modeling.runtimes import OpenModel, open_model


def export_finetuned(
    case: str,
    settings: ConversionSettings,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    task: str,
    examples: Sequence[Mapping[str, Sequence[int]]],
    folder: Path,
) -> OpenModel:
    """Write one file of a fine-tuned model, made in the same way as those that are published, and open it.

    Args:
        case: a key of :data:`~distilrubert.common.formats.FORMATS`.
        settings: how int8 is made.
        model: in fp32 on the CPU, in evaluation mode, with its head.
        tokenizer: the model's.
        task: a key of :data:`~distilrubert.modeling.runtimes.OUTPUTS`.
        examples: the model's inputs, each of one sequence; ``settings.calibration_sentences`` of them, evenly chosen,
            calibrate int8.
        folder: to write to; the file must stay there while the model is used.

    Returns:
        The file, opened for fp32 arithmetic.
    """
    chosen = evenly(examples, settings.calibration_sentences)
    inputs = [{name: torch.tensor([ids]) for name, ids in example.items()} for example in chosen]
    write_file(case, ExportSource(model, tokenizer, settings, inputs, task), folder)
    return open_model(folder, FORMATS[case], task)
