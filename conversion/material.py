"""What files are made of: the checkpoint, and what is worked out of it once for all of them."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Self, TypeVar

import numpy as np
from torch import Tensor
from transformers import PreTrainedModel

from distilrubert.conversion.checkpoint import Checkpoint, FineTuned
from distilrubert.conversion.conversion_settings import ConversionSettings
from distilrubert.conversion.sensitivity import output_errors
from distilrubert.conversion.smoothing import smooth

Item = TypeVar("Item")

# What the exporters' graphs return, by the task as optimum names it.
OUTPUTS = {
    "feature-extraction": ("last_hidden_state",),
    "fill-mask": ("logits",),
    "text-classification": ("logits",),
    "token-classification": ("logits",),
    "question-answering": ("start_logits", "end_logits"),
}


def evenly(items: Sequence[Item], count: int) -> list[Item]:
    """`count` of the items, or all if there are no more, at even distances from the first to the last."""
    return [items[index] for index in np.linspace(0, len(items) - 1, min(count, len(items)), dtype=int)]


@dataclasses.dataclass(frozen=True)
class Material:
    """A checkpoint on its way to files.

    Attributes:
        checkpoint: in fp32.
        settings: what is wanted.
        calibration: the model's inputs for some real text, one at a time, to see the ranges of activations on.
        task: what the files return: a key of :data:`OUTPUTS`.
    """

    checkpoint: Checkpoint | FineTuned
    settings: ConversionSettings
    calibration: Sequence[dict[str, Tensor]]
    task: str

    @classmethod
    def of_text(cls, checkpoint: Checkpoint, settings: ConversionSettings, sentences: Sequence[str]) -> Self:
        """A masked language model and sentences to calibrate on."""
        chosen = evenly(sentences, settings.calibration_sentences)
        # One at a time: padding would count as text.
        inputs = [dict(checkpoint.tokenizer(text, truncation=True, return_tensors="pt")) for text in chosen]
        return cls(checkpoint, settings, inputs, settings.task)

    @property
    def exported(self) -> PreTrainedModel:
        """The part of the model that the files hold: for feature-extraction the encoder, else all of it."""
        only_encoder = self.task == "feature-extraction"
        model: PreTrainedModel = self.checkpoint.model.base_model if only_encoder else self.checkpoint.model
        return model

    @functools.cached_property
    def smoothed(self) -> PreTrainedModel:
        """The exported part in the form that is quantised."""
        return smooth(self.exported, self.calibration)

    @functools.cached_property
    def errors(self) -> dict[str, float]:
        """How much int8 changes the output of each linear map of :attr:`smoothed`."""
        return output_errors(self.smoothed, self.calibration)

    @property
    def kept(self) -> list[str]:
        """Names of the linear maps that int8 would change too much."""
        return [name for name, error in self.errors.items() if not error <= self.settings.largest_layer_error]

    def report(self) -> dict[str, Any]:
        """What the parity report says about the int8 files."""
        plain = {name.removesuffix(".linear"): error for name, error in self.errors.items()}
        return {
            "calibration_sentences": len(self.calibration),
            "largest_layer_error": self.settings.largest_layer_error,
            "kept_in_fp32": [name.removesuffix(".linear") for name in self.kept],
            "layer_errors": plain,
        }
