"""The public verbs: distil a student, pretrain a teacher."""

import dataclasses
import hashlib
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerFast

from distilrubert.common.errors import UserError
from distilrubert.common.measurements import Measurements
from distilrubert.common.processes import is_first
from distilrubert.common.sentence_files import PoolingMode
from distilrubert.common.training.batching import Collator
from distilrubert.common.training.trainer import train
from distilrubert.common.training.training_run import TrainingRun
from distilrubert.distill.batches.masking import Masker
from distilrubert.distill.batches.span_masking import MASKS_VERSION, SpanMasker
from distilrubert.distill.corpus.store import Corpus, PairedCorpus, PairedText
from distilrubert.distill.corpus.tokenisation import tokenizer_sha256
from distilrubert.distill.distillation_settings import DistillationSettings, MaskedTrainingSettings
from distilrubert.distill.losses import SENTENCE_LOSSES, LossWeights
from distilrubert.distill.losses.objective import Objective
from distilrubert.distill.losses.term import Tokenizers
from distilrubert.distill.objective_settings import ObjectiveSettings
from distilrubert.distill.teacher_vectors import VectorCollator, WithVectors, vectors_of
from distilrubert.modeling.student import Student
from distilrubert.modeling.teacher import Teacher

logger = logging.getLogger(__name__)


def distill(
    teacher: Teacher,
    student: Student,
    corpus: Corpus,
    settings: DistillationSettings,
    folder: str | os.PathLike[str],
    seed: int,
    project: str = "distilrubert",
    pooling: PoolingMode = "mean",
) -> Measurements:
    """Train `student.model` in place to predict as `teacher` does.

    The call continues from the newest checkpoint in `folder`; when the run was finished, it only loads its end. The
    result is the same, bit for bit, as that of a run that was never stopped.

    Args:
        teacher: it is only read.
        student: with the teacher's vocabulary, or one of its own.
        corpus: text in the teacher's tokens, and in the student's where it has a vocabulary of its own.
        settings: losses, optimisation, bookkeeping.
        folder: gets ``checkpoints/`` and, with trackers, ``trackers/``. It belongs to this run: what else decides the
            student is compared with its checkpoints, the weights that it starts from are not, and only one call at
            a time may work in it.
        seed: of order, masks and dropout.
        project: the name that trackers file the run under: the recipe's.
        pooling: what the vector of a sentence is, for losses over these.

    Raises:
        UserError, Interrupted: as :func:`~distilrubert.common.training.trainer.train`.
    """
    is_paired = student.tokenizer.get_vocab() != teacher.tokenizer.get_vocab()
    tokenizers = Tokenizers(teacher.tokenizer, student.tokenizer) if is_paired else None
    objective = Objective(student.model, teacher.model, settings, tokenizers, pooling)
    settings = settings if objective.uses_head else _without_masks(settings)
    collator: Collator[Any]
    if is_paired:
        corpus, collator, epoch_tokens = _paired(corpus, teacher, student, settings, seed)
    else:
        collator, epoch_tokens = _masker(corpus, teacher.tokenizer, settings, seed), int(corpus.train.lengths.sum())
    examples: Any = corpus.train
    validation: Any = corpus.validation
    if settings.cache_teacher_vectors:
        collator = VectorCollator(collator)
        examples, validation = (
            WithVectors(part, vectors_of(teacher, side, pooling, Path(folder)))
            for part, side in zip((examples, validation), _teacher_sides(corpus), strict=True)
        )
    embeddings = student.model.get_input_embeddings()
    embeddings.requires_grad_(not settings.freeze_embeddings)
    try:
        return train(
            TrainingRun(
                case="distillation",
                section="distillation",
                objective=objective,
                examples=examples,
                validation=validation,
                collator=collator,
                settings=settings,
                folder=Path(folder),
                seed=seed,
                origin=_origin(corpus, teacher, student, settings, pooling, uses_head=objective.uses_head),
                epoch_tokens=epoch_tokens,
                project=project,
                find_unused_parameters=not objective.uses_head,
            )
        )
    finally:
        embeddings.requires_grad_(True)


def pretrain_teacher(
    teacher: Teacher,
    corpus: Corpus,
    settings: MaskedTrainingSettings,
    folder: str | os.PathLike[str],
    seed: int,
    project: str = "distilrubert",
) -> Measurements:
    """Train `teacher.model` in place on masked language modelling alone, with the same loop as :func:`distill`.

    Afterwards it is in evaluation mode without gradients, as a loaded teacher is.

    Args:
        teacher: one of random weights, say, from :func:`~distilrubert.modeling.teacher.new_teacher`.
        corpus: text in its tokens.
        settings: optimisation and bookkeeping.
        folder: gets ``checkpoints/`` and, with trackers, ``trackers/``.
        seed: of order, masks and dropout.
        project: the name that trackers file the run under: the recipe's.

    Raises:
        UserError, Interrupted: as :func:`~distilrubert.common.training.trainer.train`.
    """
    teacher.model.requires_grad_(True)
    try:
        return train(
            TrainingRun(
                case="pretraining",
                section="teacher.pretrain",
                objective=Objective(teacher.model, None, ObjectiveSettings(weights=LossWeights(mlm=1.0))),
                examples=corpus.train,
                validation=corpus.validation,
                collator=_masker(corpus, teacher.tokenizer, settings, seed),
                settings=settings,
                folder=Path(folder),
                seed=seed,
                origin={"corpus": _identity_of(corpus)},
                epoch_tokens=int(corpus.train.lengths.sum()),
                project=project,
            )
        )
    finally:
        teacher.model.requires_grad_(False)


