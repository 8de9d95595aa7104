"""The stages that make a student for a task.

The training loop, the choice of the epoch and the files are those of fine-tuning, the loss is that of distillation.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import (
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from distilrubert.common.contents import model_contents
from distilrubert.common.errors import UserError
from distilrubert.common.formats import FORMATS
from distilrubert.common.measurements import Measurements, Row
from distilrubert.common.persistence import atomic_folder
from distilrubert.common.quiet_datasets import quiet_datasets
from distilrubert.distill.losses import LOSSES
from distilrubert.distill.losses.objective import Objective, positive_weights
from distilrubert.evaluation.tasks.finetuning import Learner
from distilrubert.evaluation.tasks.loading import load_encoder, longest_input, measuring_device
from distilrubert.evaluation.tasks.row_results import score_test
from distilrubert.evaluation.tasks.task import TaskDefinition
from distilrubert.evaluation.tasks.task_data import TaskRows
from distilrubert.evaluation.tasks.task_distillation import TaskDistillation, ask_teacher
from distilrubert.evaluation.tasks.task_model import TaskModel, read_task_model, train_task_model, without_padding
from distilrubert.evaluation.tasks.task_runs import row_counts, summary_of
from distilrubert.modeling.checkpoints import quiet_transformers
from distilrubert.modeling.downloads import checkpoint_folder
from distilrubert.modeling.families import takes_token_types
from distilrubert.modeling.student import build_student, save_student
from distilrubert.modeling.teacher import load_teacher
from distilrubert.modeling.trimming import could_be_trimmed_to
from distilrubert.pipeline.commits import commit_of, pinned_task
from distilrubert.pipeline.finetune_command import baseline_rows, write_task_model
from distilrubert.pipeline.run import Run
from distilrubert.pipeline.sentence_encoder import teacher_folder
from distilrubert.pipeline.starting_student import describe_general_start, describe_start, starting_folder
from distilrubert.pipeline.student_vocabulary import fitted, teacher_config
from distilrubert.pipeline.task_rows import load_task_rows, settings_of
from distilrubert.pipeline.task_settings import TaskDistillationSettings, TaskFinetuningSettings


def task_teacher_folder(run: Run) -> Path:
    """The fine-tuned teacher: the one that the recipe names, or the one that it has fine-tuned."""
    named = settings_of(run).teacher
    return checkpoint_folder(named, commit_of(run, named)) if named else run.task_teacher


def start_folder(run: Run) -> Path:
    """What the student starts from."""
    if run.recipe.corpus.sources:
        return run.student
    return starting_folder(run) if run.recipe.student.start_from else run.task_start


def _describe_start(run: Run) -> dict[str, Any]:
    """For the training report: what :func:`start_folder` is."""
    if run.recipe.corpus.sources:
        return describe_general_start(run)
    if run.recipe.student.start_from:
        return describe_start(run)
    return run.recipe.student.describe_initialisation(teacher_config(run))


def finetune_teacher(run: Run, folder: Path) -> None:
    """Fine-tune the recipe's teacher."""
    name = run.recipe.teacher.model or "the teacher"
    _finetune(run, settings_of(run).finetuning, teacher_folder(run), folder, "task-teacher", name)


def make_start(run: Run, folder: Path) -> None:
    """Make the student from layers of the recipe's teacher, as it is before it is fine-tuned."""
    assert run.recipe.teacher.model is not None
    teacher, _ = fitted(run, load_teacher(run.recipe.teacher.model, run.recipe.teacher.revision))
    save_student(build_student(teacher, run.recipe.student, run.recipe.seed), folder / "task-start")


def finetune_alone(run: Run, folder: Path) -> None:
    """Fine-tune the student on the labels alone."""
    _finetune(run, settings_of(run).alone, start_folder(run), folder, "task-alone", "the student")


def distil_on_task(run: Run, folder: Path) -> None:
    """Let the student learn from the fine-tuned teacher, and from the labels."""
    settings, task, work = settings_of(run), pinned_task(run), folder / "training"
    rows = load_task_rows(run, unlabelled=True)
    teacher, start = task_teacher_folder(run), start_folder(run)
    name = settings.teacher or "the fine-tuned teacher"
    work.mkdir(parents=True, exist_ok=True)
    distillation = TaskDistillation(
        objective=functools.partial(_objective, run, teacher, start),
        logits=ask_teacher(teacher, name, task, rows, work),
        identity={"teacher": model_contents(teacher)},
        project=run.recipe.name,
    )
    model = train_task_model(
        start,
        task,
        rows,
        settings.distillation,
        work,
        run.recipe.seed,
        "the student",
        distillation=distillation,
        freeze_embeddings=settings.freeze_embeddings,
    )
    model.report.details.update(rows=row_counts(rows), initialisation=_describe_start(run))
    _save(run, model, folder / "task-student", folder / "reports" / "task-student.json")


def export_and_score(run: Run, folder: Path) -> None:
    """Write the student's files, compare them with it, and score them beside teacher, student alone and baselines."""
    settings, task, rows = settings_of(run), pinned_task(run), load_task_rows(run, unlabelled=False)
    training = Measurements.load(run.reports / "task-student.json")
    model = read_task_model(run.task_student, task, rows, settings.distillation, training.details["choices"])
    formats = [FORMATS[case] for case in run.recipe.conversion.cases if FORMATS[case].task is None]
    with quiet_transformers(), quiet_datasets():
        with atomic_folder(folder / "exported") as beside:
            baselines = baseline_rows(task, rows)
            report = write_task_model(
                model, formats, beside, baselines, settings.equal_decisions, run.recipe.conversion
            )
        others = {"student-alone": run.task_alone, "teacher": task_teacher_folder(run)}
        compared = [_scored(run, rows, case, checkpoint) for case, checkpoint in others.items()]
    report.details["rows"] |= {**training.details["rows"], "train_limit": settings.finetuning.train_limit}
    dataclasses.replace(report, rows=[*report.rows, *compared]).save(folder / "reports" / "finetuning.json")


