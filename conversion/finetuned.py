"""Files of a model that was fine-tuned on a task, to see what a format costs there."""

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distilrubert.conversion.checkpoint import FineTuned
from distilrubert.conversion.conversion_settings import ConversionSettings
from distilrubert.conversion.formats import FORMATS, Encoder, Inputs
from distilrubert.conversion.material import Material, evenly


def export_finetuned(
    case: str,
    settings: ConversionSettings,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: str,
    calibration: Sequence[Inputs],
    folder: Path,
) -> Encoder:
    """Write one file of a fine-tuned model, made in the same way as those that are published, and open it.

    Args:
        case: a key of :data:`~distilrubert.conversion.formats.FORMATS`.
        settings: how int8 is made.
        model: in fp32 on the CPU, in evaluation mode, with its head.
        tokenizer: its own.
        task: text-classification or token-classification.
        calibration: the model's inputs, each (1, L); at most ``settings.calibration_sentences`` of them, evenly
            chosen, are used.
        folder: to write to; the file has to stay there while it is run.

    Returns:
        What runs the file: from inputs to logits.

    Raises:
        UserError: if packages are missing.
    """
    entry = FORMATS[case]
    entry.require()
    chosen = evenly(calibration, settings.calibration_sentences)
    inputs = [{name: torch.from_numpy(array) for name, array in example.items()} for example in chosen]
    entry.write(Material(FineTuned(model, tokenizer), settings, inputs, task), folder)
    return entry.open(folder / entry.path, task)
