"""Baselines: what a model has to beat. Those that need no model are listed here."""

import dataclasses
from collections.abc import Callable, Set
from typing import Any

from distilrubert.evaluation.tasks.baselines.bag_of_words import score_bag_of_words
from distilrubert.evaluation.tasks.baselines.majority_class import score_majority_class
from distilrubert.evaluation.tasks.task import TaskDefinition
from distilrubert.evaluation.tasks.task_data import TaskRows

SENTENCES = {"sentence-classification", "sentence-pair-classification"}


@dataclasses.dataclass(frozen=True)
class Baseline:
    """A baseline without randomness.

    Attributes:
        score: fits on the training part and scores on the test part, as :func:`.row_results.score_test` returns it.
        kinds: the kinds of task that it can do.
    """

    score: Callable[[TaskDefinition, TaskRows], dict[str, Any]]
    kinds: Set[str]


MAJORITY = "majority-class"
BASELINES = {
    "bag-of-words": Baseline(score_bag_of_words, SENTENCES),
    MAJORITY: Baseline(score_majority_class, SENTENCES | {"token-classification"}),
}
"""By the case of their row in reports."""
