"""What a student of a task learns from a teacher: its logits for each row, with labels or without, and a loss on them.

Nothing in the rows is drawn, so that the teacher is asked once, before the training. Its logits are kept by row, and of
a tagger by word: its tokenizer need not be the student's.

Axes: N decisions, C classes, B batch, L tokens, S start and end.
"""

import dataclasses
import functools
import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from datasets import Dataset, concatenate_datasets
from numpy.typing import NDArray
from pydantic import BaseModel
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distilrubert.common.checked_settings import stated_settings
from distilrubert.common.contents import model_contents
from distilrubert.common.errors import UserError
from distilrubert.common.persistence import read_json
from distilrubert.common.quiet_datasets import quiet_datasets
from distilrubert.common.training.loss_module import LossModule
from distilrubert.common.training.padding import NEVER
from distilrubert.common.training.ranks import computed_in_parts
from distilrubert.evaluation.tasks.loading import load_encoder, longest_input, measuring_device
from distilrubert.evaluation.tasks.task import TaskDefinition
from distilrubert.evaluation.tasks.task_data import TaskRows
from distilrubert.evaluation.tasks.task_loss import TaskCollator, TaskExamples, predict
from distilrubert.modeling.checkpoints import quiet_transformers

logger = logging.getLogger(__name__)

BATCH_SIZE = 64
# A minute of two cores, with a teacher of 12 layers × 384 and posts.
ROWS_AT_ONCE = 4096
# The outputs of a head that finds an answer in a text.
START_AND_END = 2
# More tokens than any window has.
LONGEST = 2**20
TEACHER_PARTS = ("train", "unlabelled")
"""The parts of the rows that a teacher is asked about, in this order."""


@dataclasses.dataclass(frozen=True)
class TeacherLogits:
    """What a teacher says of rows.

    Attributes:
        values_NC: its logits, in fp32.
        rows_N: the row of each, counted over the parts of :data:`TEACHER_PARTS`.
        words_N: its word in the row; 0 where the whole row has one class; of a reader, which has the logits of start
            and end at each token, its token.
    """

    values_NC: NDArray[np.float32]
    rows_N: NDArray[np.int64]
    words_N: NDArray[np.int64]

    @classmethod
    def load(cls, paths: Sequence[Path]) -> Self:
        """Read what :func:`ask_teacher` wrote."""
        parts = []
        for path in paths:
            with np.load(path, allow_pickle=False) as arrays:
                parts.append({field.name: arrays[field.name] for field in dataclasses.fields(cls)})
        return cls(**{name: np.concatenate([part[name] for part in parts]) for name in parts[0]})


@dataclasses.dataclass(frozen=True)
class TaskDistillation:
    """How a student learns from a teacher.

    Attributes:
        objective: makes the loss of a batch from the student and the peak learning rates of its head, by name. Its
            batches are those of :class:`DistillationCollator`.
        logits: of the teacher, for the rows that the student learns from.
        identity: what decides the distillation beside the rows and the protocol, as plain values.
        project: the name that trackers file the run under.
    """

    objective: Callable[[PreTrainedModel, Mapping[str, float]], LossModule]
    logits: TeacherLogits
    identity: Mapping[str, Any]
    project: str = "distilrubert"

    def examples(self, features: Mapping[str, Dataset], tokenizer: PreTrainedTokenizerBase) -> "DistillationExamples":
        """The student's features of all rows that it learns from, with the teacher's logits."""
        parts = [features[part] for part in TEACHER_PARTS if part in features]
        firsts = np.cumsum([0, *(max(part["row"][:], default=-1) + 1 for part in parts)])
        rows_N = np.concatenate([np.array(part["row"][:]) + first for part, first in zip(parts, firsts, strict=False)])
        return DistillationExamples(concatenate_datasets(parts), rows_N, tokenizer, self.logits)


