"""The most frequent class of the training part, for every row."""

from sklearn.dummy import DummyClassifier

from distilrubert.evaluation.tasks.metrics import compute_metrics
from distilrubert.evaluation.tasks.task import TaskDefinition
from distilrubert.evaluation.tasks.task_data import TaskRows


def score_majority_class(task: TaskDefinition, rows: TaskRows) -> dict[str, float]:
    """The task's metrics on the test part when every row gets the most frequent class of the training part."""
    labels = rows.train["label"][:]
    constant = DummyClassifier(strategy="most_frequent").fit(labels, labels)
    references = rows.test["label"][:]
    return compute_metrics(task.metrics, constant.predict(references).tolist(), references)
