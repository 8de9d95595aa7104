"""The stages of a run, from the corpus to the card."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from distilrubert.common.formats import FORMATS
from distilrubert.common.persistence import atomic_folder
from distilrubert.common.sampling import evenly
from distilrubert.conversion.model_folder import convert
from distilrubert.conversion.parity import default_sentences
from distilrubert.distill.corpus.build import CorpusBuild
from distilrubert.distill.corpus.parts import SharedWork
from distilrubert.distill.corpus.store import load_corpus
from distilrubert.distill.corpus.vocabulary_texts import TextCounting
from distilrubert.distill.distillation import distill, pretrain_teacher
from distilrubert.distill.pruning import importance_on
from distilrubert.evaluation.evaluation_settings import QualitySettings
from distilrubert.evaluation.sentences.frozen_vectors import Prompts
from distilrubert.evaluation.sentences.suite_scores import measure_suite
from distilrubert.evaluation.sentences.suites import load_suite
from distilrubert.evaluation.speed.benchmark import SpeedCase, Text, cases_of, measure_speed
from distilrubert.evaluation.tasks.quality import measure_quality
from distilrubert.model_card.card import write_card
from distilrubert.modeling.sentence_modules import SentenceModules
from distilrubert.modeling.student import build_student, load_student, save_student
from distilrubert.modeling.teacher import Teacher, load_teacher, new_teacher, save_teacher
from distilrubert.modeling.tokenizer_files import save_tokenizer
from distilrubert.modeling.word_counts import SavedCounts, save_word_counts
from distilrubert.modeling.wordpiece import train_on_words
from distilrubert.pipeline import stage_inputs
from distilrubert.pipeline.commits import pinned_task, pinned_tasks
from distilrubert.pipeline.engine import Stage
from distilrubert.pipeline.exporting import exporters_of
from distilrubert.pipeline.run import Run
from distilrubert.pipeline.sentence_encoder import sentence_modules, teacher_folder
from distilrubert.pipeline.starting_student import describe_start, starting_student
from distilrubert.pipeline.student_vocabulary import (
    corpus_tokenizers,
    fitted,
    held_out,
    make_student_vocabulary,
    own_vocabulary,
    student_counts,
)
from distilrubert.pipeline.task_rows import test_texts
from distilrubert.pipeline.task_stages import (
    distil_on_task,
    export_and_score,
    finetune_alone,
    finetune_teacher,
    make_start,
    task_teacher_folder,
)

PARITY_SENTENCES = 256
# Up to the corpus, in order.
SHARED_STAGES = ("vocabulary", "student-vocabulary", "corpus")


def stages_of(run: Run) -> list[Stage]:
    """The stages that a recipe needs, in order."""
    task, is_general = run.recipe.task, bool(run.recipe.corpus.sources)
    needed = {
        "vocabulary": run.recipe.teacher.pretrain is not None,
        "teacher": run.recipe.teacher.pretrain is not None,
        "corpus": is_general,
        "student": is_general,
        "student-vocabulary": run.recipe.student.own_vocabulary() is not None,
        "conversion": task is None,
        "quality": task is None,
        "suite": task is None and run.recipe.evaluation.suite is not None,
        "task-teacher": task is not None and task.teacher is None,
        "task-start": task is not None and run.recipe.student.start_from is None and not is_general,
        "task-alone": task is not None,
        "task-student": task is not None,
        "task-files": task is not None,
    }
    return [stage for stage in _STAGES if needed.get(stage.name, True)]


def training_stages_of(run: Run) -> list[str]:
    """The names of those of :func:`stages_of` up to the finished student."""
    names = [stage.name for stage in stages_of(run)]
    return names[: 1 + names.index("task-student" if run.recipe.task else "student")]


def teacher_of(run: Run) -> Teacher:
    """The recipe's teacher: the one it names, or the one it has trained."""
    teacher = run.recipe.teacher
    return load_teacher(teacher.model, teacher.revision) if teacher.model else load_teacher(run.teacher)


