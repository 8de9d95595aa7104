import pytest
from datasets import Dataset

from distilrubert.evaluation.tasks.baselines import applies_to, score_majority_class
from distilrubert.evaluation.tasks.task import TaskDefinition
from distilrubert.evaluation.tasks.task_data import TaskRows


def test_the_majority_is_that_of_the_training_rows(noun_task: TaskDefinition) -> None:
    def rows(labels: list[int]) -> Dataset:
        return Dataset.from_list([{"text": "слово", "label": label} for label in labels])

    task = noun_task.model_copy(update={"metrics": ["accuracy", "f1", "f1_macro", "f1_weighted", "matthews"]})
    scores = score_majority_class(task, TaskRows(rows([1, 1, 1, 0, 0]), rows([0]), rows([0, 0, 0, 1])))
    # One of four is right. F1 of class 1, with precision 1/4 and recall 1, is 2/5, and that of class 0 none.
    by_hand = {"accuracy": 0.25, "f1": 0.4, "f1_macro": 0.2, "f1_weighted": 0.1, "matthews": 0.0}
    assert scores == pytest.approx(by_hand)


@pytest.mark.parametrize(("kind", "applies"), [("question-answering", False), ("sentence-classification", True)])
def test_they_are_for_sentences(noun_task: TaskDefinition, kind: str, applies: bool) -> None:
    assert applies_to(noun_task.model_copy(update={"kind": kind})) is applies
