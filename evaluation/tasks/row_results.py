"""The result of each test row, kept in reports so that differences between models can be bootstrapped over rows."""

import base64
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from seqeval.metrics.sequence_labeling import get_entities

from distilrubert.evaluation.tasks.metrics import (
    ANSWERS,
    METRICS,
    RANKED,
    TAGS,
    answer_f1,
    compute_metrics,
    exact_match,
    ndcg_by_query,
)
from distilrubert.evaluation.tasks.task import TaskDefinition

RowResults = Mapping[str, str]
"""Columns by name, with a number for each test row, separated by spaces; a long one is compressed, behind ``zlib:``.

``reference`` and ``prediction`` where rows have a class or a number, with ``_0`` and so on behind it where they have 0
or 1 for each of several classes; ``expected``, ``found`` and ``correct`` spans where words have tags; ``exact_match``
and ``answer_f1`` where the answer is a span of text. ``ndcg_at_10`` has a number for each query instead, which is what
another sample of the test part would have others of.
"""

_COMPRESSED = "zlib:"
BINS = 15

Columns = Mapping[str, NDArray[np.float64]]


def score_test(
    task: TaskDefinition, rows: Dataset, predictions: Sequence[Any], references: Sequence[Any]
) -> dict[str, Any]:
    """The task's metrics of predictions for rows by name, and ``rows``: the :data:`RowResults`."""
    queries = task.queries_of(rows)
    scores = compute_metrics(task.metrics, predictions, references, queries)
    return {**scores, "rows": row_results(task.main_metric, predictions, references, queries)}


def row_results(
    metric: str, predictions: Sequence[Any], references: Sequence[Any], queries: Sequence[int] = ()
) -> RowResults:
    """What each row contributes to a metric of :data:`~distilrubert.evaluation.tasks.metrics.METRICS`.

    Of one that ranks, with the query of each row, what each query contributes.
    """
    features = METRICS[metric].features
    if features is TAGS:
        found, expected = ([set(get_entities(list(tags))) for tags in rows] for rows in (predictions, references))
        correct = [own & other for own, other in zip(found, expected, strict=True)]
        columns: dict[str, Sequence[float]] = {
            name: [len(spans) for spans in rows]
            for name, rows in (("expected", expected), ("found", found), ("correct", correct))
        }
    elif features is ANSWERS:
        columns = {score.__name__: list(map(score, references, predictions)) for score in (exact_match, answer_f1)}
    elif features is RANKED:
        columns = {metric: ndcg_by_query(references, predictions, queries)}
    else:
        columns = {
            name: column
            for side, values in (("reference", references), ("prediction", predictions))
            for name, column in _columns(side, values).items()
        }
    return {name: _packed(" ".join(f"{value:.6g}" for value in values)) for name, values in columns.items()}


def _columns(name: str, values: Sequence[Any]) -> dict[str, Sequence[Any]]:
    """A column, or one for each class."""
    if not isinstance(values[0], Sequence):
        return {name: values}
    return {f"{name}_{index}": column for index, column in enumerate(zip(*values, strict=True))}


def class_counts(task: TaskDefinition, predictions: Sequence[Any], references: Sequence[Any]) -> list[dict[str, Any]]:
    """For each class, or each type of span, how many rows or spans are ``expected``, ``found`` and ``correct``.

    Nothing where there are no classes.
    """
    if not task.task_kind.labelled:
        return []
    sides: list[dict[str, set[Any]]]
    if METRICS[task.main_metric].features is TAGS:
        spans = [
            {(row, *span) for row, tags in enumerate(rows) for span in get_entities(list(tags))}
            for rows in (references, predictions)
        ]
        names = sorted({kind for side in spans for _, kind, *_ in side})
        sides = [{name: {span for span in side if span[1] == name} for name in names} for side in spans]
    else:
        sides = [
            {
                name: {row for row, value in enumerate(rows) if _has(value, index)}
                for index, name in enumerate(task.classes)
            }
            for rows in (references, predictions)
        ]
    expected_by, found_by = sides
    return [
        {
            "class": name,
            "expected": len(expected_by[name]),
            "found": len(found_by[name]),
            "correct": len(expected_by[name] & found_by[name]),
        }
        for name in expected_by
    ]


def _has(value: Any, index: int) -> bool:
    """Whether a row is of a class: its class, or 0 or 1 for each."""
    return bool(value[index]) if isinstance(value, Sequence) else value == index


def confusion(rows: RowResults, classes: int) -> list[list[int]]:
    """How many rows of each class, line by line, got each class."""
    columns = parse_rows(rows)
    matrix = np.zeros((classes, classes), dtype=int)
    np.add.at(matrix, (columns["reference"].astype(int), columns["prediction"].astype(int)), 1)
    found: list[list[int]] = matrix.tolist()
    return found


def score_bins(predictions: Sequence[float], references: Sequence[float]) -> list[dict[str, float]]:
    """What is true of rows whose predicted numbers are alike: :data:`BINS` of as many rows each, or fewer bins.

    Returns:
        for each bin the mean ``prediction``, mean and standard deviation of the true numbers as ``reference`` and
        ``reference_std``, and ``rows``.
    """
    predicted_N, true_N = np.array(predictions), np.array(references)
    parts = [part for part in np.array_split(np.argsort(predicted_N, kind="stable"), BINS) if len(part)]
    return [
        {
            "prediction": float(predicted_N[part].mean()),
            "reference": float(true_N[part].mean()),
            "reference_std": float(true_N[part].std()),
            "rows": len(part),
        }
        for part in parts
    ]


def parse_rows(rows: RowResults) -> dict[str, NDArray[np.float64]]:
    """The columns as arrays, each (rows,)."""
    return {name: np.array(_unpacked(values).split(), dtype=np.float64) for name, values in rows.items()}


def score_of_rows(metric: str, columns: Columns) -> float:
    """A metric of any selection of the rows; of all rows it is the reported score."""
    if metric in columns:
        return float(columns[metric].mean())
    if "correct" in columns:
        spans = columns["expected"].sum() + columns["found"].sum()
        return float(2 * columns["correct"].sum() / spans) if spans else 0.0
    if "reference_0" in columns:
        sides = [[columns[name] for name in columns if name.startswith(side)] for side in ("reference_", "prediction_")]
        return float(METRICS[metric].score(*(np.stack(side, axis=1) for side in sides)))
    return float(METRICS[metric].score(columns["reference"], columns["prediction"]))


def _packed(text: str) -> str:
    compressed = _COMPRESSED + base64.b64encode(zlib.compress(text.encode(), 9)).decode()
    return min(text, compressed, key=len)


def _unpacked(text: str) -> str:
    if not text.startswith(_COMPRESSED):
        return text
    return zlib.decompress(base64.b64decode(text.removeprefix(_COMPRESSED))).decode()
