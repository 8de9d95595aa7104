"""Texts with any number of classes: how rows are read, what is decided, and that a model learns them."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from distilrubert.common.errors import UserError
from distilrubert.evaluation.evaluation_settings import FinetuningSettings
from distilrubert.evaluation.tasks.baselines import BASELINES
from distilrubert.evaluation.tasks.baselines.linear_probe import probe
from distilrubert.evaluation.tasks.kinds.multi_label_classification import MULTI_LABEL_CLASSIFICATION
from distilrubert.evaluation.tasks.task import TaskDefinition, load_task
from distilrubert.evaluation.tasks.task_data import load_rows
from distilrubert.evaluation.tasks.task_model import check_classes, train_task_model

TASK = """
name: themes
title: Themes
kind: multi-label-classification
files: {train: themes.jsonl}
labels: [animal, food]
test_share: 0.2
validation_share: 0.2
max_length: 32
metrics: [f1_micro, f1_macro, accuracy]
licence: CC0-1.0
source: these tests
"""
WORDS = {"animal": ["кот", "собака", "ёжик"], "food": ["хлеб", "сыр", "чай"], "": ["дом", "река", "вчера"]}
LABELS = {"animal": 0, "food": 1, "meal": 1}


@pytest.fixture
def theme_task(tmp_path: Path) -> TaskDefinition:
    """Texts of two words, each of which may bring its class."""
    chance = np.random.default_rng(0)
    rows = []
    for _ in range(240):
        themes = chance.choice([*WORDS], 2)
        text = " ".join(chance.choice(WORDS[theme]) for theme in themes)
        rows.append({"text": text, "labels": sorted({theme for theme in themes if theme})})
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (tmp_path / "themes.jsonl").write_text(lines, encoding="utf-8")
    (tmp_path / "themes.yaml").write_text(TASK, encoding="utf-8")
    return load_task(tmp_path / "themes.yaml")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (["food", "animal"], [1.0, 1.0]),
        ([], [0.0, 0.0]),
        ("", [0.0, 0.0]),
        ("animal", [1.0, 0.0]),
        ("animal; meal", [1.0, 1.0]),
        ("food,meal", [0.0, 1.0]),
    ],
)
def test_classes_of_a_row_by_list_or_by_text(value: Any, expected: list[float]) -> None:
    row = MULTI_LABEL_CLASSIFICATION.read_row({"text": "слово", "labels": value}, LABELS)
    assert row == {"text": "слово", "label": expected}


def test_a_name_with_a_separator_in_it_is_a_name() -> None:
    row = MULTI_LABEL_CLASSIFICATION.read_row({"text": "слово", "labels": "food, drink"}, {"food, drink": 0, "food": 1})
    assert row["label"] == [1.0, 0.0]


@pytest.mark.parametrize(("value", "told"), [("animal;plant", "unknown label 'plant'"), (None, "labels hold None")])
def test_bad_rows_are_refused(value: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        MULTI_LABEL_CLASSIFICATION.read_row({"text": "слово", "labels": value}, LABELS)


def test_a_class_is_given_above_one_half() -> None:
    rows = Dataset.from_dict({"text": ["а", "б"], "label": [[1.0, 0.0], [1.0, 1.0]]})
    features = Dataset.from_dict({"row": [1, 0]})
    logits = np.array([[0.1, -0.1], [-2.0, 3.0]])
    found = MULTI_LABEL_CLASSIFICATION.decode(rows, features, logits, ["animal", "food"])
    assert found == ([[0, 1], [1, 0]], [[1, 0], [1, 1]])


def test_rows_without_labels_and_classes_without_rows(theme_task: TaskDefinition) -> None:
    rows = load_rows(theme_task, train_limit=100, unlabelled=[])
    assert rows.unlabelled is not None
    assert all(math.isnan(value) for row in rows.unlabelled["label"] for value in row)
    check_classes(theme_task, rows)
    more = theme_task.model_copy(update={"labels": ["animal", "food", "drink"]})
    with pytest.raises(UserError, match="no row to train on has the class drink"):
        check_classes(more, load_rows(more))


def test_a_model_learns_both_classes(theme_task: TaskDefinition, teacher_folder: Path, tmp_path: Path) -> None:
    protocol = {"learning_rates": [3e-3], "epochs": 12, "patience": 12, "batch_size": 16}
    settings = FinetuningSettings(**protocol, precision="fp32", dropout=0.0)
    model = train_task_model(teacher_folder, theme_task, load_rows(theme_task), settings, tmp_path / "work", seed=1)
    assert model.validation > 0.8
    model.save(tmp_path / "model")
    classify = pipeline("text-classification", model=str(tmp_path / "model"), top_k=None)
    (answers,) = classify(["кот сыр"])
    both = {each["label"]: each["score"] for each in answers}
    # Each for itself: they do not share one.
    learnt = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    inputs = AutoTokenizer.from_pretrained(tmp_path / "model")("кот сыр", return_tensors="pt")
    with torch.no_grad():
        shares = learnt(**inputs).logits[0].sigmoid().tolist()
    assert [both["animal"], both["food"]] == pytest.approx(shares, abs=1e-5)


def test_baselines_give_several_classes(theme_task: TaskDefinition, teacher_folder: Path) -> None:
    rows = load_rows(theme_task)
    scores = {case: BASELINES[case](theme_task, rows) for case in theme_task.task_kind.baselines}
    assert scores["bag-of-words"]["f1_micro"] > 0.9
    assert scores["majority-class"]["f1_micro"] < 0.7
    assert probe(teacher_folder, theme_task, rows)["test"]["f1_micro"] > 0.6
