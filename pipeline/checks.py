"""The checks before any work is done or anything is written."""

import itertools

from transformers import PretrainedConfig

from distilrubert.common.errors import UserError
from distilrubert.common.formats import FORMATS
from distilrubert.common.training.tracking import check_trackers
from distilrubert.conversion.writers import require_packages
from distilrubert.distill.corpus.sources import open_source
from distilrubert.distill.corpus.tokenisation import check_max_length
from distilrubert.distill.losses.objective import check_heads, check_layers, check_vocabularies, positive_weights
from distilrubert.evaluation.sentences.frozen_vectors import require_sentence_transformers
from distilrubert.evaluation.sentences.suites import load_suite
from distilrubert.evaluation.tasks.task_data import load_rows
from distilrubert.modeling.architecture import student_config
from distilrubert.modeling.families import longest_input
from distilrubert.modeling.heads import has_head
from distilrubert.modeling.teacher import Teacher, load_teacher
from distilrubert.modeling.tokenizer_kinds import kind_of, tokens_of
from distilrubert.pipeline.commits import pinned_tasks
from distilrubert.pipeline.engine import states_of
from distilrubert.pipeline.exporting import check_exported
from distilrubert.pipeline.hub.connection import connect
from distilrubert.pipeline.hub.space import SpacePublisher
from distilrubert.pipeline.hub.target import check_target
from distilrubert.pipeline.recipe import Recipe
from distilrubert.pipeline.run import Run
from distilrubert.pipeline.sentence_encoder import sentence_modules
from distilrubert.pipeline.stages import stages_of
from distilrubert.pipeline.starting_student import describe_start, starting_student
from distilrubert.pipeline.student_vocabulary import own_vocabulary, teacher_config
from distilrubert.pipeline.task_checks import TASK_STAGES, check_task, check_task_settings


def check_before_work(run: Run, *, push: bool = False, endpoint: str | None = None, load: bool = True) -> None:
    """Refuse a run that would fail later: hours later, where its teacher is large.

    Args:
        run: the run; its folder is only read.
        push: whether the result is to be pushed, so that the Hub is asked for the target with the token, too.
        endpoint: URL of the Hub; None takes HF_ENDPOINT, or the public Hub.
        load: whether a named teacher and the tasks' data are loaded, which may mean a download.

    Raises:
        UserError: naming the first thing that is wrong.
    """
    recipe = run.recipe
    for section, settings in (("distillation", recipe.distillation), ("teacher.pretrain", recipe.teacher.pretrain)):
        if settings and recipe.corpus.sources:
            settings.check_processes(section, run.launch.processes)
            settings.check_length(section, recipe.corpus.max_length)
            check_trackers(settings.trackers, f"{section}.trackers")
    if recipe.task:
        check_task_settings(run)
    if push and run.launch.leads:
        connection = connect(recipe.publish, endpoint)
        check_target(recipe.publish, connection)
        if recipe.publish.space:
            SpacePublisher(run.hub, recipe.publish, connection).check()
    tasks = itertools.chain(*pinned_tasks(run))
    for case in [*recipe.conversion.cases, *recipe.evaluation.exported.cases]:
        require_packages(FORMATS[case].runtime)
    if not run.launch.leads:
        return
    needed = {state.stage.name for state in states_of(run, stages_of(run)) if state.reason is not None}
    # A finished corpus needs its sources no more, which may be out of reach now, and a finished student its teacher,
    # which takes seconds to load.
    if "corpus" in needed:
        _check_sources(run)
    if "student" in needed and (load or not recipe.teacher.model):
        _check_models(run)
    if "suite" in needed and recipe.evaluation.suite:
        require_sentence_transformers()
        load_suite(recipe.evaluation.suite).present()
    if recipe.task and needed & TASK_STAGES:
        check_task(run, load=load)
    if "quality" in needed and load:
        for task in tasks:
            load_rows(task, recipe.evaluation.finetuning.train_limit)


def check_corpus(run: Run) -> None:
    """Refuse a run whose corpus cannot be made; nothing but the corpus is looked at.

    Raises:
        UserError: naming the first thing that is wrong.
    """
    states = {state.stage.name: state for state in states_of(run, stages_of(run))}
    if states["corpus"].reason is None:
        return
    _check_sources(run)
    if run.recipe.teacher.pretrain:
        check_max_length(run.recipe.corpus.max_length, longest_input(teacher_config(run).to_dict()))


def _check_models(run: Run) -> None:
    """Refuse a teacher that cannot be used, and a student that cannot be made or distilled from it."""
    recipe = run.recipe
    own = recipe.student.own_vocabulary()
    sentence_modules(run)
    if recipe.teacher.model:
        teacher = load_teacher(recipe.teacher.model, recipe.teacher.revision)
        config, longest = teacher.model.config, teacher.tokenizer.model_max_length
        check_heads(positive_weights(recipe.distillation), has_head=has_head(teacher.model))
        if not has_head(teacher.model):
            _check_files_of_encoder(recipe)
        tokens_of(teacher.tokenizer)
        if own:
            kind_of(teacher.tokenizer)
    else:
        config = teacher_config(run)
        longest = longest_input(config.to_dict())
    check_max_length(recipe.corpus.max_length, longest)
    student = _check_start(run, teacher) if recipe.student.start_from else student_config(recipe.student, config)
    check_layers(recipe.distillation, student, config)
    check_exported(recipe.evaluation.exported.cases, itertools.chain(*pinned_tasks(run)), student.model_type)


def _check_files_of_encoder(recipe: Recipe) -> None:
    """Refuse files that fill masks, of a student that will have no head."""
    for field, value in (("onnx", "masked-lm-int8"), ("task", "fill-mask")):
        if value in getattr(recipe.conversion, field):
            raise UserError(
                f"conversion.{field}: {value} needs a masked-language head, and {recipe.teacher.model} has none; leave "
                "it out"
            )


def _check_start(run: Run, teacher: Teacher) -> PretrainedConfig:
    """Refuse a finished student that does not fit its teacher, the losses or the corpus; its configuration."""
    recipe, student = run.recipe, starting_student(run, teacher.model.config)
    describe_start(run)
    weights, own = positive_weights(recipe.distillation), own_vocabulary(run, teacher.tokenizer)
    check_heads(weights, has_head=has_head(student.model), whose="the student that this one starts from")
    check_vocabularies(weights, "one" if own is None or own.is_trimmed else "two")
    if own:
        kind_of(teacher.tokenizer)
    check_max_length(recipe.corpus.max_length, student.tokenizer.model_max_length)
    return student.model.config


def _check_sources(run: Run) -> None:
    """Refuse sources that cannot be opened."""
    for source in run.recipe.corpus.sources:
        # A data set that is streamed is looked up, and nothing of it fetched.
        open_source(source.model_copy(update={"streaming": True}))
