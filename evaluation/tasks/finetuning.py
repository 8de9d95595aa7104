"""Fine-tuning a model on a task with the training loop: one protocol for every model."""

import dataclasses
import logging
import os
import re
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from distilrubert.common.errors import UserError
from distilrubert.common.precision import Precision, choose_precision
from distilrubert.common.quiet_datasets import quiet_datasets
from distilrubert.common.training.loss_module import LossModule
from distilrubert.common.training.padding import padded_widths
from distilrubert.common.training.trainer import train
from distilrubert.common.training.training_run import DROPOUTS, EpochEvaluation, TrainingRun
from distilrubert.common.training.training_settings import OptimizationSettings
from distilrubert.evaluation.evaluation_settings import FinetuningProtocol, FinetuningSettings
from distilrubert.evaluation.tasks.exported import Exporter, score_exported
from distilrubert.evaluation.tasks.kinds.task_kind import Logits
from distilrubert.evaluation.tasks.loading import load_encoder, longest_input, measuring_device
from distilrubert.evaluation.tasks.metrics import compute_metrics
from distilrubert.evaluation.tasks.row_results import score_test
from distilrubert.evaluation.tasks.task import TaskDefinition
from distilrubert.evaluation.tasks.task_data import TaskRows
from distilrubert.evaluation.tasks.task_distillation import DistillationCollator, TaskDistillation
from distilrubert.evaluation.tasks.task_loss import TaskCollator, TaskExamples, TaskLoss, predict
from distilrubert.modeling.checkpoints import quiet_transformers

# Batches are so many times larger for predictions, which keep nothing for a backward pass.
PREDICTION_BATCHES = 4
# The name of the output of a model that gives a number.
SCORE = "score"


def finetune(
    model_folder: str | os.PathLike[str],
    task: TaskDefinition,
    rows: TaskRows,
    settings: FinetuningSettings,
    *,
    learning_rate: float,
    seed: int,
    exporters: Mapping[str, Exporter] | None = None,
) -> dict[str, Any]:
    """Fine-tune a model once and score it. Nothing stays on disk, and the same arguments give the same scores.

    Args:
        model_folder: a checkpoint of any encoder that transformers knows, with its tokenizer.
        task: what to learn.
        rows: its rows.
        settings: the protocol.
        learning_rate: at its peak.
        seed: of the new head, of the order of the rows and of dropout.
        exporters: kinds of files to score the model as, too, by name.

    Returns:
        ``validation`` and ``test``, the task's metrics at the best epoch, ``test`` with ``rows`` (see
        :func:`.row_results.score_test`); ``epochs`` that were run; ``seconds`` of training, with its validations;
        ``exported``, the same as ``test`` of each kind of file.

    Raises:
        UserError: if the folder holds no model that can be loaded, or the rows do not go with it.
    """
    # For the weights of the best epoch, and for the files.
    scratch_folder = tempfile.TemporaryDirectory(prefix="finetuning-", ignore_cleanup_errors=True)
    with quiet_transformers(), quiet_datasets(), scratch_folder as folder:
        learner = Learner.prepare(model_folder, task, rows, settings, seed)
        run = learner.training(learning_rate, seed, Path(folder) / "training")
        started = time.perf_counter()
        evaluations = train(run).details["evaluations"]
        seconds = time.perf_counter() - started
        assert run.evaluation is not None
        best = evaluations[run.evaluation.best(evaluations)]
        learner.model.to(measuring_device())
        return {
            "validation": {name: best[name] for name in task.metrics},
            "test": score_test(task, rows.test, *learner.answers("test")),
            "epochs": len(evaluations),
            "seconds": round(seconds, 2),
            "exported": {
                name: score_exported(
                    exporter, learner.model, learner.tokenizer, task, rows.test, learner.features, Path(folder) / name
                )
                for name, exporter in (exporters or {}).items()
            },
        }


