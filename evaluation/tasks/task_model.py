"""A model that is fine-tuned to be used: trained as :mod:`.finetuning` trains it, with checkpoints, and kept."""

import dataclasses
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from distilrubert.common.contents import model_contents
from distilrubert.common.errors import UserError
from distilrubert.common.measurements import Environment, Measurements
from distilrubert.common.persistence import atomic_folder
from distilrubert.common.precision import Precision
from distilrubert.common.quiet_datasets import quiet_datasets
from distilrubert.common.recorded_inputs import recorded
from distilrubert.common.training.run_checkpoints import Checkpoints, read_state
from distilrubert.common.training.trainer import train
from distilrubert.common.training.training_run import TrainingRun
from distilrubert.common.training.training_settings import BookkeepingSettings
from distilrubert.evaluation.evaluation_settings import FinetuningProtocol
from distilrubert.evaluation.tasks.finetuning import Learner, chosen_precision
from distilrubert.evaluation.tasks.task import TaskDefinition
from distilrubert.evaluation.tasks.task_data import TaskRows
from distilrubert.evaluation.tasks.task_distillation import TaskDistillation
from distilrubert.evaluation.tasks.task_runs import task_inputs
from distilrubert.modeling.checkpoints import (
    load_fast_tokenizer,
    quiet_transformers,
    read_model_config,
    save_checkpoint,
)
from distilrubert.modeling.families import takes_token_types
from distilrubert.modeling.tokenizer_files import student_tokenizer
from distilrubert.modeling.trimming import ids_in, trim_model

logger = logging.getLogger(__name__)

# Settings that decide nothing of one run: which runs there are, and what is recorded elsewhere or is bookkeeping.
_NOT_OF_A_RUN = ("learning_rates", "precision", "train_limit", *BookkeepingSettings.model_fields)


@dataclasses.dataclass(frozen=True)
class TaskModel:
    """A fine-tuned model, at its best epoch.

    Attributes:
        learner: the model, on the CPU in fp32, and the task's rows as it reads them.
        tokenizer: to be published with it.
        settings: the protocol, its precision chosen.
        seed: of the training.
        learning_rate: the one with the best validation score.
        evaluations: what was measured on the validation part after each epoch, by learning rate.
        report: of the training at that learning rate; without rows for a model that was read.
    """

    learner: Learner
    tokenizer: PreTrainedTokenizerFast
    settings: FinetuningProtocol
    seed: int
    learning_rate: float
    evaluations: Mapping[float, Sequence[Mapping[str, float]]]
    report: Measurements

    @property
    def validation(self) -> float:
        """The best value of the task's main metric on the validation part."""
        return _best(self.learner.task, self.evaluations[self.learning_rate])

    def save(self, folder: Path) -> None:
        """Write the model and its tokenizer; the folder is complete or absent."""
        with atomic_folder(folder) as beside:
            save_checkpoint(self.learner.model.cpu(), self.tokenizer, beside)

    def choices(self) -> dict[str, Any]:
        """What was chosen, and from what, as plain values; :func:`read_task_model` takes them."""
        return {
            "settings": self.settings.model_dump(mode="json"),
            "seed": self.seed,
            "learning_rate": self.learning_rate,
            "evaluations": {str(rate): list(found) for rate, found in self.evaluations.items()},
        }


def read_task_model(
    folder: Path, task: TaskDefinition, rows: TaskRows, settings: FinetuningProtocol, choices: Mapping[str, Any]
) -> TaskModel:
    """The model that :meth:`TaskModel.save` wrote, with its :meth:`TaskModel.choices`.

    Raises:
        UserError: if it cannot be loaded, or the rows do not go with it.
    """
    settings = settings.model_copy(update={"precision": choices["settings"]["precision"]})
    learner = Learner.prepare(folder, task, rows, settings, choices["seed"])
    evaluations = {float(rate): found for rate, found in choices["evaluations"].items()}
    tokenizer = _tokenizer_of(learner.model, folder, str(folder))
    report = Measurements(Environment.capture(), [])
    return TaskModel(learner, tokenizer, settings, choices["seed"], choices["learning_rate"], evaluations, report)


