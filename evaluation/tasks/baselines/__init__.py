"""Baselines: what a model has to beat. Those that need no model are listed here."""

from collections.abc import Callable

from distilrubert.evaluation.tasks.baselines.bag_of_words import score_bag_of_words
from distilrubert.evaluation.tasks.baselines.majority_class import score_majority_class
from distilrubert.evaluation.tasks.task import TaskDefinition
from distilrubert.evaluation.tasks.task_data import TaskRows

Baseline = Callable[[TaskDefinition, TaskRows], dict[str, float]]
"""Fits on the training part, without randomness, and returns the task's metrics on the test part."""

BASELINES: dict[str, Baseline] = {"bag-of-words": score_bag_of_words, "majority-class": score_majority_class}
"""By the case of their row in reports."""


def applies_to(task: TaskDefinition) -> bool:
    """Whether the baselines apply to a task: it classifies sentences or pairs of sentences."""
    return "text" in task.task_kind.columns