class DistillationExamples:
    """Features as examples of the training loop, each with its ``places`` that the teacher decides, and its logits."""

    def __init__(
        self,
        features: Dataset,
        rows: Sequence[int] | NDArray[np.int64],
        tokenizer: PreTrainedTokenizerBase,
        logits: TeacherLogits,
    ) -> None:
        """Take features, the row of each as :class:`TeacherLogits` counts them, and these."""
        self._plain, self._logits = TaskExamples(features, tokenizer), logits
        self.lengths = self._plain.lengths
        units = _units(features)
        # Arrays, as a reader decides every token: objects of Python would take hundreds of bytes for each.
        words = 1 + max(int(own.max(initial=0)) for own in (logits.words_N, *(own_U for own_U, _ in units)))
        keys_N = logits.rows_N * words + logits.words_N
        order_N = np.argsort(keys_N)
        keys_N = keys_N[order_N]
        self._places: list[NDArray[np.int64]] = []
        self._decisions: list[NDArray[np.int64]] = []
        for row, (words_U, places_U) in zip(rows, units, strict=True):
            own_U = row * words + words_U
            found_U = np.minimum(np.searchsorted(keys_N, own_U), len(keys_N) - 1)
            is_known_U = keys_N[found_U] == own_U
            self._places.append(places_U[is_known_U])
            self._decisions.append(order_N[found_U[is_known_U]])

    def __len__(self) -> int:
        return len(self._plain)

    def __getitem__(self, index: int) -> dict[str, Any]:
        own = {"places": self._places[index], "logits": self._logits.values_NC[self._decisions[index]]}
        return self._plain[index] | own


class DistillationCollator:
    """Adds ``teacher_logits`` and ``compared`` to the batches of a task.

    (B, C) and (B) for texts, whatever their labels are, (B, L, C) and (B, L) for words; for answers (B, 2, L) and
    (B, 2), start and end, with ``labels`` (B, 2).
    """

    def __init__(self, collator: TaskCollator) -> None:
        self._collator = collator

    def collate(self, examples: Sequence[Mapping[str, Any]], epoch: int, indices: Sequence[int]) -> dict[str, Tensor]:
        """See :class:`~distilrubert.common.training.batching.Collator`."""
        own = ("places", "logits")
        plain = [{name: value for name, value in example.items() if name not in own} for example in examples]
        batch = self._collator.collate(plain, epoch, indices)
        if "start_positions" in batch:
            return _with_answers(batch, examples)
        classes = examples[0]["logits"].shape[1]
        # What is said of the whole row stands for one place.
        of_words = batch["labels"].ndim == 2 and not batch["labels"].is_floating_point()
        shape = batch["labels"].shape if of_words else (len(examples), 1)
        logits_BLC, compared_BL = torch.zeros(*shape, classes), torch.zeros(shape, dtype=torch.bool)
        for row, example in enumerate(examples):
            places = torch.from_numpy(example["places"])
            logits_BLC[row, places] = torch.from_numpy(example["logits"])
            compared_BL[row, places] = True
        if not of_words:
            return {**batch, "teacher_logits": logits_BLC[:, 0], "compared": compared_BL[:, 0]}
        return {**batch, "teacher_logits": logits_BLC, "compared": compared_BL}


