"""Fine-tuning a model on a task with transformers' Trainer: one protocol for every model."""

import dataclasses
import logging
import math
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Container, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from tqdm.auto import tqdm
from transformers import (
    EarlyStoppingCallback,
    EvalPrediction,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.trainer_pt_utils import LengthGroupedSampler

from distilrubert.common.errors import UserError
from distilrubert.common.precision import Precision, choose_precision
from distilrubert.evaluation.evaluation_settings import FinetuningSettings
from distilrubert.evaluation.tasks.exported import Exporter, score_exported
from distilrubert.evaluation.tasks.loading import load_encoder, longest_input, measuring_device
from distilrubert.evaluation.tasks.metrics import compute_metrics
from distilrubert.evaluation.tasks.quiet import quiet_libraries
from distilrubert.evaluation.tasks.row_results import score_test
from distilrubert.evaluation.tasks.task import TaskDefinition
from distilrubert.evaluation.tasks.task_data import TaskRows

logger = logging.getLogger(__name__)

PADDING_MULTIPLE = 8
# The outputs of a head that finds an answer in a text.
START_AND_END = 2


@dataclasses.dataclass(frozen=True)
class FinetuningResult:
    """What one run gave.

    Attributes:
        validation: the task's metrics on the validation part, at the best epoch.
        test: the task's metrics on the test part, at the best epoch, and ``rows``, as :func:`.row_results.score_test`
            returns them.
        epochs: epochs that were run.
        seconds: wall time of training, with its validations.
        exported: the same of each kind of file.
    """

    validation: dict[str, float]
    test: dict[str, Any]
    epochs: int
    seconds: float
    exported: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)

    to_dict = dataclasses.asdict


def finetune(
    model_folder: str | os.PathLike[str],
    task: TaskDefinition,
    rows: TaskRows,
    settings: FinetuningSettings,
    *,
    learning_rate: float,
    seed: int,
    exporters: Mapping[str, Exporter] | None = None,
) -> FinetuningResult:
    """Fine-tune a model once and score it. Nothing stays on disk, and the same arguments give the same result.

    Args:
        model_folder: a checkpoint of any encoder that transformers knows, with its tokenizer.
        task: what to learn.
        rows: its rows, from :func:`~distilrubert.evaluation.tasks.task_data.load_rows`.
        settings: the protocol.
        learning_rate: the peak learning rate.
        seed: seed of the new head, of the order of the rows and of dropout.
        exporters: kinds of files to score the model as, too, by name.

    Raises:
        UserError: if the folder holds no model that can be loaded, or the rows do not go with it.
    """
    # For the weights of the best epoch, and for the files.
    scratch_folder = tempfile.TemporaryDirectory(prefix="finetuning-", ignore_cleanup_errors=True)
    with quiet_libraries(), scratch_folder as folder:
        scratch = Path(folder)
        set_seed(seed)
        model, tokenizer, head = _load(model_folder, task, settings)
        train, validation, test = (
            _encode(task, part, model, tokenizer) for part in (rows.train, rows.validation, rows.test)
        )
        trainer = _TaskTrainer(
            model=model,
            head=head,
            head_learning_rate=settings.head_learning_rate or learning_rate,
            args=_arguments(task, settings, learning_rate, seed, len(train), scratch),
            train_dataset=train,
            eval_dataset=validation,
            data_collator=task.task_kind.collator(tokenizer, pad_to_multiple_of=PADDING_MULTIPLE),
            compute_metrics=_scorer(task, rows.validation, validation),
            callbacks=[EarlyStoppingCallback(settings.patience), _Bar(f"{task.name} {learning_rate:.0e} seed {seed}")],
        )
        # These print a line or a table on every evaluation; _Bar replaces them.
        trainer.remove_callback(PrinterCallback)
        trainer.remove_callback(ProgressCallback)
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started
        best = _scores(trainer.evaluate(), task)
        trainer.compute_metrics = None
        scores = score_test(
            task, *task.task_kind.decode(rows.test, test, trainer.predict(test).predictions, task.classes)
        )
        features = {"train": train, "test": test}
        # Without what computes in bf16 while it trains: exporters trace the model's own forward pass.
        plain = trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
        return FinetuningResult(
            validation=best,
            test=scores,
            epochs=round(trainer.state.epoch),
            seconds=round(seconds, 2),
            exported={
                name: score_exported(exporter, plain, tokenizer, task, rows.test, features, scratch / name)
                for name, exporter in (exporters or {}).items()
            },
        )


