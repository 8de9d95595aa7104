"""The result of each test row, kept in reports so that differences between models can be bootstrapped over rows."""

import base64
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from seqeval.metrics.sequence_labeling import get_entities

from distilrubert.evaluation.tasks.metrics import ANSWERS, METRICS, TAGS, answer_f1, compute_metrics, exact_match
from distilrubert.evaluation.tasks.task import TaskDefinition

RowResults = Mapping[str, str]
"""Columns by name, with a number for each test row, separated by spaces; a long one is compressed, behind ``zlib:``.

``reference`` and ``prediction`` where rows have a class; ``expected``, ``found`` and ``correct`` spans where words have
tags; ``exact_match`` and ``answer_f1`` where the answer is a span of text.
"""

_COMPRESSED = "zlib:"

Columns = Mapping[str, NDArray[np.float64]]


def score_test(task: TaskDefinition, predictions: Sequence[Any], references: Sequence[Any]) -> dict[str, Any]:
    """The task's metrics by name, and ``rows``: the :data:`RowResults`."""
    scores = compute_metrics(task.metrics, predictions, references)
    return {**scores, "rows": row_results(task.main_metric, predictions, references)}


def row_results(metric: str, predictions: Sequence[Any], references: Sequence[Any]) -> RowResults:
    """What each row contributes to a metric of :data:`~distilrubert.evaluation.tasks.metrics.METRICS`."""
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
    else:
        columns = {"reference": references, "prediction": predictions}
    return {name: _packed(" ".join(f"{value:.6g}" for value in values)) for name, values in columns.items()}


def confusion(rows: RowResults, classes: int) -> list[list[int]] | None:
    """How many rows of each class, line by line, got each class; None where rows have no class of their own."""
    if "reference" not in rows:
        return None
    columns = parse_rows(rows)
    matrix = np.zeros((classes, classes), dtype=int)
    np.add.at(matrix, (columns["reference"].astype(int), columns["prediction"].astype(int)), 1)
    found: list[list[int]] = matrix.tolist()
    return found


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
    return float(METRICS[metric].score(columns["reference"], columns["prediction"]))


def _packed(text: str) -> str:
    compressed = _COMPRESSED + base64.b64encode(zlib.compress(text.encode(), 9)).decode()
    return min(text, compressed, key=len)


def _unpacked(text: str) -> str:
    if not text.startswith(_COMPRESSED):
        return text
    return zlib.decompress(base64.b64decode(text.removeprefix(_COMPRESSED))).decode()