def _teacher_sides(corpus: Corpus) -> list[Any]:
    """Both splits in the teacher's ids."""
    return [part.teacher if isinstance(part, PairedText) else part for part in (corpus.train, corpus.validation)]


def _without_masks(settings: DistillationSettings) -> DistillationSettings:
    """The settings of a student that nothing is predicted for: an encoder will never see a mask."""
    return settings.model_copy(update={"masking": settings.masking.model_copy(update={"probability": 0.0})})


def _masker(corpus: Corpus, tokenizer: PreTrainedTokenizerFast, settings: MaskedTrainingSettings, seed: int) -> Masker:
    if len(corpus.token_counts) != len(tokenizer):
        raise UserError(
            f"corpus: it was tokenised with {len(corpus.token_counts)} tokens, and the model has {len(tokenizer)}"
        )
    _check_tokenizer(corpus, "tokenizer", tokenizer)
    special, mask_id = tokenizer.all_special_ids, tokenizer.mask_token_id
    return Masker(settings.masking, corpus.token_counts, special, mask_id, seed, tokenizer.pad_token_id)


def _paired(
    corpus: Corpus, teacher: Teacher, student: Student, settings: DistillationSettings, seed: int
) -> tuple[Corpus, SpanMasker, int]:
    """The corpus in the tokens of both, its collator, and how many tokens the student reads in an epoch.

    A batch has room for the longer side of each example; the student reads its side alone.
    """
    pairs = _pairs_of(corpus, teacher, student)
    masker = SpanMasker(settings.masking, teacher.tokenizer, student.tokenizer, pairs.token_counts, seed)
    if settings.weights.first_token and is_first():
        _log_left_out(masker, pairs)
    both = dataclasses.replace(corpus, train=pairs.train, validation=pairs.validation)
    return both, masker, int(pairs.train.student.lengths.sum())


def _pairs_of(corpus: Corpus, teacher: Teacher, student: Student) -> PairedCorpus:
    size = len(corpus.pairs.token_counts) if corpus.pairs else 0
    if corpus.pairs is None or size != len(student.tokenizer):
        raise UserError(
            f"corpus: the student has a vocabulary of its own, {len(student.tokenizer)} tokens, and the corpus "
            f"{'was not tokenised with it' if not size else f'was tokenised with one of {size}'}"
        )
    _check_tokenizer(corpus, "tokenizer", teacher.tokenizer)
    _check_tokenizer(corpus, "student_tokenizer", student.tokenizer)
    return corpus.pairs


def _log_left_out(masker: SpanMasker, pairs: PairedCorpus) -> None:
    """Say which share of the spans ``first_token`` leaves out, from the first thousand examples."""
    examples = [pairs.train[i] for i in range(min(len(pairs.train), 1000))]
    if examples:
        share = masker.share_beginning_outside(examples)
        logger.info(
            "first_token leaves out %.1f %% of the spans: their first token is longer in the student, or begins a word "
            "in one vocabulary alone",
            100 * share,
        )


def _check_tokenizer(corpus: Corpus, key: str, tokenizer: PreTrainedTokenizerFast) -> None:
    """Refuse ids of another tokenizer; a corpus that was made by hand need not name its tokenizer."""
    made_with = corpus.manifest.get(key, {}).get("sha256")
    if made_with and made_with != tokenizer_sha256(tokenizer):
        raise UserError(
            f"corpus: it was tokenised with another {key.replace('_', ' ')} than the model has; build it anew"
        )


def _origin(
    corpus: Corpus,
    teacher: Teacher,
    student: Student,
    settings: DistillationSettings,
    pooling: PoolingMode,
    *,
    uses_head: bool,
) -> dict[str, Any]:
    """What decides the student beside settings and seed: a checkpoint of another origin is not continued."""
    origin: dict[str, Any] = {"corpus": _identity_of(corpus), "teacher": {"sha256": teacher.sha256()}}
    if any(getattr(settings.weights, name) for name in SENTENCE_LOSSES):
        origin["pooling"] = pooling
    if isinstance(corpus.train, PairedText):
        origin["student_tokenizer"] = tokenizer_sha256(student.tokenizer)
        if uses_head:
            origin["masks"] = f"version {MASKS_VERSION}"
    return origin


def _identity_of(corpus: Corpus) -> dict[str, Any]:
    digest = hashlib.sha256(np.ascontiguousarray(corpus.train.lengths).data)
    digest.update(np.ascontiguousarray(corpus.token_counts).data)
    return {"sequences": len(corpus.train), "tokens": int(corpus.train.lengths.sum()), "sha256": digest.hexdigest()}
