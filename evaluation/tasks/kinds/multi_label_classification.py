"""Tasks in which a text has any number of classes, or none."""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset

from distilrubert.evaluation.tasks.kinds.sentence_classification import SENTENCE_CLASSIFICATION
from distilrubert.evaluation.tasks.kinds.task_kind import Labels, Logits, class_of, in_row_order, text_in

SEPARATORS = re.compile(r"[,;|]")


def _read_sentence(row: Mapping[str, Any], labels: Labels) -> dict[str, Any]:
    found = {class_of(name, labels) for name in _names(row["labels"], labels)}
    return {"text": text_in(row, "text"), "label": [float(index in found) for index in range(_classes(labels))]}


def _names(value: Any, labels: Labels) -> Sequence[Any]:
    """The raw labels of a row: those of a list, or of the text in a cell of a table."""
    if isinstance(value, list):
        return value
    if value is None or isinstance(value, dict):
        raise ValueError(f"labels hold {value!r}, expected a list, or text with ',', ';' or '|' between the labels")
    if str(value) in labels:
        return [value]
    return [name for part in SEPARATORS.split(str(value)) if (name := part.strip())]


def _read_text(row: Mapping[str, Any], labels: Labels) -> dict[str, Any]:
    return {"text": text_in(row, "text"), "label": [math.nan] * _classes(labels)}


def _classes(labels: Labels) -> int:
    return 1 + max(labels.values())


def _choose(logits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """1 for each class whose probability is above one half."""
    return (logits > 0).astype(int)


def _lead(logits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Between the probabilities of having a class and of not having it."""
    leads: np.ndarray[Any, Any] = np.abs(np.tanh(logits / 2))
    return leads


def _decode(
    rows: Dataset, features: Dataset, logits: Logits, _names: Sequence[str]
) -> tuple[list[list[int]], list[list[int]]]:
    assert isinstance(logits, np.ndarray)
    labels, order = np.array(rows["label"][:]).astype(int), in_row_order(features)
    return _choose(logits)[order].tolist(), labels[sorted(features["row"][:])].tolist()


MULTI_LABEL_CLASSIFICATION = dataclasses.replace(
    SENTENCE_CLASSIFICATION,
    columns=("text", "labels"),
    metrics=("f1_micro", "f1_macro", "f1_weighted", "accuracy"),
    read_row=_read_sentence,
    decode=_decode,
    read_text=_read_text,
    problem_type="multi_label_classification",
    choose=_choose,
    lead=_lead,
)
