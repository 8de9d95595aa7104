"""The stages of the road, from the corpus to the card."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerFast

from distilrubert.common.contents import content_of
from distilrubert.common.persistence import atomic_folder
from distilrubert.conversion.material import evenly
from distilrubert.conversion.model_folder import CONVERTED, convert, files_of
from distilrubert.conversion.parity import default_sentences
from distilrubert.distill.corpus.build import build_corpus, load_corpus, workplace_of
from distilrubert.distill.corpus.sources import identities_of, iterate_texts
from distilrubert.distill.distillation import distill, pretrain_teacher
from distilrubert.evaluation.evaluation_settings import QualitySettings
from distilrubert.evaluation.speed.benchmark import SpeedCase, cases_of, measure_speed
from distilrubert.evaluation.tasks.quality import measure_quality
from distilrubert.evaluation.tasks.result_cache import VERSION
from distilrubert.evaluation.tasks.task import TaskDefinition, load_tasks
from distilrubert.model_card.card import BESIDE_THE_CARD, files_of_card, write_card
from distilrubert.modeling.checkpoints import checkpoint_folder
from distilrubert.modeling.student import build_student, load_student, save_student
from distilrubert.modeling.teacher import Teacher, load_teacher, new_teacher, save_teacher
from distilrubert.modeling.tokenizer_files import save_tokenizer
from distilrubert.modeling.wordpiece import train_wordpiece
from distilrubert.pipeline.exporting import decisive_settings, exporters_of
from distilrubert.pipeline.recipe import EvaluationSettings
from distilrubert.pipeline.run import Run, Stage
from distilrubert.pipeline.student_vocabulary import (
    corpus_tokenizers,
    fitted,
    folder_of,
    has_own_vocabulary,
    held_out,
    make_student_vocabulary,
)

PARITY_SENTENCES = 256


def stages_of(run: Run) -> list[Stage]:
    """The stages that a recipe needs, in order."""
    needed = {
        "vocabulary": run.recipe.teacher.pretrain is not None,
        "teacher": run.recipe.teacher.pretrain is not None,
        "student-vocabulary": has_own_vocabulary(run),
    }
    return [stage for stage in _STAGES if needed.get(stage.name, True)]


def training_stages_of(run: Run) -> list[Stage]:
    """Those of :func:`stages_of` up to the finished student."""
    stages = stages_of(run)
    return stages[: 1 + max(index for index, stage in enumerate(stages) if stage.collective)]


def teacher_of(run: Run) -> Teacher:
    """The recipe's teacher: the one it names, or the one it has trained."""
    teacher = run.recipe.teacher
    return load_teacher(teacher.model, teacher.revision) if teacher.model else load_teacher(run.teacher)


def _teacher_folder(run: Run) -> Path:
    teacher = run.recipe.teacher
    return checkpoint_folder(teacher.model, teacher.revision) if teacher.model else run.teacher


def sentences_of(tokenizer: PreTrainedTokenizerFast, sequences: Sequence[Any]) -> list[str]:
    """Held-out text to compare exported files on, back from its tokens."""
    return list(tokenizer.batch_decode(sequences[:PARITY_SENTENCES], skip_special_tokens=True))


# What decides each stage's result


def _source_inputs(run: Run) -> dict[str, Any]:
    """The sources, each file by its name and content: a project that is moved or copied keeps what it has made."""
    sources = run.recipe.corpus.sources
    return {
        "sources": [source.model_dump(mode="json", exclude={"path"}) for source in sources],
        # Source by source: a file that has moved to another one is weighed otherwise.
        "files": [identities_of(source) for source in sources],
    }


def _vocabulary_inputs(run: Run) -> Mapping[str, Any]:
    pretrain = run.recipe.teacher.pretrain
    assert pretrain is not None
    decisive = pretrain.model_dump(mode="json", include={"vocabulary_size", "max_positions"})
    return {"corpus": _source_inputs(run), "teacher": {"pretrain": decisive}}


def _corpus_inputs(run: Run) -> Mapping[str, Any]:
    form = run.recipe.corpus.model_dump(mode="json", exclude={"sources", "processes"})
    return {"corpus": form | _source_inputs(run), "seed": run.recipe.seed, **_named_teacher(run)}


def _named_teacher(run: Run) -> dict[str, Any]:
    """The teacher that the recipe names: on the Hub by its id and revision, in a folder by its files."""
    teacher = run.recipe.teacher
    if teacher.model is None:
        return {}
    folder = Path(teacher.model)
    if folder.is_dir():
        return {"teacher": {"files": [content_of(path) for path in sorted(folder.iterdir()) if path.is_file()]}}
    return {"teacher": {"model": teacher.model, "revision": teacher.revision}}


