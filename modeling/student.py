"""Students: DistilBERT masked language models made out of a teacher, saved and loaded."""

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
    """Make a student whose every weight comes from the teacher, or none where the architecture says ``random``.

    With all of the teacher's layers, width and vocabulary it computes the teacher's hidden states and logits;
    :mod:`~distilrubert.modeling.initialisation` says what is lost with less.

    Args:
        teacher: it is left as it is; the student's weights are copies.
        architecture: the student's shape.
        seed: of random weights; the global generator is left alone.
        tokenizer: a trained vocabulary of the student's own; by default it is the teacher's. For a trimmed one,
            the teacher is trimmed: :func:`~distilrubert.modeling.trimming.trim_teacher`.
        token_counts: how often the corpus has each piece of the teacher, (T,): weights of the pieces that an
            embedding in another vocabulary is made of. None counts each once.

    Raises:
        UserError: if no such student can be made from this teacher.
    """
    its = teacher.model.config
    own = tokenizer or teacher.tokenizer
    size = len(tokenizer) if tokenizer else None
    shape, weights = architecture.resolve(its, size), None
    if shape.initialise_from is not None:
        averaging_VT = averaging_matrix(teacher.tokenizer, tokenizer, token_counts) if tokenizer else None
        weights = initial_weights(teacher.model, shape, averaging_VT)
    if tokenizer is None and shape.vocabulary_size != its.vocab_size:
        raise UserError(
            f"student: vocabulary {shape.vocabulary_size} (teacher: {its.vocab_size}): a vocabulary of its own is "
            "needed; student.vocabulary says which"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = DistilBertForMaskedLM(student_config(architecture, its, own.pad_token_id, size))
    if weights is not None:
        model.load_state_dict(weights)
    return Student(model.eval(), student_tokenizer(own))


def save_student(student: Student, folder: str | os.PathLike[str]) -> None:
    """Write config.json, model.safetensors and all tokenizer files; whole or not at all.

    Raises:
        UserError: if it cannot be written; an existing folder is then as it was.
    """
    with atomic_folder(folder) as beside:
        save_checkpoint(student.model, student.tokenizer, beside)


def load_student(model: str | os.PathLike[str], revision: str | None = None) -> Student:
    """Load a student with its head, in fp32 and evaluation mode.

    Args:
        model: a folder, or the id of a model on the Hub.
        revision: branch, tag or commit on the Hub.

    Raises:
        UserError: if there is no whole DistilBERT masked language model with its fast tokenizer.
    """
    name = os.fspath(model)
    folder = checkpoint_folder(model, revision)
    read_config(folder, name, "distilbert")
    distilbert = load_masked_lm(DistilBertForMaskedLM, folder, name)
    config = distilbert.config
    tokenizer = load_fast_tokenizer(folder, name, config.vocab_size, config.max_position_embeddings)
    return Student(distilbert, tokenizer)