def _load(
    folder: str | os.PathLike[str], task: TaskDefinition, settings: FinetuningSettings
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, Container[str]]:
    """The model, its tokenizer, and the names of the weights that the checkpoint does not have: the task's head."""

    def adapt(config: PretrainedConfig) -> None:
        # What an earlier task may have left: the loss of a kind that this one is not of, a head of another size.
        config.problem_type = None
        config.num_labels = len(task.classes) or START_AND_END
        if task.classes:
            config.id2label = dict(enumerate(task.classes))
            config.label2id = {name: index for index, name in enumerate(task.classes)}
        if settings.dropout is not None:
            _set_dropout(config, settings.dropout)

    return load_encoder(task.task_kind.model_class, folder, "a model to fine-tune", adapt)


def _set_dropout(config: Any, probability: float) -> None:
    """Set every dropout of a BERT or DistilBERT, which name theirs differently."""
    for field in (
        "hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout",
        "dropout", "attention_dropout", "qa_dropout", "seq_classif_dropout",
    ):  # fmt: skip
        if hasattr(config, field):
            setattr(config, field, probability)


def _encode(task: TaskDefinition, rows: Dataset, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Dataset:
    """Features, shortest first: neighbours that are alike in length waste no time on padding."""
    longest = longest_input(model, tokenizer, task.max_length)
    try:
        features = task.task_kind.encode(rows, tokenizer, longest)
    except ValueError as error:
        raise UserError(f"task {task.name}: {error}") from error
    return features.select(np.argsort(features["length"][:], kind="stable"))


def _arguments(
    task: TaskDefinition, settings: FinetuningSettings, learning_rate: float, seed: int, rows: int, folder: Path
) -> TrainingArguments:
    updates = settings.epochs * math.ceil(rows / settings.batch_size)
    arguments = TrainingArguments(
        output_dir=str(folder),
        learning_rate=learning_rate,
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=4 * settings.batch_size,
        warmup_steps=math.ceil(settings.warmup * updates),
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        use_cpu=not torch.cuda.is_available(),
        bf16=chosen_precision(settings) == "bf16",
        seed=seed,
        eval_strategy="epoch",
        # Only the best epoch is ever on disk, without the optimiser's state.
        save_strategy="best",
        save_only_model=True,
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model=task.main_metric,
        greater_is_better=True,
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        log_level="error",
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    # Given several GPUs, Trainer would have as many batches in an update: another protocol. It looks for them once, as
    # its device is asked for.
    assert arguments.device
    arguments._n_gpu = min(1, arguments.n_gpu)
    return arguments


def chosen_precision(settings: FinetuningSettings) -> Precision:
    """In what runs with these settings compute matrix products on this machine."""
    return choose_precision(settings.precision, torch.device(measuring_device()))


def _scorer(task: TaskDefinition, rows: Dataset, features: Dataset) -> Callable[[EvalPrediction], dict[str, float]]:
    def score(prediction: EvalPrediction) -> dict[str, float]:
        decoded = task.task_kind.decode(rows, features, prediction.predictions, task.classes)
        return compute_metrics(task.metrics, *decoded)

    return score


def _scores(metrics: dict[str, float], task: TaskDefinition) -> dict[str, float]:
    return {name: metrics[f"eval_{name}"] for name in task.metrics}


class _TaskTrainer(Trainer):  # type: ignore[misc]
    """A Trainer with batches of rows of similar length, evaluations in the order of the rows, and a rate for the head.

    The option for the first was renamed in transformers 5 (`group_by_length`, `train_sampling_strategy`), and
    in both versions it shuffles the evaluations too.
    """

    def __init__(self, *, head: Container[str], head_learning_rate: float, **options: Any) -> None:
        super().__init__(**options)
        self.head = head
        self.head_learning_rate = head_learning_rate

    def create_optimizer(self, *model: Any) -> torch.optim.Optimizer:
        """The Trainer's own optimiser, with the head in groups of its own."""
        optimizer: torch.optim.Optimizer = super().create_optimizer(*model)
        head = {id(weight) for name, weight in self.model.named_parameters() if name in self.head}
        for group in list(optimizer.param_groups):
            own = [weight for weight in group["params"] if id(weight) in head]
            group["params"] = [weight for weight in group["params"] if id(weight) not in head]
            if own:
                optimizer.add_param_group({**group, "params": own, "lr": self.head_learning_rate})
        return optimizer

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> torch.utils.data.Sampler[int]:
        lengths = self.train_dataset["length"][:]
        return LengthGroupedSampler(self.args.train_batch_size, lengths=lengths)  # type: ignore[no-any-return]


class _Bar(TrainerCallback):  # type: ignore[misc]
    """A progress bar of the updates on standard error, when that is a terminal and this the only run at a time."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.bar: tqdm[Any] | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: Any, **_: Any) -> None:
        self.bar = tqdm(
            total=state.max_steps,
            desc=self.title,
            unit="update",
            leave=False,
            disable=True if multiprocessing.parent_process() else None,
        )

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: Any, **_: Any) -> None:
        assert self.bar is not None
        self.bar.update()

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: Any, **_: Any) -> None:
        assert self.bar is not None
        self.bar.close()