@dataclasses.dataclass(frozen=True)
class Learner:
    """A model and the task that it learns.

    Attributes:
        head: names of the weights that the checkpoint does not have.
        rows: of the task.
        features: of each part of the rows that is there, sorted by length: batches of predictions have little padding.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    head: list[str]
    task: TaskDefinition
    settings: FinetuningProtocol
    rows: TaskRows
    features: dict[str, Dataset]

    @classmethod
    def prepare(
        cls,
        folder: str | os.PathLike[str],
        task: TaskDefinition,
        rows: TaskRows,
        settings: FinetuningProtocol,
        seed: int,
    ) -> Self:
        """Load the model, with a new head of that seed, and encode the rows for it.

        Raises:
            UserError: as :func:`finetune`.
        """
        model, tokenizer, head = _load(folder, task, settings, seed)
        longest = longest_input(model, tokenizer, task.max_length)
        features = {}
        for part, own in rows.parts.items():
            try:
                encoded = task.task_kind.encode(own, tokenizer, longest)
            except ValueError as error:
                raise UserError(f"task {task.name}: {error}") from error
            features[part] = encoded.select(np.argsort(encoded["length"][:], kind="stable"))
        return cls(model, tokenizer, head, task, settings, rows, features)

    def training(
        self, learning_rate: float, seed: int, folder: Path, distillation: TaskDistillation | None = None
    ) -> TrainingRun:
        """The run that trains the model in place, without checkpoints; only its folder is written to.

        Args:
            learning_rate: at its peak.
            seed: of the order of the rows and of dropout.
            folder: of the run.
            distillation: from a teacher, for which the rows without labels are; None: from the labels alone.
        """
        task, settings, train_features = self.task, self.settings, self.features["train"]
        head_rates = dict.fromkeys(self.head, settings.head_learning_rate) if settings.head_learning_rate else {}
        objective: LossModule = (
            distillation.objective(self.model, head_rates) if distillation else TaskLoss(self.model, head_rates)
        )
        plain, collator = TaskExamples(train_features, self.tokenizer), TaskCollator(task.task_kind, self.tokenizer)
        examples = distillation.examples(self.features, self.tokenizer) if distillation else plain
        return TrainingRun(
            case=f"{task.name} {learning_rate:.0e} seed {seed}",
            section=f"task {task.name}",
            objective=objective,
            examples=examples,
            validation=TaskExamples(train_features.select([]), self.tokenizer),
            collator=DistillationCollator(collator) if distillation else collator,
            settings=_optimization(settings, learning_rate, examples.lengths),
            folder=folder,
            seed=seed,
            origin={},
            epoch_tokens=int(examples.lengths.sum()),
            evaluation=EpochEvaluation(self.validate, task.main_metric, settings.patience),
            log_level=logging.DEBUG,
        )

    def validate(self) -> dict[str, float]:
        """The task's metrics on the validation part, of the model as it is."""
        return self.scores("validation")

    def scores(self, part: str) -> dict[str, float]:
        """The task's metrics on a part."""
        return compute_metrics(self.task.metrics, *self.answers(part), self.task.queries_of(getattr(self.rows, part)))

    def answers(self, part: str) -> tuple[list[Any], list[Any]]:
        """Predictions and references of a part, row by row."""
        precision, batch_size = chosen_precision(self.settings), PREDICTION_BATCHES * self.settings.batch_size
        return self.decoded(part, predict(self.model, self.features[part], self.tokenizer, precision, batch_size))

    def decoded(self, part: str, logits: Logits) -> tuple[list[Any], list[Any]]:
        """Predictions and references of a part from the logits of its features."""
        return self.task.task_kind.decode(getattr(self.rows, part), self.features[part], logits, self.task.classes)


def _optimization(
    settings: FinetuningProtocol, learning_rate: float, lengths: NDArray[np.int32]
) -> OptimizationSettings:
    """The settings of the training loop. AdamW's are those of BERT's fine-tuning."""
    loop = {"batches_per_update": 1, "num_workers": 0}
    # What the section of a student that is distilled says of the loop, too.
    loop |= {name: getattr(settings, name) for name in OptimizationSettings.model_fields if hasattr(settings, name)}
    own = {
        "learning_rate": learning_rate,
        "warmup": settings.warmup,
        "weight_decay": settings.weight_decay,
        "betas": (0.9, 0.999),
        "epsilon": 1e-8,
        "max_grad_norm": settings.max_grad_norm,
        "epochs": settings.epochs,
        "batch_size": settings.batch_size,
        "batch_tokens": settings.batch_size * int(padded_widths(lengths).max()),
        "precision": chosen_precision(settings),
        "keep_checkpoints": 0,
        # A learning rate that is too high gets a low score, and is not chosen.
        "max_skipped_updates": sys.maxsize,
        # Of the model's own configuration.
        "dropout": True,
    }
    return OptimizationSettings(**loop | own)


def _load(
    folder: str | os.PathLike[str], task: TaskDefinition, settings: FinetuningProtocol, seed: int
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, list[str]]:
    """The model, its tokenizer, and the names of the weights that the checkpoint does not have: the task's head."""
    kind, before = task.task_kind, list[str]()
    names = task.classes or [SCORE] * (kind.problem_type == "regression")

    def adapt(config: PretrainedConfig) -> None:
        # An earlier task may have left another kind of loss or another number of labels.
        before.extend(config.id2label[index] for index in sorted(config.id2label))
        config.problem_type = kind.problem_type
        config.num_labels = len(task.classes) or kind.outputs
        if names:
            config.id2label = dict(enumerate(names))
            config.label2id = {name: index for index, name in enumerate(names)}
        if kind.problem_type == "regression":
            # A CrossEncoder would put one output through a sigmoid.
            config.sentence_transformers = {"activation_fn": "torch.nn.modules.linear.Identity"}
        if settings.dropout is not None:
            _set_dropout(config, settings.dropout)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, tokenizer, missing = load_encoder(task.task_kind.model_class, folder, "a model to fine-tune", adapt)
        # One score is one score, whatever it was called.
        if task.classes and before != names and not all(re.fullmatch(r"LABEL_\d+", name) for name in before):
            missing += _renew_head(model, missing)
    return model, tokenizer, missing


def _renew_head(model: PreTrainedModel, missing: Sequence[str]) -> list[str]:
    """Draw the last layer anew, whose outputs are other classes; the names of its weights that were not missing."""
    encoder = {id(module) for module in model.base_model.modules()}
    renewed = []
    for name, module in model.named_modules():
        is_last = isinstance(module, nn.Linear) and module.out_features == model.config.num_labels
        if is_last and id(module) not in encoder and f"{name}.weight" not in missing:
            nn.init.normal_(module.weight, std=model.config.initializer_range)
            nn.init.zeros_(module.bias)
            renewed += [f"{name}.weight", f"{name}.bias"]
    return renewed


def _set_dropout(config: Any, probability: float) -> None:
    """Set every dropout of an encoder and of its head; families name theirs differently."""
    for field in (*DROPOUTS, "classifier_dropout", "qa_dropout", "seq_classif_dropout"):
        if hasattr(config, field):
            setattr(config, field, probability)


def chosen_precision(settings: FinetuningProtocol) -> Precision:
    """The arithmetic of runs with these settings on this machine."""
    return choose_precision(settings.precision, torch.device(measuring_device()))
