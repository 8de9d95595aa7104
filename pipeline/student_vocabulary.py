"""The stage that makes a vocabulary for the student, and what other stages need to know of it."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from transformers import AutoTokenizer, PretrainedConfig, PreTrainedTokenizerFast

from distilrubert.common.errors import UserError
from distilrubert.common.persistence import atomic_folder
from distilrubert.distill.corpus.store import load_corpus
from distilrubert.distill.corpus.vocabulary_texts import TextCounting, chosen_texts, texts_of_part
from distilrubert.modeling.checkpoints import limit_length, read_fast_tokenizer, read_model_config
from distilrubert.modeling.downloads import description_folder
from distilrubert.modeling.teacher import Teacher, new_config
from distilrubert.modeling.tokenizer_files import save_tokenizer
from distilrubert.modeling.trimming import (
    could_be_trimmed_to,
    count_needed,
    ids_in,
    load_needed,
    save_needed,
    trim_teacher,
    trim_tokenizer,
)
from distilrubert.modeling.word_counts import Normalization, SavedCounts, save_word_counts
from distilrubert.modeling.wordpiece import TrainedVocabulary, train_on_words
from distilrubert.pipeline.run import Run
from distilrubert.pipeline.sentence_encoder import sentence_modules
from distilrubert.pipeline.starting_student import starting_tokenizer
from distilrubert.pipeline.task_rows import texts_of_task
from distilrubert.pipeline.vocabulary_report import measure_vocabularies


class OwnVocabulary(NamedTuple):
    """A vocabulary of the student that is not its teacher's.

    Attributes:
        tokenizer: the student's tokenizer.
        is_trimmed: whether it is a part of the teacher's.
    """

    tokenizer: PreTrainedTokenizerFast
    is_trimmed: bool


def own_vocabulary(run: Run, teacher: PreTrainedTokenizerFast | None = None) -> OwnVocabulary | None:
    """The student's vocabulary, where it is not its teacher's: that of its stage, or of the student it starts from.

    Args:
        run: the run.
        teacher: the teacher's tokenizer, if it is at hand.

    Raises:
        UserError: if a student that the recipe starts from has its teacher's tokens and splits text in another way.
    """
    if start := run.recipe.student.start_from:
        own, its = starting_tokenizer(run), teacher or teacher_tokenizer(run)
        is_part = could_be_trimmed_to(its, own)
        if own.get_vocab() != its.get_vocab():
            return OwnVocabulary(own, is_part)
        if not is_part:
            raise UserError(
                f"student.start_from: the tokenizer of {start} has the teacher's tokens, but splits text in another way"
            )
        return None
    made = run.recipe.student.own_vocabulary()
    if made is None:
        return None
    own = AutoTokenizer.from_pretrained(run.student_vocabulary, trust_remote_code=False)
    return OwnVocabulary(own, made.trim is not None)


def teacher_tokenizer(run: Run) -> PreTrainedTokenizerFast:
    """The teacher's tokenizer by its files alone, which may be there before the teacher is."""
    teacher = run.recipe.teacher
    if teacher.pretrain:
        return AutoTokenizer.from_pretrained(run.vocabulary, trust_remote_code=False)
    assert teacher.model is not None
    tokenizer = read_fast_tokenizer(description_folder(teacher.model, teacher.revision), teacher.model)
    limit_length(tokenizer, teacher_config(run))
    return tokenizer


def corpus_tokenizers(run: Run) -> tuple[PreTrainedTokenizerFast, PreTrainedTokenizerFast | None]:
    """What the corpus is tokenised with: the tokenizer that both models share, or the teacher's and the student's."""
    its = teacher_tokenizer(run)
    own = own_vocabulary(run, its)
    if own is None:
        return its, None
    return (own.tokenizer, None) if own.is_trimmed else (its, own.tokenizer)


def fitted(run: Run, teacher: Teacher) -> tuple[Teacher, PreTrainedTokenizerFast | None]:
    """The teacher to distil, trimmed where its student is, and the student's tokenizer where it is a new one.

    Some teachers have more rows than tokens, for example up to a multiple of 64. A student of the same vocabulary does
    not get these rows: they could only be predicted by mistake.
    """
    own = own_vocabulary(run, teacher.tokenizer)
    if own is None:
        is_padded = teacher.model.config.vocab_size > len(teacher.tokenizer)
        return (trim_teacher(teacher, teacher.tokenizer) if is_padded else teacher), None
    return (trim_teacher(teacher, own.tokenizer), None) if own.is_trimmed else (teacher, own.tokenizer)


def held_out(run: Run) -> dict[str, Sequence[Any]]:
    """The held-out sequences in the ids of each model, ``teacher`` and ``student``."""
    corpus = load_corpus(run.corpus)
    if corpus.pairs:
        return {"teacher": corpus.validation, "student": corpus.pairs.validation.student}
    whole = teacher_tokenizer(run)
    own = own_vocabulary(run, whole)
    if own is None:
        return {"teacher": corpus.validation, "student": corpus.validation}
    rows_V = ids_in(whole, own.tokenizer)
    return {"teacher": _InOtherIds(corpus.validation, rows_V), "student": corpus.validation}


