"""Answers come in the order of the rows, whatever order the features have: only so are those of two models pairs."""

from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from distilrubert.evaluation.tasks.kinds.multi_label_classification import MULTI_LABEL_CLASSIFICATION
from distilrubert.evaluation.tasks.kinds.sentence_classification import SENTENCE_CLASSIFICATION
from distilrubert.evaluation.tasks.kinds.sentence_regression import SENTENCE_REGRESSION
from distilrubert.evaluation.tasks.kinds.task_kind import TaskKind
from distilrubert.evaluation.tasks.kinds.token_classification import tags_of

ORDER = [2, 0, 1]
CASES = [
    (SENTENCE_CLASSIFICATION, [0, 1, 2], [[9, 0, 0], [0, 9, 0], [0, 0, 9]], [0, 1, 2]),
    (MULTI_LABEL_CLASSIFICATION, [[1, 0], [1, 1], [0, 0]], [[9, -9], [9, 9], [-9, -9]], [[1, 0], [1, 1], [0, 0]]),
    (SENTENCE_REGRESSION, [0.5, 2.5, 1.0], [[0.25], [2.0], [1.5]], [0.25, 2.0, 1.5]),
]


@pytest.mark.parametrize(("kind", "labels", "logits", "expected"), CASES, ids=["classes", "several", "scores"])
def test_answers_of_texts(kind: TaskKind, labels: list[Any], logits: list[list[float]], expected: list[Any]) -> None:
    rows = Dataset.from_dict({"text": ["long", "longer", "a"], "label": labels})
    features = Dataset.from_dict({"row": ORDER})
    found = kind.decode(rows, features, np.array(logits, dtype=np.float32)[ORDER], ["a", "b", "c"][: len(logits[0])])
    assert found == (expected, labels)


def test_tags_of_words() -> None:
    rows = Dataset.from_dict({"tags": [[0], [1, 0], [0, 1]]})
    features = Dataset.from_dict({"row": ORDER, "scored_words": [[0, 1], [0], [0, 1]]})
    predictions, references = tags_of(rows, features, [[1, 1], [0], [1, 0]], ["O", "B-PET"])
    assert predictions == [["O"], ["B-PET", "O"], ["B-PET", "B-PET"]]
    assert references == [["O"], ["B-PET", "O"], ["O", "B-PET"]]
