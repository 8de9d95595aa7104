"""The description of a kind of task."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import transformers
from datasets import Dataset
from numpy.typing import NDArray
from scipy.special import softmax
from transformers import DataCollatorWithPadding, PreTrainedTokenizerBase

from distilrubert.modeling.runtimes import AUTO_CLASSES

Labels = Mapping[str, int]
"""The class id of every raw label, as text, of a task."""

Logits = np.ndarray[Any, Any] | tuple[np.ndarray[Any, Any], ...]

ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]


def largest(logits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The class with the largest logit, (…, C) to (…)."""
    classes: np.ndarray[Any, Any] = logits.argmax(axis=-1)
    return classes


def lead_of_first(logits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """By how much the most probable class is more probable than the next one, (…, C) to (…)."""
    probabilities = np.partition(softmax(logits, axis=-1), -2, axis=-1)
    leads: np.ndarray[Any, Any] = probabilities[..., -1] - probabilities[..., -2]
    return leads


def each_equal(expected: Sequence[Any], found: Sequence[Any]) -> list[bool]:
    """Which predictions are the same."""
    return [one == other for one, other in zip(expected, found, strict=True)]


@dataclasses.dataclass(frozen=True)
class TaskKind:
    """How the tasks of one kind are read, encoded for a model and decoded from its outputs.

    Attributes:
        columns: the columns that a task's definition must name.
        labelled: whether a definition lists classes.
        metrics: the metrics of :data:`~distilrubert.evaluation.tasks.metrics.METRICS` that apply.
        read_row: from one raw row (keys: `columns`) and the labels to a row of plain values in standard form;
            raises ValueError, with the reason, for a bad row. The standard form has ``tags``, of words, or ``label``:
            a class, which a stratified split keeps in proportion, 0 or 1 for each of several classes, or a number.
        encode: from rows in standard form, the tokenizer and the largest length in tokens to features: the model's
            inputs and labels, and for every feature ``row``, the index of its row, and ``length`` in tokens.
        decode: from rows, features and the features' logits (in the same order) to predictions and references, row
            by row, as the metrics of the kind take them.
        export_task: the exporters' name for such models: a key of :data:`~distilrubert.modeling.runtimes.OUTPUTS`.
        baselines: those of :data:`~distilrubert.evaluation.tasks.baselines.BASELINES` that can do the tasks.
        text_columns: those of `columns` that a row without labels has.
        read_text: from such a row, and the labels, to standard form, its class -100, its numbers NaN; as `read_row`
            else.
        collator: makes the padding of a batch from the tokenizer.
        problem_type: what transformers calls the loss of a model whose class has several.
        outputs: how many outputs a head has where there are no classes.
        choose: from logits, of which the last axis is the model's outputs, to predictions.
        lead: from the same logits, by how much the probability of each prediction is ahead, 0 to 1.
        equal: which of some predictions, one by one, are to a user what is expected.
        check_classes: raises ValueError, with the reason, for names of classes that the kind cannot read.
    """

    columns: tuple[str, ...]
    labelled: bool
    metrics: tuple[str, ...]
    read_row: Callable[[Mapping[str, Any], Labels], dict[str, Any]]
    encode: Callable[[Dataset, PreTrainedTokenizerBase, int], Dataset]
    decode: Callable[[Dataset, Dataset, Logits, Sequence[str]], tuple[list[Any], list[Any]]]
    export_task: str
    baselines: tuple[str, ...]
    text_columns: tuple[str, ...]
    read_text: Callable[[Mapping[str, Any], Labels], dict[str, Any]]
    collator: Callable[..., Callable[[Sequence[Mapping[str, Any]]], Mapping[str, Any]]] = DataCollatorWithPadding
    problem_type: ProblemType | None = None
    outputs: int = 0
    choose: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]] = largest
    lead: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]] = lead_of_first
    equal: Callable[[Sequence[Any], Sequence[Any]], list[bool]] = each_equal
    check_classes: Callable[[Sequence[str]], None] = lambda classes: None

    @property
    def model_class(self) -> Any:
        """The `Auto` class of transformers with the right head."""
        return getattr(transformers, AUTO_CLASSES[self.export_task])


def text_in(row: Mapping[str, Any], column: str) -> str:
    """The text of a column; ValueError if it holds none."""
    value = row[column]
    if value is None or isinstance(value, list | dict):
        raise ValueError(f"{column} holds {value!r}, expected text")
    return str(value)


def class_of(value: Any, labels: Labels) -> int:
    """The class of a raw label; ValueError if it is unknown."""
    if str(value) not in labels:
        raise ValueError(f"unknown label {str(value)!r}; known: {', '.join(labels)}")
    return labels[str(value)]


def in_row_order(features: Dataset) -> NDArray[np.intp]:
    """The places of features, which are sorted by length, in the order of their rows.

    Each tokenizer has lengths of its own: only in the order of the rows are the answers of two models pairs.
    """
    return np.argsort(features["row"][:], kind="stable")


def with_lengths(encoding: Mapping[str, list[Any]], **columns: Sequence[Any]) -> Dataset:
    """The features of an encoding, one for each row unless ``row`` says otherwise."""
    inputs = encoding["input_ids"]
    lengths = [len(ids) for ids in inputs]
    return Dataset.from_dict({"row": range(len(inputs)), **encoding, "length": lengths, **columns})