def _with_answers(batch: dict[str, Tensor], examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    length = batch["input_ids"].shape[1]
    logits_BSL = torch.full((len(examples), START_AND_END, length), NEVER)
    for row, example in enumerate(examples):
        logits_BSL[row, :, torch.from_numpy(example["places"])] = torch.from_numpy(example["logits"]).T
    labels_BS = torch.stack([batch["start_positions"], batch["end_positions"]], dim=1)
    compared_BS = torch.tensor([[len(example["places"]) > 0] * START_AND_END for example in examples])
    return {**batch, "labels": labels_BS, "teacher_logits": logits_BSL, "compared": compared_BS}


def ask_teacher(
    folder: str | os.PathLike[str], name: str, task: TaskDefinition, rows: TaskRows, work: Path
) -> TeacherLogits:
    """The logits of a fine-tuned teacher for all rows that a student learns from, in fp32; kept in files in `work`.

    A file has :data:`ROWS_AT_ONCE` rows: who is stopped goes on after the last one. Of several processes the first one
    computes, and the others wait.

    Args:
        folder: the checkpoint.
        name: of the teacher, for messages.
        task: what it was fine-tuned on.
        rows: of the task, with those without labels.
        work: an existing folder.

    Raises:
        UserError: if the teacher has no head for the task, or its labels are not the task's, in their order.
    """
    contents = json.dumps([model_contents(Path(folder)), rows.fingerprint(), task.max_length, task.classes])
    kept = work / f"teacher-logits-{hashlib.sha256(contents.encode()).hexdigest()[:20]}"
    check_teacher(folder, name, task)
    asked = concatenate_datasets([rows.parts[part] for part in TEACHER_PARTS if part in rows.parts])
    logger.info("%s: asking the teacher about %s rows", task.name, f"{len(asked):,}")
    write = _Teacher(folder, task, asked).write
    return TeacherLogits.load(computed_in_parts(kept, len(asked), ROWS_AT_ONCE, write, "teacher's logits"))


class _TeacherConfig(BaseModel):
    """What the configuration of a fine-tuned model says of its head."""

    architectures: list[str] | None = None
    problem_type: str | None = None
    id2label: dict[int, str | int] | None = None
    sentence_transformers: dict[str, Any] | None = None
    # The same in earlier files.
    sbert_ce_default_activation_function: str | None = None

    @property
    def activation(self) -> str:
        """What a CrossEncoder makes of the score."""
        stated = (self.sentence_transformers or {}).get("activation_fn") or self.sbert_ce_default_activation_function
        return str(stated or "Identity").rpartition(".")[2]


def check_teacher(folder: str | os.PathLike[str], name: str, task: TaskDefinition) -> None:
    """Refuse a checkpoint that was not fine-tuned on a task.

    Of a model whose configuration does not say what its outputs are, their number and names are compared alone.

    Raises:
        UserError: naming what differs, or if the configuration is damaged.
    """
    path = Path(folder) / "config.json"
    config = stated_settings(_TeacherConfig, read_json(path) if path.is_file() else {}, path)
    classes, kind = config.architectures or [""], task.task_kind
    wanted = kind.model_class.__name__.removeprefix("AutoModel")
    if not classes[0].endswith(wanted):
        raise UserError(f"{name}: is a {classes[0] or 'model without a class'}; a teacher of {task.name} is …{wanted}")
    trained_for = config.problem_type
    if kind.problem_type and trained_for not in (None, kind.problem_type):
        raise UserError(f"{name}: was trained for {trained_for}; a teacher of {task.name} is for {kind.problem_type}")
    labels = [str(label) for _, label in sorted((config.id2label or {}).items())]
    # Of two outputs, a configuration may have no names.
    if kind.problem_type == "regression" and len(labels) != kind.outputs:
        raise UserError(f"{name}: has {len(labels) or 2} outputs; a teacher of {task.name} has one, the score")
    if kind.problem_type == "regression" and config.activation != "Identity":
        raise UserError(
            f"{name}: its scores go through {config.activation}; a teacher of {task.name} gives them as they are"
        )
    if task.classes and labels != task.classes:
        found = ", ".join(labels) or "none"
        raise UserError(
            f"{name}: its labels are {found}; those of task {task.name} are {', '.join(task.classes)}, in this order"
        )


class _Teacher:
    """A fine-tuned teacher and the rows that it is asked about; it is loaded when it is asked first."""

    def __init__(self, folder: str | os.PathLike[str], task: TaskDefinition, asked: Dataset) -> None:
        self._folder, self._task, self._asked = folder, task, asked

    @functools.cached_property
    def _loaded(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        model, tokenizer, lost = load_encoder(self._task.task_kind.model_class, self._folder, "a fine-tuned teacher")
        if lost:
            raise UserError(f"{os.fspath(self._folder)}: has no head that was trained: {lost[0]} is missing")
        return model.to(measuring_device()), tokenizer

    def write(self, rows: range, path: Path) -> None:
        """Write what it says of some rows."""
        with quiet_transformers(), quiet_datasets():
            model, tokenizer = self._loaded
            longest = longest_input(model, tokenizer, self._task.max_length)
            try:
                encoded = self._task.task_kind.encode(self._asked.select(rows), tokenizer, longest)
            except ValueError as error:
                raise UserError(f"task {self._task.name}: {error}") from error
            features = encoded.select(np.argsort(encoded["length"][:], kind="stable"))
            logits = predict(model, features, tokenizer, "fp32", BATCH_SIZE)
        if not isinstance(logits, np.ndarray):
            logits = np.stack(logits, axis=-1)
        units = _units(features)
        values = [
            logits[index, places_U] if logits.ndim == 3 else logits[[index]]
            for index, (_, places_U) in enumerate(units)
        ]
        with path.open("wb") as file:
            np.savez(
                file,
                values_NC=np.concatenate(values),
                rows_N=rows.start + np.repeat(np.array(features["row"][:]), [len(words_U) for words_U, _ in units]),
                words_N=np.concatenate([words_U for words_U, _ in units]),
            )


def _units(features: Dataset) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """What has a class in each feature: its words, and the places of these; the whole row counts as its word 0.

    Of a window in which an answer is looked for, each token is such a word.
    """
    if "scored_words" in features.column_names:
        columns = (features["scored_words"][:], features["scored_places"][:])
        return [(np.array(words, np.int64), np.array(places, np.int64)) for words, places in zip(*columns, strict=True)]
    if "window" in features.column_names:
        tokens = zip(features["window"][:], map(np.arange, features["length"][:]), strict=True)
        return [(LONGEST * window + places_U, places_U) for window, places_U in tokens]
    return [(np.zeros(1, np.int64), np.zeros(1, np.int64))] * len(features)