class _InOtherIds(Sequence[NDArray[np.int64]]):
    """Sequences of ids in the ids of another vocabulary, (V,), computed on access."""

    def __init__(self, sequences: Sequence[Any], others_V: NDArray[np.int64]) -> None:
        self._sequences, self._others_V = sequences, others_V

    def __len__(self) -> int:
        return len(self._sequences)

    def __getitem__(self, index: int) -> NDArray[np.int64]:  # type: ignore[override]  # nobody takes slices
        ids: NDArray[np.int64] = self._others_V[self._sequences[index]]
        return ids


def make_student_vocabulary(run: Run, folder: Path) -> None:
    """Trim the teacher's vocabulary, or train a new one, on the training part of the text; and report on it."""
    own = run.recipe.student.own_vocabulary()
    assert own is not None
    whole = teacher_tokenizer(run)
    counts_T = None
    lost: dict[str, float] = {}
    if own.trim:
        counts_T = _count_needed(run, folder, whole)
        made = trim_tokenizer(whole, counts_T, own.trim)
    else:
        trained = _train_vocabulary(run, folder, whole)
        made = trained.tokenizer
        lost = {
            "training_unknown_character_share": trained.unknown_character_share,
            "training_unknown_word_share": trained.unknown_word_share,
        }
    teacher = teacher_config(run)
    width = run.recipe.student.resolve(teacher, len(made)).dim
    vocabularies = {"teacher": (whole, teacher.hidden_size), "student": (made, width)}
    measured = measure_vocabularies(vocabularies, _texts(run, is_held_out=True), counts_T)
    measured.rows[-1].values.update(lost)
    measured.save(folder / "reports" / "vocabulary.json")
    with atomic_folder(folder / "student-vocabulary") as beside:
        save_tokenizer(made, beside)


def student_counts(run: Run, folder: Path) -> TextCounting:
    """What a student's vocabulary is made from, counted in the folder of its stage: words, or the teacher's tokens."""
    own = run.recipe.student.own_vocabulary()
    assert own is not None
    recipe, sample = run.recipe, own.train.sample if own.train else 1.0
    choose = partial(
        chosen_texts, corpus=recipe.corpus, seed=recipe.seed, prompts=_prompts(run), is_held_out=False, sample=sample
    )
    teacher = teacher_tokenizer(run)
    count = (
        partial(save_word_counts, normalization=Normalization.of(teacher))
        if own.train
        else partial(save_needed, teacher)
    )
    return TextCounting(count, recipe.corpus, folder, folder / "student-vocabulary", choose)


def _count_needed(run: Run, folder: Path, whole: PreTrainedTokenizerFast) -> NDArray[np.int64]:
    if not run.recipe.corpus.sources:
        return count_needed(whole, _texts(run, is_held_out=False))
    return load_needed(student_counts(run, folder).counted())


def _train_vocabulary(run: Run, folder: Path, whole: PreTrainedTokenizerFast) -> TrainedVocabulary:
    """A new vocabulary that reads letters as the teacher's does."""
    own = run.recipe.student.own_vocabulary()
    assert own is not None
    assert own.train is not None
    words = SavedCounts(student_counts(run, folder).counted())
    size, coverage, normalization = own.train.size, own.train.character_coverage, Normalization.of(whole)
    try:
        return train_on_words(words, size, whole.model_max_length, coverage, normalization)
    except UserError as error:
        raise UserError(f"student.vocabulary.train: {error}") from error


def _texts(run: Run, *, is_held_out: bool) -> Iterator[str]:
    """The texts of the part of the corpus that is held out, or of the other one, as the corpus will have them.

    Without a corpus they are those of the task.
    """
    if not run.recipe.corpus.sources:
        return texts_of_task(run, is_held_out=is_held_out)
    return texts_of_part(run.recipe.corpus, run.recipe.seed, _prompts(run), is_held_out=is_held_out)


def _prompts(run: Run) -> Sequence[str]:
    sentences = sentence_modules(run)
    return sentences.prompts if sentences else ()


def teacher_config(run: Run) -> PretrainedConfig:
    """The teacher's configuration, which may be there before the teacher is."""
    pretrain, model = run.recipe.teacher.pretrain, run.recipe.teacher.model
    if model:
        return read_model_config(description_folder(model, run.recipe.teacher.revision), model)
    assert pretrain is not None
    return new_config(
        pretrain.vocabulary_size,
        pretrain.max_positions,
        layers=pretrain.layers,
        dim=pretrain.dim,
        heads=pretrain.heads,
        hidden_dim=pretrain.hidden_dim,
    )
