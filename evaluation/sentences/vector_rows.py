"""The rows of a task for vectors: read, and checked against what its kind needs, before a model encodes anything."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from datasets import Dataset
from sklearn.model_selection import KFold

from distilrubert.common.errors import UserError
from distilrubert.evaluation.sentences.suites import Kind, Part, Suite, VectorTask
from distilrubert.evaluation.tasks.kinds.task_kind import text_in
from distilrubert.evaluation.tasks.task_data import read_table

Rows = Mapping[str, Sequence[str]]
"""The columns of a part's rows, as text."""
Parts = Mapping[Part, Rows]

# As Encodechka has them.
FOLDS = KFold(n_splits=3, shuffle=True, random_state=1)
NEIGHBOURS = 3


def read_parts(task: VectorTask, suite: Suite) -> dict[Part, Rows]:
    """The rows of a task: ``test`` and, where classifiers learn, ``train``.

    Raises:
        UserError: if a file cannot be read, lacks a column or has no rows, or the rows cannot be scored.
    """
    parts: dict[Part, Rows] = {}
    for part, named in task.files.items():
        file = suite.locate(named)
        assert file is not None
        where = f"task {task.name}: {file}"
        parts[part] = _read(task, part, file, where)
        if problem := _PROBLEMS[task.kind](task, part, parts[part]):
            raise UserError(f"{where}: {problem}")
    if task.metric == "roc_auc" and set(parts["train"]["label"]) != set(parts["test"]["label"]):
        raise UserError(f"task {task.name}: {task.train} and {task.test} differ in classes; roc_auc needs the same")
    return parts


def _read(task: VectorTask, part: Part, file: Path, where: str) -> Rows:
    columns = task.columns_of(part)
    table = read_table(file, list(columns.values()), where)
    if missing := [name for name in columns.values() if name not in table.column_names]:
        raise UserError(f"{where}: has no column {missing[0]}; it has {', '.join(table.column_names)}")
    return {ours: _texts(table, theirs, where) for ours, theirs in columns.items()}


def _texts(table: Dataset, column: str, where: str) -> list[str]:
    texts = []
    for number, value in enumerate(table[column], start=1):
        try:
            texts.append(text_in({column: value}, column))
        except ValueError as error:
            raise UserError(f"{where}: row {number}: {error}") from error
    return texts


def _of_correlation(_task: VectorTask, _part: Part, rows: Rows) -> str | None:
    for number, score in enumerate(rows["score"], start=1):
        if not _is_finite(score):
            return f"row {number}: the score is {score!r}; a finite number is needed"
    if len(set(map(float, rows["score"]))) < 2:
        return f"all scores are equal, rows: {len(rows['score'])}; two rows with different scores are needed"
    return None


def _is_finite(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _of_folds(_task: VectorTask, _part: Part, rows: Rows) -> str | None:
    labels = rows["label"]
    if len(labels) < FOLDS.n_splits:
        return f"rows: {len(labels)}; one for each of the {FOLDS.n_splits} folds is needed"
    if any(len({labels[i] for i in learnt}) < 2 for learnt, _ in FOLDS.split(labels)):
        return (
            f"rows: {len(labels)}, classes: {len(set(labels))}; "
            f"two classes are needed in what is left without any of the {FOLDS.n_splits} folds"
        )
    return None


def _of_classifiers(task: VectorTask, part: Part, rows: Rows) -> str | None:
    count, classes = len(rows["label"]), len(set(rows["label"]))
    if task.metric == "roc_auc" and classes != 2:
        return f"classes: {classes}; roc_auc needs two"
    if part == "train" and classes < 2:
        return f"classes: {classes}; classifiers need two to learn from"
    if part == "train" and "nearest-neighbours" in task.classifiers and count < NEIGHBOURS:
        return f"rows: {count}; nearest-neighbours needs {NEIGHBOURS} to learn from"
    return None


def _of_retrieval(_task: VectorTask, _part: Part, rows: Rows) -> str | None:
    if not any(query.strip() for query in rows["query"]):
        return f"rows: {len(rows['query'])}, none with a query; one is needed"
    return None


_PROBLEMS: dict[Kind, Callable[[VectorTask, Part, Rows], str | None]] = {
    "sentence-similarity": _of_correlation,
    "similarity-classification": _of_folds,
    "vector-classification": _of_classifiers,
    "retrieval": _of_retrieval,
}
"""By kind, what keeps a part's rows from being scored."""
