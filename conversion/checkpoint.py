"""The checkpoint that files are made of, and its own files: configuration, safetensors, tokenizer."""

import dataclasses
import os
from collections.abc import Callable

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distilrubert.common.errors import UserError
from distilrubert.common.persistence import read_json
from distilrubert.modeling.checkpoints import checkpoint_folder
from distilrubert.modeling.student import Student, load_student
from distilrubert.modeling.teacher import Teacher, load_teacher

Checkpoint = Student | Teacher


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
