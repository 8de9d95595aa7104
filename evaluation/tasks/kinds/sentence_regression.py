"""Tasks with a number for each text, or for each pair of texts: regression, and the scores of a reranker."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset

from distilrubert.evaluation.tasks.kinds.sentence_classification import SENTENCE_CLASSIFICATION
from distilrubert.evaluation.tasks.kinds.task_kind import Labels, Logits, in_row_order, text_in

SAME = 0.1
# Of a model that gives each text the same score.
LEAST = 1e-3


def _read_sentence(row: Mapping[str, Any], _labels: Labels) -> dict[str, Any]:
    return {"text": text_in(row, "text"), "label": _number(row["score"])}


def _read_pair(row: Mapping[str, Any], labels: Labels) -> dict[str, Any]:
    return {"text_pair": text_in(row, "text_pair"), **_read_sentence(row, labels)}


def _number(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"score holds {value!r}, expected a number")
    return number


def _read_text(row: Mapping[str, Any], _labels: Labels) -> dict[str, Any]:
    return {"text": text_in(row, "text"), "label": math.nan}


def _read_texts(row: Mapping[str, Any], labels: Labels) -> dict[str, Any]:
    return {"text_pair": text_in(row, "text_pair"), **_read_text(row, labels)}


def _score(logits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return logits[..., 0]


def _lead(logits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A number has no second one behind it."""
    return np.ones(logits.shape[:-1])


def _decode(
    rows: Dataset, features: Dataset, logits: Logits, _classes: Sequence[str]
) -> tuple[list[float], list[float]]:
    assert isinstance(logits, np.ndarray)
    labels, order = rows["label"][:], in_row_order(features)
    return _score(logits)[order].tolist(), [labels[row] for row in sorted(features["row"][:])]


def _nearly_equal(expected: Sequence[float], found: Sequence[float]) -> list[bool]:
    """Which scores differ by at most :data:`SAME` of the standard deviation of those that are expected."""
    expected_N, found_N = np.array(expected), np.array(found)
    allowed = max(SAME * float(expected_N.std()), LEAST)
    near: list[bool] = (np.abs(expected_N - found_N) <= allowed).tolist()
    return near


SENTENCE_REGRESSION = dataclasses.replace(
    SENTENCE_CLASSIFICATION,
    columns=("text", "score"),
    labelled=False,
    metrics=("pearson", "spearman", "r2"),
    read_row=_read_sentence,
    decode=_decode,
    read_text=_read_text,
    baselines=("bag-of-words",),
    problem_type="regression",
    outputs=1,
    choose=_score,
    lead=_lead,
    equal=_nearly_equal,
)
SENTENCE_PAIR_REGRESSION = dataclasses.replace(
    SENTENCE_REGRESSION,
    columns=("text", "text_pair", "score"),
    metrics=(*SENTENCE_REGRESSION.metrics, "ndcg_at_10"),
    read_row=_read_pair,
    text_columns=("text", "text_pair"),
    read_text=_read_texts,
)
