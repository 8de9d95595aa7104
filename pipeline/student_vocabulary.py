"""The stage that makes a vocabulary for the student, and what other stages need to know of it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoTokenizer, PretrainedConfig, PreTrainedTokenizerFast

from distilrubert.common.errors import UserError
from distilrubert.common.persistence import atomic_folder
from distilrubert.distill.corpus.store import load_corpus
from distilrubert.modeling.checkpoints import read_model_config
from distilrubert.modeling.downloads import checkpoint_folder
from distilrubert.modeling.teacher import Teacher, load_teacher, new_config
from distilrubert.modeling.tokenizer_files import save_tokenizer
from distilrubert.modeling.trimming import (
    count_needed,
    ids_in,
    trim_teacher,
    trim_tokenizer,
)
from distilrubert.modeling.wordpiece import train_wordpiece
from distilrubert.pipeline.run import Run
from distilrubert.pipeline.sentence_encoder import sentence_modules
from distilrubert.pipeline.vocabulary_report import measure_vocabularies, texts_of_part


def has_own_vocabulary(run: Run) -> bool:
    """Whether a vocabulary is made for the student."""
    return run.recipe.student.own_vocabulary() is not None


def is_trimmed(run: Run) -> bool:
    """Whether that vocabulary is a part of the teacher's."""
    own = run.recipe.student.own_vocabulary()
    return own is not None and own.trim is not None


def teacher_tokenizer(run: Run) -> PreTrainedTokenizerFast:
    """The teacher's tokenizer, which may be there before the teacher is."""
    if run.recipe.teacher.pretrain:
        return AutoTokenizer.from_pretrained(run.vocabulary, trust_remote_code=False)
    teacher = run.recipe.teacher
    assert teacher.model is not None
    return load_teacher(teacher.model, teacher.revision).tokenizer


def corpus_tokenizers(run: Run) -> tuple[PreTrainedTokenizerFast, PreTrainedTokenizerFast | None]:
    """What the corpus is tokenised with: the tokenizer that both models share, or the teacher's and the student's."""
    if not has_own_vocabulary(run):
        return teacher_tokenizer(run), None
    own = AutoTokenizer.from_pretrained(run.student_vocabulary, trust_remote_code=False)
    return (own, None) if is_trimmed(run) else (teacher_tokenizer(run), own)


def fitted(run: Run, teacher: Teacher) -> tuple[Teacher, PreTrainedTokenizerFast | None]:
    """The teacher to distil, trimmed where its student is, and the student's tokenizer where it is a new one.

    Some teachers have more rows than tokens, for example up to a multiple of 64. A student of the same vocabulary does
    not get these rows: they could only be predicted by mistake.
    """
    if not has_own_vocabulary(run):
        is_padded = teacher.model.config.vocab_size > len(teacher.tokenizer)
        return (trim_teacher(teacher, teacher.tokenizer) if is_padded else teacher), None
    own = AutoTokenizer.from_pretrained(run.student_vocabulary, trust_remote_code=False)
    return (trim_teacher(teacher, own), None) if is_trimmed(run) else (teacher, own)


def held_out(run: Run) -> dict[str, Sequence[Any]]:
    """The held-out sequences in the ids of each model, ``teacher`` and ``student``."""
    corpus = load_corpus(run.corpus)
    if corpus.pairs:
        return {"teacher": corpus.validation, "student": corpus.pairs.validation.student}
    if not is_trimmed(run):
        return {"teacher": corpus.validation, "student": corpus.validation}
    rows_V = ids_in(
        teacher_tokenizer(run), AutoTokenizer.from_pretrained(run.student_vocabulary, trust_remote_code=False)
    )
    sequences = list(corpus.validation)
    return {"teacher": [rows_V[np.asarray(ids)] for ids in sequences], "student": sequences}


def make_student_vocabulary(run: Run, folder: Path) -> None:
    """Trim the teacher's vocabulary, or train a new one, on the training part of the corpus; and report on it."""
    own = run.recipe.student.own_vocabulary()
    assert own is not None
    whole = teacher_tokenizer(run)
    texts = _texts(run, is_held_out=False)
    counts_T = None
    lost: dict[str, float] = {}
    if own.trim:
        counts_T = count_needed(whole, texts)
        made = trim_tokenizer(whole, counts_T, own.trim)
    else:
        assert own.train is not None
        try:
            trained = train_wordpiece(
                texts, own.train.size, whole.model_max_length, character_coverage=own.train.character_coverage
            )
        except UserError as error:
            raise UserError(f"student.vocabulary.train: {error}") from error
        made = trained.tokenizer
        lost = {
            "training_unknown_character_share": trained.unknown_character_share,
            "training_unknown_word_share": trained.unknown_word_share,
        }
    teacher = teacher_config(run)
    width = run.recipe.student.resolve(teacher, len(made)).dim
    vocabularies = {"teacher": (whole, teacher.hidden_size), "student": (made, width)}
    measured = measure_vocabularies(vocabularies, list(_texts(run, is_held_out=True)), counts_T)
    measured.rows[-1].values.update(lost)
    measured.save(folder / "reports" / "vocabulary.json")
    with atomic_folder(folder / "student-vocabulary") as beside:
        save_tokenizer(made, beside)


def _texts(run: Run, *, is_held_out: bool) -> Iterator[str]:
    """The texts of the part of the corpus that is held out, or of the other one, as the corpus will have them."""
    sentences = sentence_modules(run)
    prompts = sentences.prompts if sentences else ()
    return texts_of_part(run.recipe.corpus, run.recipe.seed, prompts, is_held_out=is_held_out)


def teacher_config(run: Run) -> PretrainedConfig:
    """The teacher's configuration, which may be there before the teacher is."""
    pretrain, model = run.recipe.teacher.pretrain, run.recipe.teacher.model
    if model:
        return read_model_config(checkpoint_folder(model, run.recipe.teacher.revision), model)
    assert pretrain is not None
    return new_config(
        pretrain.vocabulary_size,
        pretrain.max_positions,
        layers=pretrain.layers,
        dim=pretrain.dim,
        heads=pretrain.heads,
        hidden_dim=pretrain.hidden_dim,
    )
