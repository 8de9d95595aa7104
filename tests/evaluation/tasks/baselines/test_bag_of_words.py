import pytest
from datasets import Dataset

from distilrubert.common.errors import UserError
from distilrubert.evaluation.tasks.baselines.bag_of_words import score_bag_of_words
from distilrubert.evaluation.tasks.task import TaskDefinition, TaskFiles
from distilrubert.evaluation.tasks.task_data import TaskRows, load_rows


def test_it_learns_a_class_told_by_a_word(noun_task: TaskDefinition) -> None:
    rows = load_rows(noun_task)
    scores = score_bag_of_words(noun_task, rows)
    assert scores["accuracy"] == 1
    assert score_bag_of_words(noun_task, rows) == scores


def test_of_a_pair_it_sees_whether_the_texts_are_alike() -> None:
    words = ["кот", "хлеб", "дождь", "газета", "поезд", "сад", "лист", "река"]
    pairs = [(first, second) for first in words for second in words]
    pairs += [(word, word) for word in words] * 7
    rows = Dataset.from_list([{"text": a, "text_pair": b, "label": int(a == b)} for a, b in pairs])
    task = TaskDefinition(
        name="same",
        title="Same",
        kind="sentence-pair-classification",
        files=TaskFiles(train="unused"),
        labels=["different", "same"],
        test_share=0.5,
        metrics=["accuracy"],
        licence="CC0-1.0",
        source="here",
    )
    held_out = Dataset.from_list(
        [
            {"text": "новый текст", "text_pair": "новый текст", "label": 1},
            {"text": "кот и газета", "text_pair": "сад и река", "label": 0},
        ]
    )
    assert score_bag_of_words(task, TaskRows(rows, rows, held_out))["accuracy"] == 1


def test_texts_without_words_and_without_anything(noun_task: TaskDefinition) -> None:
    rows = Dataset.from_list([{"text": text, "label": label} for text, label in [("😀😀", 0), ("🥖", 1)] * 4])
    assert score_bag_of_words(noun_task, TaskRows(rows, rows, rows))["accuracy"] == 1
    empty = Dataset.from_list([{"text": "", "label": label} for label in (0, 1)])
    with pytest.raises(UserError, match=r"^task nouns: the texts to train on have nothing in"):
        score_bag_of_words(noun_task, TaskRows(empty, empty, empty))
