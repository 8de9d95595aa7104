from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AutoModel, AutoTokenizer

from distilrubert.common.errors import UserError
from distilrubert.evaluation.tasks.baselines.linear_probe import _sentences, _words, mean_vectors, probe
from distilrubert.evaluation.tasks.task import TaskDefinition, TaskFiles
from distilrubert.evaluation.tasks.task_data import TaskRows, load_rows


@pytest.fixture(scope="module")
def encoder(student_folder: Path):
    return AutoModel.from_pretrained(student_folder).eval(), AutoTokenizer.from_pretrained(student_folder)


def define(kind: str, labels: list[str], metrics: list[str]) -> TaskDefinition:
    """A task whose rows are given by hand."""
    fields = {"name": "own", "title": "Own", "licence": "CC0-1.0", "source": "here", "files": TaskFiles(train="unused")}
    return TaskDefinition(**fields, kind=kind, labels=labels, metrics=metrics, test_share=0.5)


@torch.inference_mode()
def alone(encoder, text: str) -> np.ndarray:
    model, tokenizer = encoder
    return model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0).numpy()


def test_vectors_are_means_over_real_tokens_in_the_order_of_the_texts(encoder, sentences) -> None:
    found = mean_vectors(*encoder, sentences, max_length=64)
    expected = np.stack([alone(encoder, text) for text in sentences])
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_pair_is_product_and_distance_of_its_vectors(encoder) -> None:
    rows = Dataset.from_dict({"text": ["Кот спит."], "text_pair": ["Да."], "label": [0]})
    task = define("sentence-pair-classification", ["no", "yes"], ["accuracy"])
    first, second = alone(encoder, "Кот спит."), alone(encoder, "Да.")
    (found,) = _sentences(*encoder, task, rows).vectors_ND
    np.testing.assert_allclose(found, [*(first * second), *abs(first - second)], atol=1e-5)


@torch.inference_mode()
def test_a_word_is_its_first_token_and_its_class_is_counted_in_its_place(encoder) -> None:
    model, tokenizer = encoder
    task = define("token-classification", ["O", "B-PET"], ["span_f1"])
    rows = Dataset.from_dict({"tokens": [["электрификация", "\u200b", "кот"], ["да"]], "tags": [[0, 0, 1], [1]]})
    part = _words(model, tokenizer, task, rows)
    pieces = len(tokenizer.tokenize("электрификация"))
    assert pieces > 1
    hidden = [
        model(**tokenizer(words, is_split_into_words=True, return_tensors="pt")).last_hidden_state[0].numpy()
        for words in rows["tokens"]
    ]
    np.testing.assert_allclose(part.vectors_ND, [hidden[0][1], hidden[0][1 + pieces], hidden[1][1]], atol=1e-5)
    assert part.labels_N == [0, 1, 1]
    # The word without a piece counts as outside.
    references = [["O", "O", "B-PET"], ["B-PET"]]
    assert part.decode([0, 1, 1]) == (references, references)
    assert part.decode([1, 0, 1]) == ([["B-PET", "O", "O"], ["B-PET"]], references)


def test_words_are_told_apart_by_their_vectors(student_folder: Path) -> None:
    words = ["кот", "собака", "вчера", "дома", "летом", "опять"]
    sentences = [[words[(row + shift) % 6] for shift in (0, 2, 5)] for row in range(60)]
    tags = [[int(word in ("кот", "собака")) for word in sentence] for sentence in sentences]
    rows = Dataset.from_dict({"tokens": sentences, "tags": tags})
    parts = TaskRows(rows.select(range(30)), rows.select(range(30, 40)), rows.select(range(40, 60)))
    found = probe(student_folder, define("token-classification", ["O", "B-PET"], ["span_f1"]), parts)
    assert found["test"]["span_f1"] > 0.9


def test_what_the_vectors_hold_is_found_and_noise_is_not(student_folder: Path, noun_task: TaskDefinition) -> None:
    rows = load_rows(noun_task)
    found = probe(student_folder, noun_task, rows)
    assert found["test"]["accuracy"] > 0.8  # one of six nouns tells the class
    assert probe(student_folder, noun_task, rows) == found
    chance = np.random.default_rng(0)

    def shuffled(part: Dataset) -> Dataset:
        return Dataset.from_dict({"text": part["text"][:], "label": chance.permutation(part["label"][:])})

    noise = TaskRows(shuffled(rows.train), shuffled(rows.validation), shuffled(rows.test))
    assert probe(student_folder, noun_task, noise)["test"]["accuracy"] < 0.75


def test_words_of_one_class_within_the_length_are_told(student_folder: Path) -> None:
    rows = Dataset.from_dict({"tokens": [["да"] * 20 + ["кот"]] * 2, "tags": [[0] * 20 + [1]] * 2})
    task = define("token-classification", ["O", "B-PET"], ["span_f1"]).model_copy(update={"max_length": 8})
    with pytest.raises(UserError, match="task own: all words within max_length 8 are of one class"):
        probe(student_folder, task, TaskRows(rows, rows, rows))


def test_no_model(tmp_path: Path, noun_task: TaskDefinition) -> None:
    with pytest.raises(UserError, match="cannot be loaded as an encoder"):
        probe(tmp_path, noun_task, load_rows(noun_task))