def _train_vocabulary(run: Run, folder: Path) -> None:
    pretrain = run.recipe.teacher.pretrain
    assert pretrain is not None
    words = SavedCounts(_teacher_words(run, folder).counted())
    tokenizer = train_on_words(words, pretrain.vocabulary_size, pretrain.max_positions).tokenizer
    with atomic_folder(folder / "vocabulary") as beside:
        save_tokenizer(tokenizer, beside)


def _teacher_words(run: Run, folder: Path) -> TextCounting:
    return TextCounting(save_word_counts, run.recipe.corpus, folder, folder / "vocabulary")


def can_be_shared(run: Run, stage: str) -> bool:
    """Whether a recipe has one of the :data:`SHARED_STAGES`."""
    return stage in [each.name for each in stages_of(run)]


def shared_work(run: Run, stage: str, folder: Path, processes: int | None) -> SharedWork:
    """What of such a stage is shared, in the folder of the stage; `processes` as in :func:`corpus_build`."""
    if stage == "corpus":
        return corpus_build(run, folder, processes)
    return _teacher_words(run, folder) if stage == "vocabulary" else student_counts(run, folder)


def corpus_build(run: Run, folder: Path, processes: int | None = None) -> CorpusBuild:
    """How the corpus of a run is built in the folder of its stage; `processes` tokenise, if the recipe does not say."""
    tokenizer, own = corpus_tokenizers(run)
    sentences = sentence_modules(run)
    return CorpusBuild(
        run.recipe.corpus,
        tokenizer,
        folder / "corpus",
        run.recipe.seed,
        student_tokenizer=own,
        prompts=sentences.prompts if sentences else (),
        processes=processes,
    )


def _build_corpus(run: Run, folder: Path) -> None:
    corpus_build(run, folder).build()


def _pretrain_teacher(run: Run, folder: Path) -> None:
    pretrain = run.recipe.teacher.pretrain
    assert pretrain is not None
    teacher = new_teacher(
        AutoTokenizer.from_pretrained(run.vocabulary, trust_remote_code=False),
        layers=pretrain.layers,
        dim=pretrain.dim,
        heads=pretrain.heads,
        hidden_dim=pretrain.hidden_dim,
        seed=run.recipe.seed,
    )
    report = pretrain_teacher(teacher, load_corpus(run.corpus), pretrain, folder, run.recipe.seed, run.recipe.name)
    if run.launch.leads:
        report.save(folder / "reports" / "pretraining.json")
        save_teacher(teacher, folder / "teacher")


def _distill(run: Run, folder: Path) -> None:
    teacher, tokenizer = fitted(run, teacher_of(run))
    corpus = load_corpus(run.corpus)
    settings, seed, name = run.recipe.distillation, run.recipe.seed, run.recipe.name
    shape, importance = run.recipe.student, None
    if shape.start_from:
        student, start = starting_student(run, teacher.model.config), describe_start(run)
    else:
        pruning = shape.pruning()
        # A preset may have the teacher's sizes.
        if pruning and shape.resolve(teacher.model.config).is_smaller_than(teacher.model.config):
            importance = importance_on(teacher, corpus, pruning.sequences, settings.masking, seed, folder)
        student = build_student(teacher, shape, seed, tokenizer, corpus.token_counts, importance)
        start = shape.describe_initialisation(teacher.model.config)
    sentences = sentence_modules(run) or SentenceModules()
    report = distill(teacher, student, corpus, settings, folder, seed, name, sentences.pooling)
    if run.launch.leads:
        report.details["initialisation"] = start | ({"pruned_on_texts": importance.texts} if importance else {})
        # What the card of a later phase tells of this one.
        report.details.update(name=name, max_length=run.recipe.corpus.max_length)
        report.save(folder / "reports" / "training.json")
        save_student(student, folder / "student")


