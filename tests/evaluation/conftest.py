"""A task of our own that tiny models can learn, and tiny models that can."""

import csv
import random
from pathlib import Path

import pytest
from transformers import BertTokenizerFast

from distilrubert.evaluation.tasks.task import TaskDefinition, load_task
from distilrubert.modeling.architecture import StudentArchitecture
from distilrubert.modeling.student import build_student, save_student
from distilrubert.modeling.teacher import Teacher, new_teacher, save_teacher
from distilrubert.modeling.wordpiece import train_wordpiece

WORDS = {"animal": ["кот", "собака", "ёжик"], "food": ["хлеб", "сыр", "чай"]}
FILLERS = ["вчера", "сегодня", "завтра", "дома", "летом", "весной", "на столе", "у бабушки", "опять", "за рекой"]

TASK = """
name: nouns
title: Nouns
kind: sentence-classification
files: {train: nouns.csv}
labels: [animal, food]
test_share: 0.25
validation_share: 0.2
max_length: 32
metrics: [accuracy, f1]
licence: CC0-1.0
source: these tests
"""


@pytest.fixture(scope="session")
def noun_task_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's task: 160 short lines, the class is told by one noun; a YAML file with its csv beside it."""
    folder = tmp_path_factory.mktemp("task")
    chance = random.Random(0)
    with (folder / "nouns.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for _ in range(160):
            label = chance.choice(sorted(WORDS))
            words = [*chance.sample(FILLERS, chance.randint(1, 3)), chance.choice(WORDS[label])]
            chance.shuffle(words)
            writer.writerow([" ".join(words), label])
    path = folder / "nouns.yaml"
    path.write_text(TASK, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def noun_task(noun_task_file: Path) -> TaskDefinition:
    """The definition of that task."""
    return load_task(noun_task_file)


@pytest.fixture(scope="session")
def fresh_teacher(sentences: list[str]) -> Teacher:
    """A tiny teacher as it is before training: unlike `tiny_teacher`, its weights are small, so that it can learn."""
    tokenizer = train_wordpiece(sentences, size=220, max_length=64).tokenizer
    return new_teacher(tokenizer, layers=4, dim=32, heads=4, hidden_dim=64, seed=7)


@pytest.fixture(scope="session")
def teacher_folder(fresh_teacher: Teacher, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That teacher on disk."""
    folder = tmp_path_factory.mktemp("fresh") / "teacher"
    save_teacher(fresh_teacher, folder)
    return folder


@pytest.fixture(scope="session")
def student_folder(fresh_teacher: Teacher, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student of two layers, initialised from that teacher."""
    folder = tmp_path_factory.mktemp("fresh") / "student"
    save_student(build_student(fresh_teacher, StudentArchitecture(layers=2)), folder)
    return folder


@pytest.fixture(scope="session")
def tiny_word_pieces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer of few pieces: it splits most words into letters."""
    letters = sorted(set("абвгдеёжзийклмнопрстуфхцчшщъыьэюяП"))
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    folder = tmp_path_factory.mktemp("pieces")
    (folder / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    BertTokenizerFast(str(folder / "vocab.txt"), do_lower_case=False).save_pretrained(folder)
    return folder
