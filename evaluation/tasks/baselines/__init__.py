"""Baselines: what a model has to beat. Those that need no model are listed here."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Set
from typing import Any

from distilrubert.common.derived import MAJORITY
from distilrubert.evaluation.tasks.baselines.bag_of_words import score_bag_of_words
from distilrubert.evaluation.tasks.row_results import score_test
from distilrubert.evaluation.tasks.task import TaskDefinition
from distilrubert.evaluation.tasks.task_data import TaskRows

SENTENCES = {"sentence-classification", "sentence-pair-classification"}


def score_majority_class(task: TaskDefinition, rows: TaskRows) -> dict[str, Any]:
    """The task's metrics on the test part when every row, or every word, gets the most frequent class."""
    if "label" in rows.train.column_names:
        ((most_frequent, _),) = Counter(rows.train["label"]).most_common(1)
        references = rows.test["label"][:]
        return score_test(task, [most_frequent] * len(references), references)
    ((most_frequent, _),) = Counter(tag for tags in rows.train["tags"] for tag in tags).most_common(1)
    references = [[task.classes[tag] for tag in tags] for tags in rows.test["tags"]]
    return score_test(task, [[task.classes[most_frequent]] * len(tags) for tags in references], references)


@dataclasses.dataclass(frozen=True)
class Baseline:
    """A baseline without randomness.

    Attributes:
        score: fits on the training part and scores on the test part, as :func:`.row_results.score_test` returns it.
        kinds: the kinds of task that it can do.
    """

    score: Callable[[TaskDefinition, TaskRows], dict[str, Any]]
    kinds: Set[str]


BASELINES = {
    "bag-of-words": Baseline(score_bag_of_words, SENTENCES),
    MAJORITY: Baseline(score_majority_class, SENTENCES | {"token-classification"}),
}
"""By the case of their row in reports."""