def _convert(run: Run, folder: Path) -> None:
    # A corpus may have no held-out text.
    sentences = _decoded(run, held_out(run)["student"][:PARITY_SENTENCES]) or default_sentences()
    settings, encoder = run.recipe.conversion, sentence_modules(run)
    parity = convert(run.student, folder / "exported", settings, sentences, _calibration_of(run), encoder)
    parity.save(folder / "reports" / "parity.json")


def _decoded(run: Run, sequences: Sequence[Any]) -> list[str]:
    """The texts of sequences in the student's ids."""
    return list(load_student(run.student).tokenizer.batch_decode(sequences, skip_special_tokens=True))


def _calibration_of(run: Run) -> list[str]:
    """Training text, evenly out of the corpus, back from its tokens."""
    tokenizer, _ = corpus_tokenizers(run)
    train = load_corpus(run.corpus).train
    chosen = evenly(range(len(train)), run.recipe.conversion.calibration_sentences)
    return list(tokenizer.batch_decode([train[index] for index in chosen], skip_special_tokens=True))


def _measure_speed(run: Run, folder: Path) -> None:
    returned = "feature-extraction"
    teacher = teacher_folder(run)
    if run.recipe.task:
        returned, teacher = pinned_task(run).task_kind.export_task, task_teacher_folder(run)
    cases = [SpeedCase("teacher-pytorch-fp32", teacher, "pytorch-fp32", returned)]
    cases += cases_of("student", run.exported, task=returned)
    settings = run.recipe.evaluation.speed
    texts = _texts_for_speed(run, settings.texts) if settings.texts else []
    measure_speed(cases, settings, texts=texts).save(folder / "reports" / "speed.json")


def _texts_for_speed(run: Run, count: int) -> Sequence[Text]:
    """Texts that nothing was trained on: rows of the task's test part, or of the held-out text with its prompts."""
    if run.recipe.task:
        return evenly(test_texts(pinned_task(run)), count)
    return _decoded(run, evenly(held_out(run)["student"], count))


def _measure_quality(run: Run, folder: Path) -> None:
    evaluation, sequences = run.recipe.evaluation, held_out(run)
    tasks, probed = pinned_tasks(run)
    measure_quality(
        {"teacher": teacher_folder(run), "student": run.student},
        tasks,
        QualitySettings(intrinsic=evaluation.intrinsic, finetuning=evaluation.finetuning, seeds=evaluation.seeds),
        sequences["teacher"],
        run.scores,
        own_held_out={"student": sequences["student"]} if own_vocabulary(run) else None,
        exporters={"student": exporters_of(evaluation.exported.cases, run.recipe.conversion)},
        processes=evaluation.processes,
        probed=probed,
    ).save(folder / "reports" / "quality.json")


def _measure_suite(run: Run, folder: Path) -> None:
    suite, encoder = run.recipe.evaluation.suite, sentence_modules(run)
    assert suite is not None
    formats = (FORMATS[case] for case in run.recipe.conversion.cases)
    measure_suite(
        {"teacher": teacher_folder(run), "student": run.exported},
        load_suite(suite),
        run.scores,
        {"student": [file for file in formats if file.precision == "int8" and file.task is None and file.runs_here]},
        Prompts(encoder.query_prompt, encoder.document_prompt) if encoder else None,
    ).save(folder / "reports" / "suite.json")


def _assemble_repository(run: Run, folder: Path) -> None:
    """Make hub/ of the exported files, the reports and the card."""
    with atomic_folder(folder / "hub") as hub:
        shutil.copytree(run.exported, hub, copy_function=_link_or_copy, dirs_exist_ok=True)
        write_card(run.folder, hub, run.endpoint)


def _link_or_copy(source: str, target: str) -> None:
    # The files are large, and neither stage changes one in place.
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


