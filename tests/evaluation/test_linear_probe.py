from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AutoModel, AutoTokenizer

from distilrubert.evaluation.linear_probe import _features, mean_vectors, probe
from distilrubert.evaluation.task import TaskDefinition
from distilrubert.evaluation.task_data import TaskRows, load_rows
from distilrubert.modeling.errors import UserError


@pytest.fixture(scope="module")
def encoder(student_folder: Path):
    return AutoModel.from_pretrained(student_folder).eval(), AutoTokenizer.from_pretrained(student_folder)


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
    first, second = alone(encoder, "Кот спит."), alone(encoder, "Да.")
    (found,) = _features(*encoder, rows, 64)
    np.testing.assert_allclose(found, [*(first * second), *abs(first - second)], atol=1e-5)


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


def test_no_model(tmp_path: Path, noun_task: TaskDefinition) -> None:
    with pytest.raises(UserError, match="cannot be loaded as an encoder"):
        probe(tmp_path, noun_task, load_rows(noun_task))
