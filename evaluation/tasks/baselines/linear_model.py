"""The linear models of the baselines: of one class, of several at once, or of a number."""

from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier

from distilrubert.evaluation.tasks.kinds.task_kind import TaskKind


def linear_model(kind: TaskKind, strength: float) -> Any:
    """A linear model of scikit-learn for what :func:`labels_of` gives, or for the classes of words.

    Args:
        kind: of the task.
        strength: scikit-learn's C: the larger, the less is it regularised.
    """
    if kind.problem_type == "regression":
        return Ridge(alpha=1 / strength)
    classifier = LogisticRegression(C=strength, max_iter=300, tol=1e-3)
    return OneVsRestClassifier(classifier) if kind.problem_type == "multi_label_classification" else classifier


def labels_of(rows: Dataset) -> NDArray[Any]:
    """The class of each row, 0 or 1 for each of several classes, or its number."""
    labels = np.array(rows["label"][:])
    return labels.astype(int) if labels.ndim == 2 else labels
