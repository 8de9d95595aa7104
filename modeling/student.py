"""Students: models that are built from a teacher, saved and loaded."""

import dataclasses
import os

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForMaskedLM, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from distilrubert.common.errors import UserError
from distilrubert.common.persistence import atomic_folder
from distilrubert.modeling.architecture import StudentArchitecture, student_config
from distilrubert.modeling.checkpoints import load_pretrained, save_checkpoint
from distilrubert.modeling.families import STUDENT_TYPES, family_of
from distilrubert.modeling.heads import has_head
from distilrubert.modeling.importance import Importance
from distilrubert.modeling.initialisation import averaging_matrix, initial_weights
from distilrubert.modeling.roles import set_weights
from distilrubert.modeling.teacher import Teacher
from distilrubert.modeling.tokenizer_files import student_tokenizer


@dataclasses.dataclass(frozen=True)
class Student:
    """A stock model of transformers and its tokenizer: ``model(**tokenizer(text, return_tensors="pt"))``.

    Attributes:
        model: in fp32; with a masked-language head where its teacher has one, else an encoder.
        tokenizer: yields input_ids and attention_mask only.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast


def build_student(
    teacher: Teacher,
    architecture: StudentArchitecture,
    seed: int = 0,
    tokenizer: PreTrainedTokenizerFast | None = None,
    token_counts: NDArray[np.int64] | None = None,
    importance: Importance | None = None,
) -> Student:
    """Make a student whose weights all come from the teacher, or are random if the architecture says ``random``.

    With all layers, the width and the vocabulary of the teacher it computes the teacher's hidden states and logits;
    :mod:`~distilrubert.modeling.initialisation` says what is lost with less.

    Args:
        teacher: it is not changed; the student's weights are copies.
        architecture: the student's shape.
        seed: of random weights; the global generator is not used.
        tokenizer: the student's trained vocabulary; None takes the teacher's. For a trimmed vocabulary, trim the
            teacher: :func:`~distilrubert.modeling.trimming.trim_teacher`.
        token_counts: how often the corpus has each token of the teacher, (T,); they weight the teacher's embeddings
            that make up one in a trained vocabulary. None counts each once.
        importance: of the teacher's parts, for a student that has fewer of them; None ranks them by their weights.

    Raises:
        UserError: if no such student can be made from this teacher.
    """
    config = teacher.model.config
    kept_tokenizer = tokenizer or teacher.tokenizer
    size = len(tokenizer) if tokenizer else None
    shape = architecture.resolve(config, size)
    if tokenizer is None and shape.vocabulary_size != config.vocab_size:
        raise UserError(
            f"student: its vocabulary of {shape.vocabulary_size} tokens (teacher: {config.vocab_size}) must be made "
            "first; student.vocabulary says how"
        )
    own = student_config(architecture, config, kept_tokenizer, size)
    model = new_model(own, seed, with_head=has_head(teacher.model))
    if shape.initialise_from is not None:
        averaging_VT = averaging_matrix(teacher.tokenizer, tokenizer, token_counts) if tokenizer else None
        set_weights(model, initial_weights(teacher.model, own, shape, averaging_VT, importance))
    return Student(model, student_tokenizer(kept_tokenizer))


def new_model(config: PretrainedConfig, seed: int, *, with_head: bool = True) -> PreTrainedModel:
    """A model with random weights of its seed, in fp32 and evaluation mode; the global generator is not used."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForMaskedLM.from_config(
            config, dtype=torch.float32, attn_implementation="sdpa", trust_remote_code=False
        )
    encoder_or_all: PreTrainedModel = model if with_head else model.base_model
    return encoder_or_all.eval()


def save_student(student: Student, folder: str | os.PathLike[str]) -> None:
    """Write config.json, model.safetensors and all tokenizer files; the folder is complete or absent.

    Raises:
        UserError: if it cannot be written; an existing folder is then unchanged.
    """
    with atomic_folder(folder) as beside:
        save_checkpoint(student.model, student.tokenizer, beside)


def load_student(model: str | os.PathLike[str], revision: str | None = None) -> Student:
    """Load a student in fp32 and evaluation mode.

    Args:
        model: a folder, or the id of a model on the Hub.
        revision: branch, tag or commit on the Hub.

    Raises:
        UserError: as :func:`~distilrubert.modeling.checkpoints.load_pretrained`, and if students are never of its type.
    """
    loaded = load_pretrained(model, revision)
    model_type = loaded.model.config.model_type
    if family_of(loaded.model.config).student:
        raise UserError(
            f"{os.fspath(model)}: config.json says model_type {model_type!r}; a student is {', '.join(STUDENT_TYPES)}"
        )
    return Student(*loaded)