def _student_vocabulary_inputs(run: Run) -> Mapping[str, Any]:
    student, pretrain = run.recipe.student, run.recipe.teacher.pretrain
    own = student.own_vocabulary()
    assert own is not None
    return {
        "student": {"vocabulary": own.model_dump(mode="json"), "dim": student.dim, "preset": student.preset},
        "corpus": {"validation": run.recipe.corpus.validation} | _source_inputs(run),
        "seed": run.recipe.seed,
        **(_named_teacher(run) if pretrain is None else {"teacher": {"pretrain": {"dim": pretrain.dim}}}),
    }


def _teacher_inputs(run: Run) -> Mapping[str, Any]:
    pretrain = run.recipe.teacher.pretrain
    assert pretrain is not None
    return {"teacher": {"pretrain": pretrain.trajectory()}, "seed": run.recipe.seed}


def _student_inputs(run: Run) -> Mapping[str, Any]:
    return {
        "seed": run.recipe.seed,
        "student": run.recipe.student.model_dump(mode="json"),
        "distillation": run.recipe.distillation.trajectory(),
        **_named_teacher(run),
    }


def _conversion_inputs(run: Run) -> Mapping[str, Any]:
    return {"conversion": run.recipe.conversion.model_dump(mode="json")}


def _speed_inputs(run: Run) -> Mapping[str, Any]:
    return {"evaluation": {"speed": run.recipe.evaluation.speed.model_dump(mode="json")}, **_named_teacher(run)}


def _quality_inputs(run: Run) -> Mapping[str, Any]:
    # Left out while they ask for nothing: what was measured before there were such fields still holds.
    is_exported = bool(run.recipe.evaluation.exported.cases)
    unused = set() if is_exported else {"exported"}
    by_content = {"tasks", "probed_tasks"}
    evaluation = run.recipe.evaluation.model_dump(mode="json", exclude={"speed", "processes", *by_content, *unused})
    tasks, probed = ([_task_inputs(task) for task in found] for found in tasks_of(run.recipe.evaluation))
    # What measures otherwise now has to measure again.
    return {
        "evaluation": evaluation | {"tasks": tasks} | ({"probed_tasks": probed} if probed else {}),
        **({"conversion": decisive_settings(run.recipe.conversion)} if is_exported else {}),
        "version": VERSION,
    }


def tasks_of(evaluation: EvaluationSettings) -> tuple[list[TaskDefinition], list[TaskDefinition]]:
    """The tasks to fine-tune on, and those to probe only."""
    tasks = load_tasks([*evaluation.tasks, *evaluation.probed_tasks])
    return tasks[: len(evaluation.tasks)], tasks[len(evaluation.tasks) :]


def _task_inputs(task: TaskDefinition) -> dict[str, Any]:
    files = task.files.model_dump(exclude_none=True).values() if task.files else ()
    return task.model_dump(mode="json", exclude={"files"}) | {"files": [content_of(Path(file)) for file in files]}


def _card_inputs(run: Run) -> Mapping[str, Any]:
    recipe = run.recipe
    # What the card calls by its name.
    names = {"name": recipe.name, "teacher": Path(recipe.teacher.model).name if recipe.teacher.model else None}
    return {"card": recipe.card.model_dump(mode="json"), "repo_id": recipe.publish.repo_id, **names}


# The stages themselves


def _train_vocabulary(run: Run) -> None:
    pretrain = run.recipe.teacher.pretrain
    assert pretrain is not None
    tokenizer = train_wordpiece(
        iterate_texts(run.recipe.corpus.sources), pretrain.vocabulary_size, pretrain.max_positions
    ).tokenizer
    with atomic_folder(run.vocabulary) as beside:
        save_tokenizer(tokenizer, beside)


def _build_corpus(run: Run) -> None:
    tokenizer, own = corpus_tokenizers(run)
    build_corpus(run.recipe.corpus, tokenizer, run.corpus, run.recipe.seed, student_tokenizer=own)


def _pretrain_teacher(run: Run) -> None:
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
    report = pretrain_teacher(
        teacher, load_corpus(run.corpus), pretrain, run.folder / "pretraining", run.recipe.seed, run.recipe.name
    )
    if run.launch.leads:
        report.save(run.reports / "pretraining.json")
        save_teacher(teacher, run.teacher)


def _distill(run: Run) -> None:
    teacher, tokenizer = fitted(run, teacher_of(run))
    corpus = load_corpus(run.corpus)
    student = build_student(teacher, run.recipe.student, run.recipe.seed, tokenizer, corpus.token_counts)
    report = distill(teacher, student, corpus, run.recipe.distillation, run.folder, run.recipe.seed, run.recipe.name)
    if run.launch.leads:
        report.save(run.reports / "training.json")
        save_student(student, run.student)


