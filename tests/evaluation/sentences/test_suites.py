import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from distilrubert.common.derived import derive
from distilrubert.common.errors import UserError
from distilrubert.evaluation.sentences.frozen_vectors import Prompts
from distilrubert.evaluation.sentences.suite_scores import measure_suite
from distilrubert.evaluation.sentences.suites import known_suites, load_suite

TASK = {
    "name": "pairs",
    "title": "Pairs",
    "kind": "sentence-similarity",
    "metric": "spearman",
    "test": "pairs",
    "licence": "CC0-1.0",
    "source": "these tests",
}
SUITE = {"name": "two", "title": "Two", "tasks": ["pairs.yaml", "classes.yaml"], "data": {"DISTILRUBERT_TWO": "deep"}}
CLASSES = TASK | {"name": "classes", "kind": "vector-classification", "metric": "accuracy", "train": "a", "test": "b"}


def write(folder: Path, suite: dict[str, Any] = SUITE, **task: Any) -> Path:
    for name, values in {"suite": suite, "pairs": TASK | task, "classes": CLASSES}.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")
    return folder / "suite.yaml"


def test_a_suite_has_the_tasks_whose_data_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite_file = write(tmp_path)
    with pytest.raises(UserError, match=r"suite two: there is no data of any of its tasks; let DISTILRUBERT_TWO name"):
        load_suite(suite_file).present()
    (tmp_path / "data" / "deep").mkdir(parents=True)
    for name in ("pairs.csv", "a.parquet"):
        (tmp_path / "data" / "deep" / name).touch()
    monkeypatch.setenv("DISTILRUBERT_TWO", str(tmp_path / "data"))
    suite = load_suite(suite_file)
    # Rows to learn from are not enough.
    assert ([task.name for task in suite.present()], suite.absent()) == (["pairs"], ["classes"])
    (tmp_path / "b.jsonl").touch()
    assert load_suite(suite_file).absent() == []
    (tmp_path / "pairs.parquet").touch()
    assert load_suite(suite_file).locate("pairs") == tmp_path / "pairs.parquet"  # what lies beside comes first


def test_one_task_is_a_suite_of_one(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "pairs.csv").touch()
    suite = load_suite(tmp_path / "pairs.yaml")
    assert (suite.name, [task.name for task in suite.present()]) == ("pairs", ["pairs"])


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"kind": "similarity"}, "kind: input should be 'sentence-similarity'"),
        ({"metric": "accuracy"}, "metric: found 'accuracy'; allowed for sentence-similarity: spearman"),
        ({"columns": {"text": "a"}}, "columns: found 'text'; allowed for sentence-similarity: sentence1"),
        ({"train": "a"}, "train: a file for tasks of kind vector-classification, and for these alone"),
        (CLASSES | {"metric": "roc_auc", "classifiers": ["nearest-neighbours"]}, "classifiers: roc_auc is taken of a"),
        ({"classifiers": []}, "classifiers: list should have at least 1 item"),
        ({"metrics": "a"}, "unknown key metrics: did you mean metric?"),
    ],
)
def test_a_mistake_in_a_task_names_its_file(task: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        load_suite(write(tmp_path, **task))
    assert str(error.value).startswith(f"{tmp_path / 'pairs.yaml'}: ")
    assert message in str(error.value)


def test_other_mistakes_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"suite\.yaml: two tasks are named classes; each needs a name of its own"):
        load_suite(write(tmp_path, name="classes"))
    with pytest.raises(UserError, match=r"suite encodechk: unknown; the shipped ones are encodechka, questions; or"):
        load_suite("encodechk")
    with pytest.raises(UserError, match=r"only variables named DISTILRUBERT_… are read"):
        load_suite(write(tmp_path, SUITE | {"data": {"HF_TOKEN": ""}}))
    with pytest.raises(UserError, match=r"nowhere\.yaml: the task cannot be read: No such file"):
        load_suite(write(tmp_path, SUITE | {"tasks": ["nowhere.yaml"]}))


def test_the_shipped_suites_are_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISTILRUBERT_ENCODECHKA", raising=False)
    monkeypatch.delenv("DISTILRUBERT_DATA", raising=False)
    suites = {name: load_suite(name) for name in known_suites()}
    assert len(suites["encodechka"].tasks) == 8
    assert suites["questions"].absent() == []  # its data comes with the project


@pytest.mark.data
def test_three_tasks_of_encodechka_work_from_the_data_folder(
    data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DISTILRUBERT_ENCODECHKA", raising=False)
    suite = load_suite("encodechka")
    assert [task.name for task in suite.present()] == ["sts", "pi", "nli"]
    assert len(suite.absent()) == 5


@pytest.mark.data
@pytest.mark.slow
def test_the_published_line_of_e5_small_is_reproduced(data_folder: Path, tmp_path: Path) -> None:
    folder = os.environ.get("DISTILRUBERT_E5")
    if not folder:
        pytest.skip("DISTILRUBERT_E5 does not name a folder with multilingual-e5-small")
    prompts = Prompts("query: ", "query: ")
    report = measure_suite({"e5": folder}, load_suite("encodechka"), tmp_path, prompts=prompts)
    found = derive(report)["e5"].values["best"]
    # Its line in the benchmark's table.
    assert found | {"sts": 0.82, "pi": 0.71, "nli": 0.46} == pytest.approx(found, abs=0.025)