def _finetune(run: Run, settings: TaskFinetuningSettings, start: Path, folder: Path, output: str, name: str) -> None:
    rows, work, frozen = load_task_rows(run, unlabelled=False), folder / "training", settings_of(run).freeze_embeddings
    model = train_task_model(
        start, pinned_task(run), rows, settings, work, run.recipe.seed, name, freeze_embeddings=frozen
    )
    _save(run, model, folder / output, folder / "reports" / f"{output}.json")


def _save(run: Run, model: TaskModel, folder: Path, report: Path) -> None:
    """Write a model, and the report of its training with what was chosen."""
    if run.launch.leads:
        model.report.details["choices"] = model.choices()
        model.report.save(report)
        model.save(folder)


def compared_by_token(settings: TaskDistillationSettings, task: TaskDefinition) -> list[str]:
    """The losses that need a student with its teacher's vocabulary."""
    weights = positive_weights(settings)
    return [name for name in weights if _is_reader(task) or LOSSES[name].needs_teacher]


def compares_states(settings: TaskDistillationSettings) -> bool:
    """Whether a loss needs the teacher while the student is trained."""
    return any(LOSSES[name].needs_teacher for name in positive_weights(settings))


def _is_reader(task: TaskDefinition) -> bool:
    # Its classes are the tokens.
    return task.task_kind.export_task == "question-answering"


def require_one_vocabulary(
    settings: TaskDistillationSettings,
    losses: Sequence[str],
    teacher: PreTrainedTokenizerBase | None,
    student: PreTrainedTokenizerBase | None,
) -> None:
    """Refuse losses that compare token by token where the tokenizers differ; None is one that is made anew."""
    is_one = teacher is not None and student is not None and _split_alike(teacher, student)
    if losses and not is_one:
        raise UserError(
            f"{settings.section}.weights: {', '.join(losses)} compare token by token, but the student has another "
            "vocabulary than its teacher; leave them out"
        )


def _split_alike(first: PreTrainedTokenizerBase, second: PreTrainedTokenizerBase) -> bool:
    """Whether two tokenizers have the same tokens and, as far as it is known, make the same ones of a text."""
    are_known = isinstance(first, PreTrainedTokenizerFast) and isinstance(second, PreTrainedTokenizerFast)
    return first.get_vocab() == second.get_vocab() and (not are_known or could_be_trimmed_to(first, second))


def require_one_input(
    settings: TaskDistillationSettings,
    task: TaskDefinition,
    teacher: tuple[PretrainedConfig, PreTrainedTokenizerBase],
    student: tuple[PretrainedConfig, PreTrainedTokenizerBase],
) -> None:
    """Refuse losses over states where the teacher tells the two texts of a pair apart and the student does not."""
    losses = [name for name in positive_weights(settings) if LOSSES[name].needs_teacher]
    gets_types = [
        takes_token_types(config) and "token_type_ids" in tokenizer.model_input_names
        for config, tokenizer in (teacher, student)
    ]
    if losses and len(task.task_kind.text_columns) > 1 and gets_types == [True, False]:
        raise UserError(
            f"{settings.section}.weights: {', '.join(losses)} compare states, but the teacher tells the two texts of "
            "a pair apart and the student does not; leave them out"
        )


def _objective(
    run: Run, teacher: Path, start: Path, student: PreTrainedModel, peak_rates: Mapping[str, float]
) -> Objective:
    """The losses of the recipe, with the teacher where some need more of it than its logits."""
    settings, task = settings_of(run).distillation, pinned_task(run)
    running = compared_by_token(settings, task)
    if not running:
        return Objective(student, None, settings, peak_rates=peak_rates)
    model, tokenizer, _ = load_encoder(task.task_kind.model_class, teacher, "a fine-tuned teacher")
    start_tokenizer = AutoTokenizer.from_pretrained(start, trust_remote_code=False)
    require_one_vocabulary(settings, running, tokenizer, start_tokenizer)
    require_one_input(settings, task, (model.config, tokenizer), (student.config, start_tokenizer))
    sides = ((model, tokenizer), (student, start_tokenizer))
    lengths = [longest_input(side, own, task.max_length) for side, own in sides]
    if _is_reader(task) and lengths[0] != lengths[1]:
        raise UserError(
            f"task {task.name}: the teacher reads {lengths[0]} tokens at once and the student {lengths[1]}, so that "
            f"they cut a long text at other places; use a max_length of at most {min(lengths)}"
        )
    if not compares_states(settings):
        return Objective(student, None, settings, peak_rates=peak_rates)
    model = without_padding(model, tokenizer).requires_grad_(False)
    return Objective(student, model, settings, peak_rates=peak_rates)


def _scored(run: Run, rows: TaskRows, case: str, folder: Path) -> Row:
    """The scores of a fine-tuned checkpoint on the test part."""
    task = pinned_task(run)
    # As the student is scored.
    protocol = settings_of(run).finetuning.model_copy(update={"precision": "fp32"})
    learner = Learner.prepare(folder, task, rows, protocol, run.recipe.seed)
    learner.model.to(measuring_device())
    test = score_test(task, rows.test, *learner.answers("test"))
    parameters = learner.model.num_parameters()
    return Row(case, {"tasks": {task.name: summary_of(task, [test])}, "parameters": parameters})
