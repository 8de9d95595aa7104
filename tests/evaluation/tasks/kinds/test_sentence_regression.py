"""Numbers for texts and for pairs: how rows are read, what is decided, and that a model learns them."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoModelForSequenceClassification, pipeline

from distilrubert.common.errors import UserError
from distilrubert.evaluation.evaluation_settings import FinetuningSettings
from distilrubert.evaluation.tasks.baselines import BASELINES
from distilrubert.evaluation.tasks.kinds.sentence_regression import SENTENCE_PAIR_REGRESSION, SENTENCE_REGRESSION
from distilrubert.evaluation.tasks.task import TaskDefinition, load_task
from distilrubert.evaluation.tasks.task_data import load_rows
from distilrubert.evaluation.tasks.task_model import train_task_model

TASK = """
name: similar
title: Similar
kind: sentence-pair-regression
files: {train: pairs.csv}
columns: {text: one, text_pair: other, score: mark}
test_share: 0.2
validation_share: 0.2
max_length: 32
metrics: [pearson, spearman, r2]
licence: CC0-1.0
source: these tests
"""
WORDS = ["кот", "собака", "ёжик", "хлеб", "сыр", "чай", "дом", "река"]


@pytest.fixture
def pair_task(tmp_path: Path) -> TaskDefinition:
    """Pairs of two words: 1 with an animal in the first text, and half a point more for food in the second."""
    chance = np.random.default_rng(0)
    with (tmp_path / "pairs.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["one", "other", "mark"])
        for _ in range(240):
            one, other = (" ".join(chance.choice(WORDS, 2)) for _ in range(2))
            mark = any(word in one for word in WORDS[:3]) + 0.5 * any(word in other for word in WORDS[3:6])
            writer.writerow([one, other, mark])
    (tmp_path / "similar.yaml").write_text(TASK, encoding="utf-8")
    return load_task(tmp_path / "similar.yaml")


def test_rows_are_read_and_a_row_without_a_number_is_told(pair_task: TaskDefinition, tmp_path: Path) -> None:
    rows = load_rows(pair_task, train_limit=100, unlabelled=[])
    assert set(rows.train["label"]) == {0.0, 0.5, 1.0, 1.5}
    assert rows.unlabelled is not None
    assert all(map(math.isnan, rows.unlabelled["label"]))
    assert SENTENCE_REGRESSION.read_row({"text": "слово", "score": "-2.5"}, {}) == {"text": "слово", "label": -2.5}
    (tmp_path / "pairs.csv").write_text("one,other,mark\nа,б,0.5\nа,в,много\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"pairs.csv: row 2: score holds 'много', expected a number"):
        load_rows(pair_task)


@pytest.mark.parametrize("value", ["nan", "inf", None, "", [1.0]])
def test_what_is_no_number_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="expected a number"):
        SENTENCE_PAIR_REGRESSION.read_row({"text": "а", "text_pair": "б", "score": value}, {})


def test_scores_are_equal_within_a_tenth_of_their_deviation() -> None:
    # The standard deviation of 0, 0, 4 and 4 is 2.
    scores = SENTENCE_REGRESSION.choose(np.array([[0.0], [0.0], [4.0], [4.0]])).tolist()
    assert SENTENCE_REGRESSION.equal(scores, [0.19, -0.21, 4.0, math.nan]) == [True, False, True, False]
    assert SENTENCE_REGRESSION.equal([3.0, 3.0], [3.0005, 3.01]) == [True, False]


def test_classes_are_refused(tmp_path: Path, pair_task: TaskDefinition) -> None:
    (tmp_path / "similar.yaml").write_text(TASK + "labels: [low, high]\n", encoding="utf-8")
    with pytest.raises(UserError, match="labels: a task of kind sentence-pair-regression has no classes; leave them"):
        load_task(tmp_path / "similar.yaml")


def test_a_model_learns_the_score(pair_task: TaskDefinition, teacher_folder: Path, tmp_path: Path) -> None:
    rows = load_rows(pair_task)
    settings = FinetuningSettings(learning_rates=[3e-3], epochs=12, batch_size=16, precision="fp32", dropout=0.0)
    model = train_task_model(teacher_folder, pair_task, rows, settings, tmp_path / "work", seed=1)
    assert model.validation > 0.8
    model.save(tmp_path / "model")
    config = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").config
    assert (config.problem_type, config.num_labels, config.id2label) == ("regression", 1, {0: "score"})
    score = pipeline("text-classification", model=str(tmp_path / "model"))
    high, low = (score({"text": one, "text_pair": other}) for one, other in (("кот дом", "сыр чай"), ("дом", "река")))
    # As it was learnt: no sigmoid keeps it below 1.
    assert high["score"] > 1.1
    assert low["score"] < 0.5


def test_a_bag_of_words_gives_numbers_too(pair_task: TaskDefinition) -> None:
    (case,) = pair_task.task_kind.baselines
    assert BASELINES[case](pair_task, load_rows(pair_task))["pearson"] > 0
