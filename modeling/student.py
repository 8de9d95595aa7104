"""Students: DistilBERT masked language models that are built from a teacher, saved and loaded."""

import dataclasses
import os

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DistilBertForMaskedLM, PreTrainedTokenizerFast

from distilrubert.common.errors import UserError
from distilrubert.common.persistence import atomic_folder
from distilrubert.modeling.architecture import StudentArchitecture, student_config
from distilrubert.modeling.checkpoints import (
    checkpoint_folder,
    load_fast_tokenizer,
    load_masked_lm,
    read_config,
    save_checkpoint,
)
from distilrubert.modeling.initialisation import averaging_matrix, initial_weights
from distilrubert.modeling.teacher import Teacher
from distilrubert.modeling.tokenizer_files import student_tokenizer


@dataclasses.dataclass(frozen=True)
class Student:
    """A DistilBERT and its tokenizer: ``model(**tokenizer(text, return_tensors="pt"))``.

    Attributes:
        model: in fp32.
        tokenizer: yields input_ids and attention_mask only.
    """

    model: DistilBertForMaskedLM
    tokenizer: PreTrainedTokenizerFast


def build_student(
    teacher: Teacher,
    architecture: StudentArchitecture,
    seed: int = 0,
    tokenizer: PreTrainedTokenizerFast | None = None,
    token_counts: NDArray[np.int64] | None = None,
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

    Raises:
        UserError: if no such student can be made from this teacher.
    """
    config = teacher.model.config
    kept_tokenizer = tokenizer or teacher.tokenizer
    size = len(tokenizer) if tokenizer else None
    shape, weights = architecture.resolve(config, size), None
    if shape.initialise_from is not None:
        averaging_VT = averaging_matrix(teacher.tokenizer, tokenizer, token_counts) if tokenizer else None
        weights = initial_weights(teacher.model, shape, averaging_VT)
    if tokenizer is None and shape.vocabulary_size != config.vocab_size:
        raise UserError(
            f"student: its vocabulary of {shape.vocabulary_size} tokens (teacher: {config.vocab_size}) must be made "
            "first; student.vocabulary says how"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = DistilBertForMaskedLM(student_config(architecture, config, kept_tokenizer.pad_token_id, size))
    if weights is not None:
        model.load_state_dict(weights)
    return Student(model.eval(), student_tokenizer(kept_tokenizer))


def save_student(student: Student, folder: str | os.PathLike[str]) -> None:
    """Write config.json, model.safetensors and all tokenizer files; the folder is complete or absent.

    Raises:
        UserError: if it cannot be written; an existing folder is then unchanged.
    """
    with atomic_folder(folder) as beside:
        save_checkpoint(student.model, student.tokenizer, beside)


def load_student(model: str | os.PathLike[str], revision: str | None = None) -> Student:
    """Load a student with its head, in fp32 and evaluation mode.

    Args:
        model: a folder, or the id of a model on the Hub.
        revision: branch, tag or commit on the Hub.

    Raises:
        UserError: if there is no complete DistilBERT masked language model with a fast tokenizer.
    """
    name = os.fspath(model)
    folder = checkpoint_folder(model, revision)
    read_config(folder, name, "distilbert")
    distilbert = load_masked_lm(DistilBertForMaskedLM, folder, name)
    config = distilbert.config
    tokenizer = load_fast_tokenizer(folder, name, config.vocab_size, config.max_position_embeddings)
    return Student(distilbert, tokenizer)
