"""Baselines: what a model has to beat. Those that need no model are listed here, and named by the kinds of task."""

from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np

from distilrubert.common.derived import MAJORITY
from distilrubert.evaluation.tasks.baselines.bag_of_words import score_bag_of_words
from distilrubert.evaluation.tasks.baselines.linear_model import labels_of
from distilrubert.evaluation.tasks.row_results import score_test
from distilrubert.evaluation.tasks.task import TaskDefinition
from distilrubert.evaluation.tasks.task_data import TaskRows


def score_majority_class(task: TaskDefinition, rows: TaskRows) -> dict[str, Any]:
    """The task's metrics on the test part when every row, or every word, gets the most frequent class.

    Of several classes at once these are the classes that most rows have.
    """
    if "label" in rows.train.column_names:
        classes = [tuple(row) if row.ndim else row for row in labels_of(rows.train)]
        ((most_frequent, _),) = Counter(classes).most_common(1)
        references = labels_of(rows.test).tolist()
        return score_test(task, rows.test, [np.asarray(most_frequent).tolist()] * len(references), references)
    ((most_frequent, _),) = Counter(tag for tags in rows.train["tags"] for tag in tags).most_common(1)
    references = [[task.classes[tag] for tag in tags] for tags in rows.test["tags"]]
    return score_test(task, rows.test, [[task.classes[most_frequent]] * len(tags) for tags in references], references)


def score_word_tags(task: TaskDefinition, rows: TaskRows) -> dict[str, Any]:
    """The task's metrics on the test part when every word gets the tag that it has most often in the training part.

    Words that are not in it get the most frequent tag of all.
    """
    counts: dict[str, Counter[int]] = defaultdict(Counter)
    for words, tags in zip(rows.train["tokens"], rows.train["tags"], strict=True):
        for word, tag in zip(words, tags, strict=True):
            counts[word][tag] += 1
    chosen = {word: found.most_common(1)[0][0] for word, found in counts.items()}
    ((other, _),) = sum(counts.values(), Counter[int]()).most_common(1)
    predictions = [[task.classes[chosen.get(word, other)] for word in words] for words in rows.test["tokens"]]
    references = [[task.classes[tag] for tag in tags] for tags in rows.test["tags"]]
    return score_test(task, rows.test, predictions, references)


BASELINES: dict[str, Callable[[TaskDefinition, TaskRows], dict[str, Any]]] = {
    "bag-of-words": score_bag_of_words,
    "word-tags": score_word_tags,
    MAJORITY: score_majority_class,
}
"""By the case of their row in reports: what fits on the training part, without randomness, and scores on the test part.

The kind of a task names those that can do it.
"""
