from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from distilrubert.common.errors import UserError
from distilrubert.evaluation.tasks.task import TaskDefinition, known_tasks, load_task, load_tasks

PLAIN = {
    "name": "moods",
    "title": "Moods",
    "kind": "sentence-classification",
    "files": {"train": "moods.csv"},
    "labels": ["bad", "good"],
    "test_share": 0.5,
    "metrics": ["accuracy"],
    "licence": "CC0-1.0",
    "source": "here",
}

# What makes a task of tags of the one above.
TAGS = {"kind": "token-classification", "columns": {}, "metrics": ["span_f1"]}


def write(folder: Path, **changes: Any) -> Path:
    (folder / "moods.csv").write_text("text,label\nда,good\nнет,bad\n", encoding="utf-8")
    path = folder / "moods.yaml"
    path.write_text(yaml.safe_dump(PLAIN | changes, allow_unicode=True), encoding="utf-8")
    return path


def test_a_users_file_names_data_beside_it(tmp_path: Path) -> None:
    task = load_task(write(tmp_path))
    assert task.files is not None
    assert Path(task.files.train) == tmp_path / "moods.csv"
    assert task.label_ids == {"bad": 0, "good": 1}
    assert task.main_metric == "accuracy"


def test_a_path_may_hold_an_environment_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTILRUBERT_MOODS", str(tmp_path))
    task = load_task(write(tmp_path, files={"train": "${DISTILRUBERT_MOODS}/moods.csv"}))
    assert task.files is not None
    assert Path(task.files.train) == tmp_path / "moods.csv"
    monkeypatch.delenv("DISTILRUBERT_MOODS")
    with pytest.raises(
        UserError, match=r"moods\.yaml: files\.train: the environment variable DISTILRUBERT_MOODS is not set"
    ):
        load_task(tmp_path / "moods.yaml")


def test_several_raw_labels_can_be_one_class(tmp_path: Path) -> None:
    task = load_task(write(tmp_path, labels={"different": [-1], "paraphrase": [0, 1]}))
    assert task.classes == ["different", "paraphrase"]
    assert task.label_ids == {"-1": 0, "0": 1, "1": 1}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metric": ["accuracy"]}, "unknown key metric: did you mean metrics?"),
        ({"labels": {"animal": "cat", "food": [1]}}, "labels: animal: a list is needed, as in animal: [cat]"),
        ({"labels": {"a": [1], "b": []}}, "labels: b: no raw label stands for it; name one, or leave the class out"),
        ({"kind": "sentence"}, "kind: unknown 'sentence'; allowed: sentence-classification, sentence-pair"),
        ({"metrics": ["accuracy", "bleu"]}, "metrics: unknown 'bleu'; allowed: accuracy, f1"),
        ({"columns": {"sentence": "text"}}, "columns: unknown 'sentence'; allowed: text, label"),
        ({"labels": ["only"]}, "labels: a task of kind sentence-classification lists at least two classes"),
        ({"labels": ["a", "b", "c"], "metrics": ["f1"]}, "metrics: f1 is for two classes"),
        ({"labels": {"a": [0, 1], "b": [1]}}, "labels: a raw label stands under two classes"),
        ({"labels": ["a", "b", "a"]}, "labels: a is listed twice"),
        ({"labels": [True, False]}, "labels: yes, no, on, off, true and false are truth values in YAML: put them in"),
        ({"labels": {"a": ["x", True], "b": [1]}}, "labels: yes, no, on, off"),
        (
            TAGS | {"labels": [0, 1, 2]},
            "labels: BIO tags are needed (O, and B- or I- before what each span is), found 0",
        ),
        (TAGS | {"labels": ["B-PER", "I-PER"]}, "labels: BIO tags are needed (O, and B- or I- before"),
        ({"files": {"train": "absent.csv"}}, "files.train: there is no file"),
        ({"files": None}, "give either files or dataset"),
        ({"test_share": None}, "give either a test part or test_share"),
        ({"test_share": 2}, "test_share: input should be less than 1"),
        ({"title": None}, "title: input should be a valid string"),
    ],
)
def test_a_bad_definition_is_told_in_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = write(tmp_path, **changes)
    with pytest.raises(UserError) as caught:
        load_task(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[1, 2]", "a: b: c", "\0"])
def test_a_file_that_is_no_task_is_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "task.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"task\.yaml: "):
        load_task(path)


def test_an_unknown_name_lists_the_known_ones_and_the_nearest() -> None:
    with pytest.raises(
        UserError, match=r"task rusentimnt: unknown; did you mean rusentiment\? the shipped tasks are factrueval, "
    ):
        load_task("rusentimnt")
    with pytest.raises(UserError, match=r"task moods\.yaml: there is no such file"):
        load_task("moods.yaml")


@pytest.mark.parametrize(
    ("changes", "split"),
    [
        ({}, "train"),
        ({"files": {"train": "moods.csv", "test": "moods.csv"}, "test_share": None}, "test"),
        ({"test_split": "validation"}, "validation"),
        ({"files": None, "dataset": {"id": "me/moods", "train": "all"}, "test_share": None}, "test"),
        ({"files": None, "dataset": {"id": "me/moods", "test": "dev"}, "test_share": None}, "dev"),
        ({"files": None, "dataset": {"id": "me/moods", "train": "all", "test": None}}, "all"),
    ],
)
def test_scores_are_of_the_split_that_is_reported_on(tmp_path: Path, changes: dict[str, Any], split: str) -> None:
    assert load_task(write(tmp_path, **changes)).reported_split == split


def test_two_tasks_of_one_name_are_refused(tmp_path: Path) -> None:
    one, other = write(tmp_path), write(tmp_path).rename(tmp_path / "other.yaml")
    write(tmp_path)
    assert [task.name for task in load_tasks([one])] == ["moods"]
    with pytest.raises(UserError, match="task moods: is given 2 times; each needs a name of its own"):
        load_tasks([one, other])


def test_every_shipped_task_is_a_valid_definition(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DISTILRUBERT_DATA", str(tmp_path))
    for name in known_tasks():
        with pytest.raises(UserError, match=r"files\.train: there is no file"):
            load_task(name)  # all that is wrong is that this folder is empty


def test_a_task_is_immutable(tmp_path: Path) -> None:
    task: TaskDefinition = load_task(write(tmp_path))
    with pytest.raises(ValidationError):
        task.name = "other"  # type: ignore[misc]
