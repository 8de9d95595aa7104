import pytest
from datasets import Dataset

from distilrubert.evaluation.tasks.baselines import BASELINES, score_majority_class, score_word_tags
from distilrubert.evaluation.tasks.kinds import KINDS
from distilrubert.evaluation.tasks.task import TaskDefinition, TaskFiles
from distilrubert.evaluation.tasks.task_data import TaskRows


def test_the_majority_is_that_of_the_training_rows(noun_task: TaskDefinition) -> None:
    def rows(labels: list[int]) -> Dataset:
        return Dataset.from_list([{"text": "слово", "label": label} for label in labels])

    task = noun_task.model_copy(update={"metrics": ["accuracy", "f1", "f1_macro", "f1_weighted", "matthews"]})
    scores = score_majority_class(task, TaskRows(rows([1, 1, 1, 0, 0]), rows([0]), rows([0, 0, 0, 1])))
    # One of four is right. F1 of class 1, with precision 1/4 and recall 1, is 2/5, and that of class 0 none.
    by_hand = {"accuracy": 0.25, "f1": 0.4, "f1_macro": 0.2, "f1_weighted": 0.1, "matthews": 0.0}
    assert scores.pop("rows") == {"reference": "0 0 0 1", "prediction": "1 1 1 1"}
    assert scores == pytest.approx(by_hand)


@pytest.fixture
def names() -> TaskDefinition:
    return TaskDefinition(
        name="names", title="Names", kind="token-classification", files=TaskFiles(train="unused", test="unused"),
        labels=["O", "B-PER", "I-PER"], metrics=["span_f1"], licence="CC0-1.0", source="these tests",
    )  # fmt: skip


def test_the_majority_of_words_finds_no_span(names: TaskDefinition) -> None:
    rows = Dataset.from_dict({"tokens": [["Анна", "спит", "."], ["Да"]], "tags": [[1, 0, 0], [0]]})
    scores = score_majority_class(names, TaskRows(rows, rows, rows))
    assert scores == {"span_f1": 0.0, "rows": {"expected": "1 0", "found": "0 0", "correct": "0 0"}}


def test_a_word_gets_its_most_frequent_tag_and_an_unknown_one_that_of_all_words(names: TaskDefinition) -> None:
    train = Dataset.from_dict(
        {"tokens": [["Анна", "Роза", "спит"], ["Роза", "цветёт", "."], ["Роза"]], "tags": [[1, 2, 0], [0, 0, 0], [0]]}
    )
    test = Dataset.from_dict({"tokens": [["Анна", "Роза", "ест"], ["Анна", "Иванова"]], "tags": [[1, 2, 0], [1, 2]]})
    scores = score_word_tags(names, TaskRows(train, train, test))
    # «Анна» alone is found where «Анна Роза» and «Анна Иванова» are expected: two spans, none of them right.
    assert scores == {"span_f1": 0.0, "rows": {"expected": "1 1", "found": "1 1", "correct": "0 0"}}
    assert score_word_tags(names, TaskRows(test, test, test))["span_f1"] == 1.0


@pytest.mark.parametrize(
    ("kind", "baselines"),
    [
        ("sentence-pair-classification", ["bag-of-words", "majority-class"]),
        ("multi-label-classification", ["bag-of-words", "majority-class"]),
        ("sentence-pair-regression", ["bag-of-words"]),
        ("token-classification", ["word-tags", "majority-class"]),
        ("question-answering", []),
    ],
)
def test_each_kind_names_those_that_can_do_it(kind: str, baselines: list[str]) -> None:
    assert [*KINDS[kind].baselines] == baselines
    assert BASELINES.keys() >= {*baselines}
