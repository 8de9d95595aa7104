"""Tasks with one class for each sentence, or for each pair of sentences."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from distilrubert.common.derived import MAJORITY
from distilrubert.common.training.padding import IGNORED
from distilrubert.evaluation.tasks.kinds.task_kind import (
    Labels,
    Logits,
    TaskKind,
    class_of,
    in_row_order,
    largest,
    text_in,
    with_lengths,
)


def _read_sentence(row: Mapping[str, Any], labels: Labels) -> dict[str, Any]:
    return {"text": text_in(row, "text"), "label": class_of(row["label"], labels)}


def _read_pair(row: Mapping[str, Any], labels: Labels) -> dict[str, Any]:
    return {"text_pair": text_in(row, "text_pair"), **_read_sentence(row, labels)}


def _read_text(row: Mapping[str, Any], _labels: Labels) -> dict[str, Any]:
    return {"text": text_in(row, "text"), "label": IGNORED}


def _read_texts(row: Mapping[str, Any], labels: Labels) -> dict[str, Any]:
    return {"text_pair": text_in(row, "text_pair"), **_read_text(row, labels)}


def encode_texts(rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Dataset:
    """The features of texts, or of pairs of them; their labels are as the rows have them."""
    pairs = rows["text_pair"][:] if "text_pair" in rows.column_names else None
    encoding = tokenizer(rows["text"][:], pairs, truncation=True, max_length=max_length)
    return with_lengths(encoding, labels=rows["label"][:])


def _decode(rows: Dataset, features: Dataset, logits: Logits, _classes: Sequence[str]) -> tuple[list[int], list[int]]:
    assert isinstance(logits, np.ndarray)
    labels, order = rows["label"][:], in_row_order(features)
    return largest(logits)[order].tolist(), [labels[row] for row in sorted(features["row"][:])]


SENTENCE_CLASSIFICATION = TaskKind(
    columns=("text", "label"),
    labelled=True,
    metrics=("accuracy", "f1", "f1_weighted", "f1_macro", "matthews"),
    read_row=_read_sentence,
    encode=encode_texts,
    decode=_decode,
    export_task="text-classification",
    baselines=("bag-of-words", MAJORITY),
    text_columns=("text",),
    read_text=_read_text,
    problem_type="single_label_classification",
)
SENTENCE_PAIR_CLASSIFICATION = dataclasses.replace(
    SENTENCE_CLASSIFICATION,
    columns=("text", "text_pair", "label"),
    read_row=_read_pair,
    text_columns=("text", "text_pair"),
    read_text=_read_texts,
)
