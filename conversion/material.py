"""What files are made of: the checkpoint, and what is worked out of it once for all of them."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from distilrubert.conversion.checkpoint import Checkpoint
from distilrubert.conversion.sensitivity import output_errors
from distilrubert.conversion.settings import ConversionSettings
from distilrubert.conversion.smoothing import smooth

# What the exporters' graphs return.
OUTPUTS = {"feature-extraction": "last_hidden_state", "fill-mask": "logits"}


@dataclasses.dataclass(frozen=True)
class Material:
    """A checkpoint on its way to files.

    Attributes:
        checkpoint: in fp32.
        settings: what is wanted.
        sentences: text to see the ranges of activations on.
    """

    checkpoint: Checkpoint
    settings: ConversionSettings
    sentences: Sequence[str]

    @property
    def exported(self) -> PreTrainedModel:
        """The part of the model that the files hold: for fill-mask all of it, else the encoder."""
        whole = self.settings.task == "fill-mask"
        model: PreTrainedModel = self.checkpoint.model if whole else self.checkpoint.model.base_model
        return model

    @functools.cached_property
    def calibration(self) -> list[dict[str, Tensor]]:
        """The model's inputs for sentences, one at a time: padding would count as text."""
        chosen = self.sentences[: self.settings.calibration_sentences]
        tokenizer = self.checkpoint.tokenizer
        return [dict(tokenizer(sentence, truncation=True, return_tensors="pt")) for sentence in chosen]

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