_STAGES = (
    Stage(
        name="vocabulary",
        title="training the teacher's vocabulary",
        after=(),
        inputs=stage_inputs.of_vocabulary,
        outputs=("vocabulary",),
        perform=_train_vocabulary,
    ),
    Stage(
        name="student-vocabulary",
        title="making the student's vocabulary",
        after=("vocabulary",),
        inputs=stage_inputs.of_student_vocabulary,
        outputs=("student-vocabulary", "reports/vocabulary.json"),
        perform=make_student_vocabulary,
    ),
    Stage(
        name="corpus",
        title="tokenising the corpus",
        after=("vocabulary", "student-vocabulary"),
        inputs=stage_inputs.of_corpus,
        outputs=("corpus",),
        perform=_build_corpus,
    ),
    Stage(
        name="teacher",
        title="pretraining the teacher",
        after=("vocabulary", "corpus"),
        inputs=stage_inputs.of_teacher,
        outputs=("teacher", "reports/pretraining.json"),
        perform=_pretrain_teacher,
        collective=True,
    ),
    Stage(
        name="student",
        title="distilling the student",
        after=("student-vocabulary", "corpus", "teacher"),
        inputs=stage_inputs.of_student,
        outputs=("student", "reports/training.json"),
        perform=_distill,
        collective=True,
    ),
    Stage(
        name="task-teacher",
        title="fine-tuning the teacher on the task",
        after=("vocabulary", "teacher"),
        inputs=stage_inputs.of_task_teacher,
        outputs=("task-teacher", "reports/task-teacher.json"),
        perform=finetune_teacher,
        collective=True,
    ),
    Stage(
        name="task-start",
        title="making the student from layers of the teacher",
        after=("student-vocabulary",),
        inputs=stage_inputs.of_task_start,
        outputs=("task-start",),
        perform=make_start,
    ),
    Stage(
        name="task-alone",
        title="fine-tuning the student without a teacher, to compare",
        after=("student-vocabulary", "student", "task-start"),
        inputs=stage_inputs.of_task_alone,
        outputs=("task-alone", "reports/task-alone.json"),
        perform=finetune_alone,
        collective=True,
    ),
    Stage(
        name="task-student",
        title="distilling the student on the task",
        after=("student-vocabulary", "student", "task-start", "task-teacher"),
        inputs=stage_inputs.of_task_student,
        outputs=("task-student", "reports/task-student.json"),
        perform=distil_on_task,
        collective=True,
    ),
    Stage(
        name="task-files",
        title="exporting the student of the task, and scoring it and its files",
        after=("task-teacher", "task-alone", "task-student"),
        inputs=stage_inputs.of_task_files,
        outputs=("exported", "reports/finetuning.json"),
        perform=export_and_score,
    ),
    Stage(
        name="conversion",
        title="exporting the student and comparing the files with it",
        after=("vocabulary", "student-vocabulary", "corpus", "student"),
        inputs=stage_inputs.of_conversion,
        outputs=("exported", "reports/parity.json"),
        perform=_convert,
    ),
    Stage(
        name="speed",
        title="measuring speed",
        after=("teacher", "conversion", "task-teacher", "task-files"),
        inputs=stage_inputs.of_speed,
        outputs=("reports/speed.json",),
        perform=_measure_speed,
    ),
    Stage(
        name="quality",
        title="measuring quality",
        after=("vocabulary", "student-vocabulary", "corpus", "teacher", "student"),
        inputs=stage_inputs.of_quality,
        outputs=("reports/quality.json",),
        perform=_measure_quality,
    ),
    Stage(
        name="suite",
        title="scoring vectors of sentences",
        after=("teacher", "conversion"),
        inputs=stage_inputs.of_suite,
        outputs=("reports/suite.json",),
        perform=_measure_suite,
    ),
    Stage(
        name="card",
        title="writing the model card and assembling the repository",
        after=("corpus", "teacher", "student", "conversion", "task-student", "task-files", "speed", "quality", "suite"),
        inputs=stage_inputs.of_card,
        outputs=("hub",),
        perform=_assemble_repository,
        reads_reports=True,
    ),
)
