"""The public verbs: distil a student, pretrain a teacher."""

import os
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from distilrubert.distill.corpus import Corpus
from distilrubert.distill.job import Job
from distilrubert.distill.losses import LossWeights
from distilrubert.distill.masking import Masker
from distilrubert.distill.objective import Objective, ObjectiveSettings
from distilrubert.distill.report import TrainingReport
from distilrubert.distill.settings import DistillationSettings, OptimizationSettings
from distilrubert.distill.trainer import train
from distilrubert.modeling.errors import UserError
from distilrubert.modeling.student import Student
from distilrubert.modeling.teacher import Teacher


def distill(
    teacher: Teacher,
    student: Student,
    corpus: Corpus,
    settings: DistillationSettings,
    folder: str | os.PathLike[str],
    seed: int,
) -> TrainingReport:
    """Train `student.model` in place to predict as `teacher` does.

    The call goes on from the newest checkpoint in `folder`; when the run was finished, it only loads its end. The
    result is the same, bit for bit, as that of a run that was never stopped.

    Args:
        teacher: it is only read.
        student: with the teacher's vocabulary.
        corpus: text in the teacher's tokens.
        settings: losses, optimisation, bookkeeping.
        folder: gets ``checkpoints/`` and, with trackers, ``trackers/``.
        seed: of order, masks and dropout.

    Raises:
        UserError, Interrupted: as :func:`~distilrubert.distill.trainer.train`.
    """
    return train(
        Job(
            case="distillation",
            section="distillation",
            objective=Objective(student.model, teacher.model, settings),
            corpus=corpus,
            masker=_masker(corpus, student.tokenizer, settings, seed),
            settings=settings,
            folder=Path(folder),
            seed=seed,
            origin={"teacher": {"name": teacher.name, "revision": teacher.revision}},
            leaves_weights_out=not (settings.weights.kl or settings.weights.mlm),
        )
    )


def pretrain_teacher(
    teacher: Teacher, corpus: Corpus, settings: OptimizationSettings, folder: str | os.PathLike[str], seed: int
) -> TrainingReport:
    """Train `teacher.model` in place on masked language modelling alone, with the same loop as :func:`distill`.

    Afterwards it is in evaluation mode without gradients, as a loaded teacher is.

    Args:
        teacher: one of random weights, say, from :func:`~distilrubert.modeling.teacher.new_teacher`.
        corpus: text in its tokens.
        settings: optimisation and bookkeeping.
        folder: gets ``checkpoints/`` and, with trackers, ``trackers/``.
        seed: of order, masks and dropout.

    Raises:
        UserError, Interrupted: as :func:`~distilrubert.distill.trainer.train`.
    """
    teacher.model.requires_grad_(True)
    try:
        return train(
            Job(
                case="pretraining",
                section="teacher.pretrain",
                objective=Objective(teacher.model, None, ObjectiveSettings(weights=LossWeights(mlm=1.0))),
                corpus=corpus,
                masker=_masker(corpus, teacher.tokenizer, settings, seed),
                settings=settings,
                folder=Path(folder),
                seed=seed,
                origin={},
            )
        )
    finally:
        teacher.model.requires_grad_(False)


def _masker(corpus: Corpus, tokenizer: PreTrainedTokenizerFast, settings: OptimizationSettings, seed: int) -> Masker:
    if len(corpus.token_counts) != len(tokenizer):
        raise UserError(
            f"corpus: it was tokenised with {len(corpus.token_counts)} pieces, and the model has {len(tokenizer)}"
        )
    return Masker(
        settings.masking,
        corpus.token_counts,
        tokenizer.all_special_ids,
        tokenizer.mask_token_id,
        len(tokenizer),
        seed,
    )
