"""The checks of a recipe for a task, before any work."""

from pathlib import Path

from transformers import PreTrainedTokenizerFast

from distilrubert.common.errors import UserError
from distilrubert.common.training.tracking import check_trackers
from distilrubert.common.training.training_settings import check_batches
from distilrubert.distill.losses.objective import check_layers, positive_weights
from distilrubert.evaluation.tasks.kinds.task_kind import TaskKind
from distilrubert.evaluation.tasks.task_distillation import check_teacher
from distilrubert.evaluation.tasks.task_model import check_classes
from distilrubert.model_card.space.shown_model import why_not_shown
from distilrubert.modeling.architecture import student_config
from distilrubert.modeling.checkpoints import read_fast_tokenizer, read_model_config
from distilrubert.modeling.tokenizer_kinds import kind_of
from distilrubert.pipeline.commits import pinned_task
from distilrubert.pipeline.exporting import check_exported
from distilrubert.pipeline.run import Run
from distilrubert.pipeline.sentence_encoder import teacher_folder
from distilrubert.pipeline.starting_student import starting_config, starting_tokenizer
from distilrubert.pipeline.student_vocabulary import teacher_config
from distilrubert.pipeline.task_rows import load_task_rows
from distilrubert.pipeline.task_settings import UpdateSettings
from distilrubert.pipeline.task_stages import (
    compared_by_token,
    compares_states,
    require_one_input,
    require_one_vocabulary,
    task_teacher_folder,
)

TASK_STAGES = frozenset({"task-teacher", "task-start", "task-alone", "task-student", "task-files"})


def check_task_settings(run: Run) -> None:
    """Refuse settings that contradict each other, the task, the number of processes or what is installed.

    Raises:
        UserError: naming the field.
    """
    assert run.recipe.task is not None
    settings = run.recipe.task.distillation
    batches: dict[str, UpdateSettings] = {settings.section: settings, "task.finetuning": run.recipe.task.finetuning}
    for section, own in batches.items():
        check_batches(section, own.batches_per_update, run.launch.processes)
    check_trackers(settings.trackers, f"{settings.section}.trackers")
    weights = positive_weights(settings)
    if not weights.keys() & {"logits", "labels"}:
        raise UserError(
            f"{settings.section}.weights: logits and labels are 0, but the head learns from these alone; give one of "
            "them a weight above 0"
        )
    if run.recipe.publish.space:
        _check_page(pinned_task(run).task_kind)
    for file in run.recipe.task.unlabelled:
        if not Path(file).is_file():
            raise UserError(f"task.unlabelled: there is no file {file}")


def _check_page(kind: TaskKind) -> None:
    gives_scores, reads_pairs = kind.problem_type == "regression", len(kind.text_columns) > 1
    if reason := why_not_shown(kind.export_task, gives_scores=gives_scores, reads_pairs=reads_pairs):
        raise UserError(f"publish.space: {reason}; leave it out")


def check_task(run: Run, *, load: bool) -> None:
    """Refuse a task, a teacher or a student that cannot be used.

    Args:
        run: the run; its folder is only read.
        load: whether models on the Hub and the task's data are read, which may mean a download.

    Raises:
        UserError: naming the first thing that is wrong.
    """
    recipe = run.recipe
    assert recipe.task is not None
    task, settings = pinned_task(run), recipe.task
    start = recipe.student.start_from
    is_here = {name: Path(name).is_dir() for name in (settings.teacher, start) if name}
    if settings.teacher and (load or is_here[settings.teacher]):
        check_teacher(task_teacher_folder(run), settings.teacher, task)
    compared, is_own = compared_by_token(settings.distillation, task), recipe.student.own_vocabulary() is not None
    if is_own:
        require_one_vocabulary(settings.distillation, compared, None, None)
    if start:
        if not load and not is_here[start]:
            return
        student = starting_config(run)
        if compared and (load or _teacher_is_here(run)):
            require_one_vocabulary(settings.distillation, compared, _teacher_tokenizer(run), starting_tokenizer(run))
    elif recipe.teacher.model and not load and not Path(recipe.teacher.model).is_dir():
        return
    else:
        student = student_config(recipe.student, teacher_config(run))
        if recipe.teacher.model:
            whole = read_fast_tokenizer(teacher_folder(run), recipe.teacher.model)
            if is_own:
                kind_of(whole)
            elif settings.teacher and (load or is_here[settings.teacher]):
                require_one_vocabulary(settings.distillation, compared, _teacher_tokenizer(run), whole)
    check_exported(recipe.conversion.cases, [task], student.model_type)
    if settings.teacher and not load and not is_here[settings.teacher]:
        return
    if compares_states(settings.distillation):
        teacher = teacher_config(run)
        if settings.teacher:
            teacher = read_model_config(task_teacher_folder(run), settings.teacher)
        check_layers(settings.distillation, student, teacher)
        if settings.teacher or recipe.teacher.model:
            tokenizer = _teacher_tokenizer(run)
            own = student, starting_tokenizer(run) if start else tokenizer
            require_one_input(settings.distillation, task, (teacher, tokenizer), own)
    if load:
        check_classes(task, load_task_rows(run, unlabelled=True))


def _teacher_is_here(run: Run) -> bool:
    assert run.recipe.task is not None
    return Path(run.recipe.task.teacher or run.recipe.teacher.model or "").is_dir()


def _teacher_tokenizer(run: Run) -> PreTrainedTokenizerFast:
    """The tokenizer of the fine-tuned teacher, which may not be fine-tuned yet."""
    assert run.recipe.task is not None
    named = run.recipe.task.teacher
    folder, name = (task_teacher_folder(run), named) if named else (teacher_folder(run), run.recipe.teacher.model)
    return read_fast_tokenizer(folder, name or "the teacher")
