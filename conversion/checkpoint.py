"""The checkpoint that files are made of, and its own files: configuration, safetensors, tokenizer."""

import dataclasses
import itertools
import os
from collections.abc import Callable, Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distilrubert.common.errors import UserError
from distilrubert.common.persistence import read_json
from distilrubert.modeling.checkpoints import checkpoint_folder
from distilrubert.modeling.student import Student, load_student
from distilrubert.modeling.teacher import Teacher, load_teacher

Checkpoint = Student | Teacher

FULL_LENGTH_TEXTS = 8
"""Texts of the model's full length, to calibrate on and to compare on beside single sentences."""


@dataclasses.dataclass(frozen=True)
class FineTuned:
    """A model with the head of a task, on the CPU in fp32, and its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


LOADERS: dict[str, Callable[[str | os.PathLike[str], str | None], Checkpoint]] = {
    "distilbert": load_student,
    "bert": load_teacher,
}


def load_checkpoint(model: str | os.PathLike[str], revision: str | None = None) -> Checkpoint:
    """Load a masked language model of a kind that can be converted, in fp32; pickled weights as plain tensors.

    Args:
        model: a folder, or the id of a model on the Hub.
        revision: branch, tag or commit on the Hub.

    Raises:
        UserError: if it holds no whole BERT or DistilBERT masked language model.
    """
    path = checkpoint_folder(model, revision) / "config.json"
    if not path.is_file():
        raise UserError(f"{model}: holds no model (no config.json)")
    config = read_json(path)
    found = config.get("model_type") if isinstance(config, dict) else None
    if found not in LOADERS:
        raise UserError(f"{model}: config.json says model_type {found!r}; {' or '.join(LOADERS)} can be converted")
    return LOADERS[found](model, revision)


def longest_input(checkpoint: Checkpoint | FineTuned) -> int:
    """The largest number of tokens that a model takes."""
    return min(int(checkpoint.tokenizer.model_max_length), int(checkpoint.model.config.max_position_embeddings))


def full_length_texts(checkpoint: Checkpoint | FineTuned, texts: Sequence[str]) -> list[str]:
    """:data:`FULL_LENGTH_TEXTS` texts of at least as many tokens as the model takes, joined from shorter ones.

    Each begins at another place in `texts`, and goes on with the first text after the last one.
    """
    # The tokenizer warns of every text that is longer than the model takes.
    encoded = checkpoint.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    lengths = [len(ids) for ids in encoded]
    return [
        _joined(texts, lengths, place * len(texts) // FULL_LENGTH_TEXTS, longest_input(checkpoint))
        for place in range(FULL_LENGTH_TEXTS if any(lengths) else 0)
    ]


def _joined(texts: Sequence[str], lengths: Sequence[int], start: int, tokens: int) -> str:
    joined, total = [], 0
    for index in itertools.islice(itertools.cycle(range(len(texts))), start, None):
        joined.append(texts[index])
        total += lengths[index]
        if total >= tokens:
            break
    return " ".join(joined)
