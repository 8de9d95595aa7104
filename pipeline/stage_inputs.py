"""What decides the result of each stage besides what the stages before it made, as plain JSON values."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distilrubert.common.contents import MODEL_FILES, READING_FILES, content_of, model_contents
from distilrubert.common.hub_address import hub_endpoint
from distilrubert.common.recorded_inputs import recorded
from distilrubert.common.training.training_settings import BookkeepingSettings, OptimizationSettings
from distilrubert.conversion.writers import VERSION as CONVERSION_VERSION
from distilrubert.distill.corpus.sources import identities_of
from distilrubert.evaluation.sentences.suites import load_suite
from distilrubert.evaluation.speed.benchmark import VERSION as SPEED_VERSION
from distilrubert.evaluation.tasks.result_cache import VERSION
from distilrubert.evaluation.tasks.task import TaskDefinition
from distilrubert.model_card.card_facts import renderer_version
from distilrubert.pipeline.commits import commit_of, pinned_task, pinned_tasks
from distilrubert.pipeline.exporting import decisive_settings
from distilrubert.pipeline.run import Run
from distilrubert.pipeline.sentence_encoder import sentence_modules
from distilrubert.pipeline.task_settings import TaskSettings


def of_vocabulary(run: Run) -> Mapping[str, Any]:
    """What decides the vocabulary of a teacher that is trained here."""
    pretrain = run.recipe.teacher.pretrain
    assert pretrain is not None
    decisive = {"vocabulary_size": pretrain.vocabulary_size, "max_positions": pretrain.max_positions}
    return {"corpus": _sources(run), "teacher": {"pretrain": decisive}}


def of_student_vocabulary(run: Run) -> Mapping[str, Any]:
    """What decides the student's own vocabulary."""
    student, pretrain = run.recipe.student, run.recipe.teacher.pretrain
    own = student.own_vocabulary()
    assert own is not None
    trained = {"teacher": {"pretrain": {"dim": pretrain.dim}}} if pretrain else {}
    return {
        "student": {"vocabulary": recorded(own), "dim": student.dim, "preset": student.preset},
        "corpus": {"validation": run.recipe.corpus.validation} | _split(run) | _sources(run),
        "seed": run.recipe.seed,
        **(trained or _named_teacher(run, READING_FILES)),
        **({} if run.recipe.corpus.sources else {"task": _task(pinned_task(run)), **_labels(run)}),
        **_sentences(run),
    }


def of_corpus(run: Run) -> Mapping[str, Any]:
    """What decides the tokenised corpus."""
    form = recorded(run.recipe.corpus, exclude=("sources", "processes"))
    corpus = {"form": form, **_sources(run)}
    return {
        "corpus": corpus,
        "seed": run.recipe.seed,
        **_named_teacher(run, READING_FILES),
        **_starting_tokenizer(run),
        **_sentences(run),
    }


def of_teacher(run: Run) -> Mapping[str, Any]:
    """What decides a teacher that is trained here."""
    pretrain = run.recipe.teacher.pretrain
    assert pretrain is not None
    return {"teacher": {"pretrain": _training(pretrain)}, "seed": run.recipe.seed}


def of_student(run: Run) -> Mapping[str, Any]:
    """What decides the student."""
    return {
        "seed": run.recipe.seed,
        "student": recorded(run.recipe.student, exclude=("start_from",)),
        **({"start": _model(run, start)} if (start := run.recipe.student.start_from) else {}),
        "distillation": _training(run.recipe.distillation),
        **_named_teacher(run),
        **_sentences(run),
    }


def of_task_teacher(run: Run) -> Mapping[str, Any]:
    """What decides the teacher that is fine-tuned here."""
    return {**_of_task(run), "finetuning": recorded(_task_settings(run).finetuning), **_named_teacher(run)}


def of_task_start(run: Run) -> Mapping[str, Any]:
    """What decides the student that is made from layers of the teacher."""
    return {
        "seed": run.recipe.seed,
        "student": recorded(run.recipe.student, exclude=("start_from",)),
        **_named_teacher(run),
    }


def of_task_alone(run: Run) -> Mapping[str, Any]:
    """What decides the student that is fine-tuned without a teacher."""
    settings = _task_settings(run)
    return {**_of_task(run), "finetuning": recorded(settings.alone), "start": _task_start(run)}


def of_task_student(run: Run) -> Mapping[str, Any]:
    """What decides the student of a task."""
    settings = _task_settings(run)
    return {
        **_of_task(run),
        "distillation": recorded(settings.distillation, exclude=BookkeepingSettings.model_fields),
        **_labels(run),
        "start": _task_start(run),
        "teacher": _model(run, settings.teacher),
    }


def of_task_files(run: Run) -> Mapping[str, Any]:
    """What decides the files of a student of a task, and how they are compared and scored."""
    settings = _task_settings(run)
    return {
        **_of_task(run),
        "files": list(run.recipe.conversion.cases),
        "conversion": decisive_settings(run.recipe.conversion),
        "equal_decisions": settings.equal_decisions,
        "labels": settings.finetuning.train_limit,
        "teacher": _model(run, settings.teacher),
        "version": VERSION,
    }


def of_conversion(run: Run) -> Mapping[str, Any]:
    """What decides the exported files, and how they are compared."""
    return {"conversion": recorded(run.recipe.conversion), "version": CONVERSION_VERSION, **_sentences(run)}