def train_task_model(
    model_folder: Path,
    task: TaskDefinition,
    rows: TaskRows,
    settings: FinetuningProtocol,
    folder: Path,
    seed: int,
    name: str | None = None,
    *,
    distillation: TaskDistillation | None = None,
    freeze_embeddings: bool = False,
) -> TaskModel:
    """Fine-tune a model with each learning rate and keep the best by the task's main metric on the validation part.

    The same call continues from the newest checkpoints in `folder`, to the same weights, bit for bit.

    Args:
        model_folder: a checkpoint of a family that is taken, with or without a head, and its fast tokenizer.
        task: what to learn.
        rows: its rows.
        settings: the protocol.
        folder: gets a folder for each learning rate. It belongs to this model, task and seed.
        seed: of the new head, of the order of the rows and of dropout.
        name: of the model, for messages; the folder's by default.
        distillation: from a teacher; None: from the labels alone.
        freeze_embeddings: leave the word embeddings as they are.

    Raises:
        UserError: if the model cannot be fine-tuned, a class has no row to train on, the rows do not go with the model,
            or the checkpoints are those of another run.
        Interrupted: after Ctrl-C or one of `STOP_SIGNALS`, when a checkpoint has been saved.
    """
    name = name or str(model_folder)
    read_model_config(model_folder, name)
    check_classes(task, rows)
    _tell_of_repeated_rows(task, rows)
    folders = {rate: folder / f"rate-{rate}" for rate in settings.learning_rates}
    settings = settings.model_copy(update={"precision": _precision_of(folders.values(), settings)})
    origin = {
        "start": model_contents(model_folder),
        "task": task_inputs(task, rows),
        "protocol": recorded(settings, exclude=_NOT_OF_A_RUN),
        **(distillation.identity if distillation else {}),
        **({"freeze_embeddings": True} if freeze_embeddings else {}),
    }
    best: TaskModel | None = None
    evaluations: dict[float, Sequence[Mapping[str, float]]] = {}
    with quiet_transformers(), quiet_datasets():
        for rate, own_folder in folders.items():
            learner = Learner.prepare(model_folder, task, rows, settings, seed)
            learner = dataclasses.replace(learner, model=without_padding(learner.model, learner.tokenizer))
            learner.model.get_input_embeddings().requires_grad_(not freeze_embeddings)
            tokenizer = _tokenizer_of(learner.model, model_folder, name)
            run = _kept(learner.training(rate, seed, own_folder, distillation), origin, distillation)
            report = train(run)
            evaluations[rate] = report.details["evaluations"]
            trained = TaskModel(learner, tokenizer, settings, seed, rate, evaluations, report)
            logger.info("%s, learning rate %g: %.3f on validation", task.name, rate, trained.validation)
            if best is None or trained.validation > best.validation:
                best = trained
    assert best is not None
    return best


def without_padding(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """The model without embeddings of no token, which would be published with it.

    Some checkpoints have more rows than tokens, for example up to a multiple of 64.
    """
    if not isinstance(tokenizer, PreTrainedTokenizerFast) or model.config.vocab_size <= len(tokenizer):
        return model
    return trim_model(model, ids_in(tokenizer, tokenizer))


def _best(task: TaskDefinition, evaluations: Sequence[Mapping[str, float]]) -> float:
    return max(evaluation[task.main_metric] for evaluation in evaluations)


def _tokenizer_of(model: PreTrainedModel, folder: Path, name: str) -> PreTrainedTokenizerFast:
    """The model's tokenizer, which yields what the model takes."""
    tokenizer = load_fast_tokenizer(folder, name, model)
    return tokenizer if takes_token_types(model.config) else student_tokenizer(tokenizer)


def _kept(run: TrainingRun, origin: Mapping[str, Any], distillation: TaskDistillation | None) -> TrainingRun:
    """The run with a checkpoint from which it can go on, and with its progress in the log."""
    settings = run.settings.model_copy(update={"keep_checkpoints": 1})
    project = distillation.project if distillation else run.project
    return dataclasses.replace(run, settings=settings, origin=origin, project=project, log_level=logging.INFO)


def _precision_of(folders: Iterable[Path], settings: FinetuningProtocol) -> Precision:
    """The arithmetic of a run that goes on; of a new one what is faster on this machine."""
    checkpoints = [newest for folder in folders if (newest := Checkpoints(folder / "checkpoints", 1).newest())]
    if settings.precision == "auto" and checkpoints:
        precision: Precision = read_state(checkpoints[0])["precision"]
        return precision
    return chosen_precision(settings)


def check_classes(task: TaskDefinition, rows: TaskRows) -> None:
    """Refuse a class that cannot be learnt.

    Raises:
        UserError: naming it.
    """
    if task.task_kind.labelled:
        known = rows.classes_to_train_on()
        if absent := [name for index, name in enumerate(task.classes) if index not in known]:
            raise UserError(
                f"task {task.name}: no row to train on has the class {absent[0]}; add rows, or take it out of labels"
            )


def _tell_of_repeated_rows(task: TaskDefinition, rows: TaskRows) -> None:
    """Warn of a test that says too little."""
    if repeated := rows.count_test_rows_in_train():
        logger.warning(
            "task %s: %d of %d test rows are training rows, too; scores on them say little",
            task.name,
            repeated,
            len(rows.test),
        )