def _convert(run: Run) -> None:
    # A corpus may have none held out.
    sentences = sentences_of(load_student(run.student).tokenizer, held_out(run)["student"]) or default_sentences()
    calibration = _calibration_of(run)
    convert(run.student, run.hub, run.recipe.conversion, sentences, calibration).save(run.reports / "parity.json")


def _calibration_of(run: Run) -> list[str]:
    """Training text, evenly out of the corpus, back from its tokens."""
    tokenizer, _ = corpus_tokenizers(run)
    train = load_corpus(run.corpus).train
    chosen = evenly(range(len(train)), run.recipe.conversion.calibration_sentences)
    return list(tokenizer.batch_decode([train[index] for index in chosen], skip_special_tokens=True))


def _measure_speed(run: Run) -> None:
    cases = [SpeedCase("teacher-pytorch-fp32", _teacher_folder(run), "pytorch-fp32"), *cases_of("student", run.hub)]
    measure_speed(cases, run.recipe.evaluation.speed).save(run.reports / "speed.json")


def _measure_quality(run: Run) -> None:
    evaluation, sequences = run.recipe.evaluation, held_out(run)
    tasks, probed = tasks_of(evaluation)
    measure_quality(
        {"teacher": _teacher_folder(run), "student": run.student},
        tasks,
        QualitySettings(intrinsic=evaluation.intrinsic, finetuning=evaluation.finetuning, seeds=evaluation.seeds),
        sequences["teacher"],
        run.scores,
        own_held_out={"student": sequences["student"]} if has_own_vocabulary(run) else None,
        exporters={"student": exporters_of(evaluation.exported.cases, run.recipe.conversion)},
        processes=evaluation.processes,
        probed=probed,
    ).save(run.reports / "quality.json")


def _write_card(run: Run) -> None:
    write_card(run.folder)


_STAGES = (
    Stage(
        name="vocabulary",
        title="training the teacher's vocabulary",
        after=(),
        inputs=_vocabulary_inputs,
        outputs=lambda run: [run.vocabulary],
        perform=_train_vocabulary,
    ),
    Stage(
        name="student-vocabulary",
        title="making the student's vocabulary",
        after=("vocabulary",),
        inputs=_student_vocabulary_inputs,
        outputs=lambda run: [folder_of(run), run.reports / "vocabulary.json"],
        perform=make_student_vocabulary,
    ),
    Stage(
        name="corpus",
        title="tokenising the corpus",
        after=("vocabulary", "student-vocabulary"),
        inputs=_corpus_inputs,
        outputs=lambda run: [run.corpus],
        work=lambda run: [workplace_of(run.corpus)],
        perform=_build_corpus,
    ),
    Stage(
        name="teacher",
        title="pretraining the teacher",
        after=("corpus",),
        inputs=_teacher_inputs,
        outputs=lambda run: [run.teacher, run.reports / "pretraining.json"],
        work=lambda run: [run.folder / "pretraining"],
        perform=_pretrain_teacher,
        collective=True,
    ),
    Stage(
        name="student",
        title="distilling the student",
        after=("corpus", "teacher"),
        inputs=_student_inputs,
        outputs=lambda run: [run.student, run.reports / "training.json"],
        work=lambda run: [run.folder / "checkpoints"],
        perform=_distill,
        collective=True,
    ),
    Stage(
        name="conversion",
        title="exporting the student and proving that the files agree",
        after=("student",),
        inputs=_conversion_inputs,
        outputs=lambda run: [
            *(run.hub / path for path in files_of(run.recipe.conversion)),
            run.reports / "parity.json",
        ],
        work=lambda run: [run.hub / name for name in CONVERTED],
        perform=_convert,
    ),
    Stage(
        name="speed",
        title="measuring speed",
        after=("teacher", "conversion"),
        inputs=_speed_inputs,
        outputs=lambda run: [run.reports / "speed.json"],
        perform=_measure_speed,
    ),
    Stage(
        name="quality",
        title="measuring quality",
        after=("teacher", "student"),
        inputs=_quality_inputs,
        outputs=lambda run: [run.reports / "quality.json"],
        perform=_measure_quality,
    ),
    Stage(
        name="card",
        title="writing the model card",
        after=("student", "conversion", "speed", "quality"),
        inputs=_card_inputs,
        outputs=lambda run: files_of_card(run.hub),
        work=lambda run: [run.hub / name for name in BESIDE_THE_CARD],
        perform=_write_card,
    ),
)