def of_speed(run: Run) -> Mapping[str, Any]:
    """What decides how speed is measured."""
    speed = recorded(run.recipe.evaluation.speed)
    of_task = {"task": {"teacher": _model(run, run.recipe.task.teacher)}} if run.recipe.task else {}
    return {"evaluation": {"speed": speed}, **_named_teacher(run), **of_task, "version": SPEED_VERSION}


def of_quality(run: Run) -> Mapping[str, Any]:
    """What decides how quality is measured."""
    evaluation, by_content = run.recipe.evaluation, ("tasks", "probed_tasks")
    tasks = {name: [_task(task) for task in found] for name, found in zip(by_content, pinned_tasks(run), strict=True)}
    return {
        "evaluation": {"protocol": recorded(evaluation, exclude=("speed", "suite", "processes", *by_content)), **tasks},
        **({"conversion": decisive_settings(run.recipe.conversion)} if evaluation.exported.cases else {}),
        **_named_teacher(run),
        # A program that measures otherwise measures again.
        "version": VERSION,
    }


def of_suite(run: Run) -> Mapping[str, Any]:
    """What decides the scores on a suite."""
    assert run.recipe.evaluation.suite is not None
    identity = load_suite(run.recipe.evaluation.suite).identity()
    return {"evaluation": {"suite": identity}, **_named_teacher(run), **_sentences(run), "version": VERSION}


def of_card(run: Run) -> Mapping[str, Any]:
    """What decides the card: a new version of the program writes it anew."""
    recipe = run.recipe
    return {
        "card": recorded(recipe.card),
        "name": recipe.name,
        "repo_id": recipe.publish.repo_id,
        "hub": hub_endpoint(run.endpoint),
        **({"space": True} if recipe.publish.space else {}),
        "teacher": {
            "name": Path(recipe.teacher.model).name if recipe.teacher.model else None,
            "revision": recipe.teacher.revision,
        },
        "version": renderer_version(),
    }


def _sources(run: Run) -> dict[str, Any]:
    """The sources, each file by its name and content: a project that is moved or copied keeps what it has made."""
    sources = run.recipe.corpus.sources
    return {
        "sources": [recorded(source, exclude=("path",)) for source in sources],
        # Source by source: a file that has moved to another one counts with another weight.
        "files": [identities_of(source) for source in sources],
    }


def _named_teacher(run: Run, files: Sequence[str] = MODEL_FILES) -> dict[str, Any]:
    """The teacher that the recipe names: on the Hub by its id and commit, in a folder by those files of the model."""
    teacher = run.recipe.teacher
    if teacher.model is None:
        return {}
    if (folder := Path(teacher.model)).is_dir():
        return {"teacher": {"files": model_contents(folder, files)}}
    return {"teacher": {"model": teacher.model, "revision": teacher.revision}}


def _task_settings(run: Run) -> TaskSettings:
    assert run.recipe.task is not None
    return run.recipe.task


def _of_task(run: Run) -> dict[str, Any]:
    """The task with its rows, and what else decides every training on it."""
    frozen = _task_settings(run).freeze_embeddings
    return {"task": _task(pinned_task(run)), "seed": run.recipe.seed, "freeze_embeddings": frozen}


def _task_start(run: Run) -> Any:
    """What the student of a task starts from, where no stage makes that."""
    return None if run.recipe.corpus.sources else _model(run, run.recipe.student.start_from)


def _starting_tokenizer(run: Run) -> dict[str, Any]:
    """The tokenizer of a student that starts from another: the corpus may be tokenised with it, too."""
    start = run.recipe.student.start_from
    return {"start": _model(run, start, READING_FILES)} if start else {}


def _model(run: Run, name: str | None, files: Sequence[str] = MODEL_FILES) -> Any:
    """A model that a recipe names without a revision, as :func:`_named_teacher` has it."""
    if name is None or not Path(name).is_dir():
        return None if name is None else {"model": name, "revision": commit_of(run, name)}
    return {"files": model_contents(Path(name), files)}


def _labels(run: Run) -> dict[str, Any]:
    """Which rows of a task have labels, and what else its text is."""
    settings = _task_settings(run)
    files = [content_of(Path(file)) for file in settings.unlabelled]
    return {"labels": settings.finetuning.train_limit, "unlabelled": files}


def _split(run: Run) -> dict[str, Any]:
    return {"sentences": True} if run.recipe.corpus.sentences else {}


def _sentences(run: Run) -> dict[str, Any]:
    """What the vectors of sentences are: of a teacher on the Hub, its commit decides what is not set."""
    settings, teacher = run.recipe.sentences, run.recipe.teacher.model
    if settings is None:
        return {}
    if teacher and not Path(teacher).is_dir():
        return {"sentences": recorded(settings)}
    modules = sentence_modules(run)
    return {"sentences": dataclasses.asdict(modules)} if modules else {}


def _training(settings: OptimizationSettings) -> dict[str, Any]:
    return recorded(settings, exclude=BookkeepingSettings.model_fields)


def _task(task: TaskDefinition) -> dict[str, Any]:
    files = task.files.model_dump(exclude_none=True).values() if task.files else ()
    return {"definition": recorded(task, exclude=("files",)), "files": [content_of(Path(file)) for file in files]}
