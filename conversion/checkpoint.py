"""The checkpoint that files are made of, and its own files: configuration, safetensors, tokenizer."""

import os
from collections.abc import Callable, Sequence

from distilrubert.common.errors import UserError
from distilrubert.common.persistence import read_json
from distilrubert.modeling.checkpoints import checkpoint_folder
from distilrubert.modeling.student import Student, load_student
from distilrubert.modeling.teacher import Teacher, load_teacher

Checkpoint = Student | Teacher

FULL_LENGTH_TEXTS = 8
"""Texts of the model's full length, to calibrate on and to compare on beside single sentences."""


LOADERS: dict[str, Callable[[str | os.PathLike[str]], Checkpoint]] = {
    "distilbert": load_student,
    "bert": load_teacher,
}


def load_checkpoint(model: str | os.PathLike[str]) -> Checkpoint:
    """Load a masked language model, a folder or on the Hub, in fp32; pickled weights as plain tensors.

    Raises:
        UserError: if it holds no whole BERT or DistilBERT masked language model.
    """
    path = checkpoint_folder(model) / "config.json"
    if not path.is_file():
        raise UserError(f"{model}: holds no model (no config.json)")
    config = read_json(path)
    found = config.get("model_type") if isinstance(config, dict) else None
    if found not in LOADERS:
        raise UserError(f"{model}: config.json says model_type {found!r}; {' or '.join(LOADERS)} can be converted")
    return LOADERS[found](model)


def longest_input(checkpoint: Checkpoint) -> int:
    """The largest number of tokens that a model takes."""
    return min(int(checkpoint.tokenizer.model_max_length), int(checkpoint.model.config.max_position_embeddings))


def full_length_texts(checkpoint: Checkpoint, texts: Sequence[str]) -> list[str]:
    """:data:`FULL_LENGTH_TEXTS` texts of at least as many tokens as the model takes, joined from shorter ones.

    Each begins at another place in `texts`, and goes on with the first text after the last one.
    """
    # The tokenizer warns of every text that is longer than the model takes.
    encoded = checkpoint.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    lengths = [len(ids) for ids in encoded]
    starts = [place * len(texts) // FULL_LENGTH_TEXTS for place in range(FULL_LENGTH_TEXTS if any(lengths) else 0)]
    return [_joined(texts, lengths, start, longest_input(checkpoint)) for start in starts]


def _joined(texts: Sequence[str], lengths: Sequence[int], start: int, tokens: int) -> str:
    joined: list[str] = []
    total = 0
    while total < tokens:
        index = (start + len(joined)) % len(texts)
        joined.append(texts[index])
        total += lengths[index]
    return " ".join(joined)
