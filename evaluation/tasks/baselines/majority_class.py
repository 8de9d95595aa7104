"""The most frequent class of the training part, for every row or every word."""

from collections import Counter
from typing import Any

from distilrubert.evaluation.tasks.row_results import score_test
from distilrubert.evaluation.tasks.task import TaskDefinition
from distilrubert.evaluation.tasks.task_data import TaskRows


def score_majority_class(task: TaskDefinition, rows: TaskRows) -> dict[str, Any]:
    """The task's metrics on the test part when every row, or every word, gets the most frequent class."""
    if "label" in rows.train.column_names:
        ((most_frequent, _),) = Counter(rows.train["label"]).most_common(1)
        references = rows.test["label"][:]
        return score_test(task, [most_frequent] * len(references), references)
    ((most_frequent, _),) = Counter(tag for tags in rows.train["tags"] for tag in tags).most_common(1)
    references = [[task.classes[tag] for tag in tags] for tags in rows.test["tags"]]
    return score_test(task, [[task.classes[most_frequent]] * len(tags) for tags in references], references)
