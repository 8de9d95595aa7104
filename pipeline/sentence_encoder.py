"""A run that makes an encoder of sentences: what its vectors are."""

from pathlib import Path

from distilrubert.modeling.downloads import checkpoint_folder
from distilrubert.modeling.sentence_modules import SentenceModules
from distilrubert.pipeline.run import Run


def teacher_folder(run: Run) -> Path:
    """The teacher's checkpoint: the one that the recipe names, or the one that it has trained."""
    teacher = run.recipe.teacher
    return checkpoint_folder(teacher.model, teacher.revision) if teacher.model else run.teacher


def sentence_modules(run: Run) -> SentenceModules | None:
    """What the vectors of the student's sentences are; None where it is not made to encode sentences.

    Raises:
        UserError: as :meth:`~distilrubert.modeling.sentence_modules.SentenceSettings.completed`.
    """
    sentences = run.recipe.sentences
    return sentences.completed(teacher_folder(run)) if sentences else None
