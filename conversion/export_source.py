"""What files are made of: the checkpoint, and what is derived from it once for all of them."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from distilrubert.common.errors import UserError
from distilrubert.common.sampling import evenly
from distilrubert.conversion.conversion_settings import ConversionSettings
from distilrubert.conversion.onnx import graph_of
from distilrubert.conversion.smoothing import output_errors, smooth
from distilrubert.modeling.checkpoints import Checkpoint

if TYPE_CHECKING:
    import onnx


FULL_LENGTH_TEXTS = 8
"""Texts of the model's full length, to calibrate on and to compare on beside single sentences."""


@dataclasses.dataclass(frozen=True)
class ExportSource:
    """A model on its way to files.

    Attributes:
        model: in fp32 on the CPU, with its head.
        tokenizer: its own.
        settings: what is wanted.
        calibration: the model's inputs for real text, one at a time, to observe the ranges of activations on.
        task: what the files return: a key of :data:`~distilrubert.modeling.runtimes.OUTPUTS`.
        full_length_texts: how many at the end of `calibration` are texts of full length, joined from the others.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    settings: ConversionSettings
    calibration: Sequence[dict[str, Tensor]]
    task: str
    full_length_texts: int = 0

    @classmethod
    def of_text(cls, checkpoint: Checkpoint, settings: ConversionSettings, sentences: Sequence[str]) -> Self:
        """A masked language model and sentences to calibrate on, as they are and joined to texts of full length."""
        chosen = evenly(sentences, settings.calibration_sentences)
        limit = checkpoint.tokenizer.model_max_length
        joined = full_length_texts(checkpoint, chosen) if chosen else []
        # One at a time: padding would count as text.
        inputs = [
            dict(checkpoint.tokenizer(text, truncation=True, max_length=limit, return_tensors="pt"))
            for text in [*chosen, *joined]
        ]
        return cls(checkpoint.model, checkpoint.tokenizer, settings, inputs, settings.task, len(joined))

    @classmethod
    def of_examples(
        cls,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        settings: ConversionSettings,
        examples: Sequence[Mapping[str, Sequence[int]]],
        task: str,
    ) -> Self:
        """A fine-tuned model and the inputs, each of one sequence, of which some are chosen evenly to calibrate on."""
        chosen = evenly(examples, settings.calibration_sentences)
        inputs = [{name: torch.tensor([ids]) for name, ids in example.items()} for example in chosen]
        return cls(model, tokenizer, settings, inputs, task)

    def for_task(self, task: str) -> "ExportSource":
        """The same model for files that return something else."""
        return self if task == self.task else dataclasses.replace(self, task=task)

    @property
    def exported(self) -> PreTrainedModel:
        """The part of the model that the files hold: for feature-extraction the encoder, else all of it."""
        model: PreTrainedModel = self.model.base_model if self.task == "feature-extraction" else self.model
        return model

    @property
    def embedding_bits(self) -> int:
        """Of the word embeddings in int8 files: eight for a head over the vocabulary, which may share their table.

        Raises:
            UserError: if the embeddings cannot be held in four bits.
        """
        if self.exported.get_output_embeddings() is not None:
            return 8
        width = self.exported.get_input_embeddings().weight.shape[1]
        if self.settings.embedding_bits == 4 and width % 2:
            raise UserError(f"conversion.embedding_bits: 4 needs an even width, and the model has {width}")
        return self.settings.embedding_bits

    @functools.cached_property
    def smoothed(self) -> PreTrainedModel:
        """The exported part in the form that is quantised."""
        return smooth(self.exported, self.calibration)

    @functools.cached_property
    def smoothed_graph(self) -> "onnx.ModelProto":
        """The ONNX graph of :attr:`smoothed`, from which all int8 files of ONNX are made."""
        return graph_of(self.smoothed, self.task, fused_attention=True)

    @functools.cached_property
    def errors(self) -> dict[str, float]:
        """How much int8 changes the output of each linear map of :attr:`smoothed`."""
        return output_errors(self.smoothed, self.calibration)

    @property
    def maps_in_fp32(self) -> list[str]:
        """Names of the linear maps that int8 would change too much."""
        return [name for name, error in self.errors.items() if not error <= self.settings.largest_layer_error]

    def report(self) -> dict[str, Any]:
        """What the parity report says about the int8 files."""
        plain = {name.removesuffix(".linear"): error for name, error in self.errors.items()}
        return {
            "calibration_sentences": len(self.calibration) - self.full_length_texts,
            "calibration_full_length_texts": self.full_length_texts,
            "embedding_bits": self.embedding_bits,
            "largest_layer_error": self.settings.largest_layer_error,
            "kept_in_fp32": [name.removesuffix(".linear") for name in self.maps_in_fp32],
            "layer_errors": plain,
        }


def full_length_texts(checkpoint: Checkpoint, texts: Sequence[str]) -> list[str]:
    """:data:`FULL_LENGTH_TEXTS` texts of at least as many tokens as the model takes, joined from shorter ones.

    Each begins at another place in `texts`, and goes on with the first text after the last one.
    """
    # The tokenizer warns of every text that is longer than the model takes.
    encoded = checkpoint.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    lengths = [len(ids) for ids in encoded]
    starts = [place * len(texts) // FULL_LENGTH_TEXTS for place in range(FULL_LENGTH_TEXTS if any(lengths) else 0)]
    return [_joined(texts, lengths, start, checkpoint.tokenizer.model_max_length) for start in starts]


def _joined(texts: Sequence[str], lengths: Sequence[int], start: int, tokens: int) -> str:
    joined: list[str] = []
    total = 0
    while total < tokens:
        index = (start + len(joined)) % len(texts)
        joined.append(texts[index])
        total += lengths[index]
    return " ".join(joined)
