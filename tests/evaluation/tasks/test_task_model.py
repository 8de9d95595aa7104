"""A model that is fine-tuned to be used: the same training as that which is scored, with checkpoints."""

import dataclasses
import json
import logging
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from datasets import Dataset, concatenate_datasets

from distilrubert.common.errors import UserError
from distilrubert.common.training.signals import Interrupted
from distilrubert.evaluation.evaluation_settings import FinetuningSettings
from distilrubert.evaluation.tasks import task_model
from distilrubert.evaluation.tasks.finetuning import Learner, finetune
from distilrubert.evaluation.tasks.kinds.token_classification import TOKEN_CLASSIFICATION
from distilrubert.evaluation.tasks.task import TaskDefinition
from distilrubert.evaluation.tasks.task_data import TaskRows, load_rows
from distilrubert.evaluation.tasks.task_model import TaskModel, train_task_model

RATES = [3e-4, 3e-3]
SETTINGS = FinetuningSettings(learning_rates=RATES, epochs=5, patience=5, batch_size=8, precision="fp32")


@pytest.fixture(scope="module")
def rows(noun_task: TaskDefinition) -> TaskRows:
    return load_rows(noun_task)


@pytest.fixture(scope="module")
def trained(
    student_folder: Path, noun_task: TaskDefinition, rows: TaskRows, tmp_path_factory: pytest.TempPathFactory
) -> TaskModel:
    folder = tmp_path_factory.mktemp("trained")
    return train_task_model(student_folder, noun_task, rows, SETTINGS, folder, 1)


def weights(model: TaskModel) -> dict[str, torch.Tensor]:
    return model.learner.model.state_dict()


def same(one: TaskModel, other: TaskModel) -> bool:
    return all(torch.equal(weight, weights(other)[name]) for name, weight in weights(one).items())


def test_it_is_the_model_that_evaluation_scores(
    trained: TaskModel, student_folder: Path, noun_task: TaskDefinition, rows: TaskRows
) -> None:
    scores = {
        rate: finetune(student_folder, noun_task, rows, SETTINGS, learning_rate=rate, seed=1)["validation"]["accuracy"]
        for rate in RATES
    }
    assert {rate: max(epoch["accuracy"] for epoch in trained.evaluations[rate]) for rate in RATES} == scores
    assert trained.learning_rate == max(RATES, key=scores.__getitem__) == 3e-3
    assert trained.validation == scores[3e-3] == trained.learner.validate()["accuracy"]
    assert trained.learner.model.config.problem_type == "single_label_classification"


