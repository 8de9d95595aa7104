"""What needs no model: the lines that every model should beat."""

from collections.abc import Callable

from sklearn.dummy import DummyClassifier

from distilrubert.evaluation.tasks.bag_of_words import score_bag_of_words
from distilrubert.evaluation.tasks.metrics import compute_metrics
from distilrubert.evaluation.tasks.task import TaskDefinition
from distilrubert.evaluation.tasks.task_data import TaskRows


def score_majority_class(task: TaskDefinition, rows: TaskRows) -> dict[str, float]:
    """The task's metrics on the test part, of the class that most training rows have, for every row."""
    labels = rows.train["label"][:]
    constant = DummyClassifier(strategy="most_frequent").fit(labels, labels)
    references = rows.test["label"][:]
    return compute_metrics(task.metrics, constant.predict(references).tolist(), references)


Baseline = Callable[[TaskDefinition, TaskRows], dict[str, float]]
"""The task's metrics on the test part, of something that is fitted on the training part without any randomness."""

BASELINES: dict[str, Baseline] = {"bag-of-words": score_bag_of_words, "majority-class": score_majority_class}
"""By the case that their row has in reports."""


def applies_to(task: TaskDefinition) -> bool:
    """Whether there are baselines for a task: where it classifies sentences or pairs."""
    return "text" in task.task_kind.columns