def test_a_run_that_is_stopped_goes_on_to_the_same_weights(
    trained: TaskModel,
    student_folder: Path,
    noun_task: TaskDefinition,
    rows: TaskRows,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stopped in each of the two trainings, and called once more when all is done."""
    validate, calls = Learner.validate, []

    def stopping(self: Learner) -> dict[str, float]:
        calls.append(1)
        if len(calls) in (2, 7):
            os.kill(os.getpid(), signal.SIGINT)
        return validate(self)

    def run() -> TaskModel:
        return train_task_model(student_folder, noun_task, rows, SETTINGS, tmp_path, 1)

    monkeypatch.setattr(Learner, "validate", stopping)
    for _ in range(2):
        with pytest.raises(Interrupted, match="the newest checkpoint is"):
            run()
    assert same(run(), trained)
    assert same(run(), trained)
    # No epoch twice, and none of a finished run.
    assert len(calls) == 10


def test_a_run_that_goes_on_computes_as_before(
    student_folder: Path,
    noun_task: TaskDefinition,
    rows: TaskRows,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = SETTINGS.model_copy(update={"learning_rates": [3e-3], "epochs": 1, "precision": "auto"})
    for chosen in ("fp32", "bf16"):
        monkeypatch.setattr(task_model, "chosen_precision", lambda _, chosen=chosen: chosen)
        assert train_task_model(student_folder, noun_task, rows, settings, tmp_path, 1).settings.precision == "fp32"


@pytest.mark.parametrize("what", ["model", "seed", "protocol", "rows"])
def test_a_folder_of_another_run_is_refused(
    what: str,
    teacher_folder: Path,
    student_folder: Path,
    noun_task: TaskDefinition,
    rows: TaskRows,
    tmp_path: Path,
) -> None:
    settings = SETTINGS.model_copy(update={"learning_rates": [3e-3], "epochs": 1})
    train_task_model(student_folder, noun_task, rows, settings, tmp_path, 1)
    folder = teacher_folder if what == "model" else student_folder
    seed = 2 if what == "seed" else 1
    other = settings.model_copy(update={"head_learning_rate": 0.01}) if what == "protocol" else settings
    own = dataclasses.replace(rows, test=rows.test.select(range(10))) if what == "rows" else rows
    with pytest.raises(UserError, match="belongs to another run"):
        train_task_model(folder, noun_task, own, other, tmp_path, seed)


def test_a_class_that_nothing_teaches_is_told(
    student_folder: Path, noun_task: TaskDefinition, rows: TaskRows, tmp_path: Path
) -> None:
    task = noun_task.model_copy(update={"labels": ["animal", "food", "drink"]})
    with pytest.raises(UserError, match="task nouns: no row to train on has the class drink; add rows, or take it out"):
        train_task_model(student_folder, task, rows, SETTINGS, tmp_path, 1)
    tagged = Dataset.from_list([{"tokens": ["кот", "спит"], "tags": [1, 0]}])
    task = noun_task.model_copy(update={"kind": "token-classification", "labels": ["O", "B-PET", "I-PET"]})
    with pytest.raises(UserError, match="has the class I-PET"):
        train_task_model(student_folder, task, TaskRows(tagged, tagged, tagged), SETTINGS, tmp_path, 1)
    assert list(tmp_path.iterdir()) == []


def test_test_rows_that_are_trained_on_are_counted_and_told(
    student_folder: Path,
    noun_task: TaskDefinition,
    rows: TaskRows,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    fresh = [row for row in rows.test if row["text"] not in set(rows.train["text"])]
    test = concatenate_datasets([Dataset.from_list(fresh), rows.train.select(range(3))])
    settings = SETTINGS.model_copy(update={"learning_rates": [3e-3], "epochs": 1})
    with caplog.at_level(logging.WARNING, "distilrubert"):
        train_task_model(student_folder, noun_task, dataclasses.replace(rows, test=test), settings, tmp_path, 1)
    assert f"task nouns: 3 of {len(test)} test rows are training rows, too" in caplog.text


def test_a_model_of_no_known_family_is_refused(
    student_folder: Path, noun_task: TaskDefinition, rows: TaskRows, tmp_path: Path
) -> None:
    folder = shutil.copytree(student_folder, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "gpt2"}))
    with pytest.raises(UserError, match=r"^me/model: config.json says model_type 'gpt2'; taken are bert, "):
        train_task_model(folder, noun_task, rows, SETTINGS, tmp_path / "work", 1, "me/model")


def test_token_types_that_a_model_does_not_take_are_not_yielded(
    student_folder: Path, noun_task: TaskDefinition, rows: TaskRows, tmp_path: Path
) -> None:
    """Some DistilBERTs of the Hub have BERT's tokenizer."""
    folder = shutil.copytree(student_folder, tmp_path / "model")
    names = ["input_ids", "token_type_ids", "attention_mask"]
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config |= {"tokenizer_class": "BertTokenizer", "model_input_names": names}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    settings = SETTINGS.model_copy(update={"learning_rates": [3e-3], "epochs": 1})
    trained = train_task_model(folder, noun_task, rows, settings, tmp_path / "work", 1)
    assert set(trained.tokenizer("кот")) == {"input_ids", "attention_mask"}


def test_a_model_of_another_task_gets_a_new_head(
    trained: TaskModel, noun_task: TaskDefinition, rows: TaskRows, tmp_path: Path
) -> None:
    """Its own head has two classes."""
    trained.learner.model.save_pretrained(tmp_path / "nouns")
    trained.tokenizer.save_pretrained(tmp_path / "nouns")
    three = noun_task.model_copy(update={"labels": ["animal", "drink", "food"], "metrics": ["accuracy"]})
    kinds = {"чай": 1, "хлеб": 2, "сыр": 2}

    def relabelled(part: Dataset) -> Dataset:
        labels = [next((kinds[word] for word in text.split() if word in kinds), 0) for text in part["text"]]
        return part.remove_columns("label").add_column("label", labels)

    parts = TaskRows(*(relabelled(part) for part in (rows.train, rows.validation, rows.test)))
    settings = SETTINGS.model_copy(update={"learning_rates": [3e-3], "epochs": 1})
    again = train_task_model(tmp_path / "nouns", three, parts, settings, tmp_path / "work", 1)
    assert set(again.learner.head) == {"classifier.weight", "classifier.bias"}
    assert again.learner.model.config.id2label == {0: "animal", 1: "drink", 2: "food"}


def test_tags_of_words_are_learnt(teacher_folder: Path, noun_task: TaskDefinition, tmp_path: Path) -> None:
    words = ["кот", "дома", "летом", "собака"]
    raws = [{"tokens": [words[i % 4], words[i // 4 % 4]], "tags": []} for i in range(64)]
    for raw in raws:
        raw["tags"] = ["B-PET" if word in ("кот", "собака") else "O" for word in raw["tokens"]]
    labels = {"O": 0, "B-PET": 1}
    part = Dataset.from_list([TOKEN_CLASSIFICATION.read_row(raw, labels) for raw in raws])
    task = noun_task.model_copy(update={"kind": "token-classification", "labels": list(labels), "metrics": ["span_f1"]})
    settings = SETTINGS.model_copy(update={"learning_rates": [3e-3]})
    trained = train_task_model(teacher_folder, task, TaskRows(part, part, part), settings, tmp_path, 1)
    assert trained.validation >= 0.9
    assert trained.learner.model.config.problem_type is None
