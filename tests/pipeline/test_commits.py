"""Branches are resolved to commits when a run begins, and a run keeps them until it is told to update."""

import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants

from distilrubert.pipeline.cli import main
from distilrubert.pipeline.commits import pinned_tasks, with_commits
from distilrubert.pipeline.engine import bring_up_to_date
from distilrubert.pipeline.recipe import load_recipe
from distilrubert.pipeline.run import Run

from ..distill.corpus.dataset_hub import COMMIT, DatasetHub
from ..hub.conftest import local_hub  # noqa: F401

RECIPE = """
name: small-one
teacher: {{model: {model}}}
corpus: {{sources: [{source}]}}
student: {{layers: 2}}
conversion: {{onnx: []}}
evaluation: {{probed_tasks: {tasks}}}
card: {{language: ru, license: apache-2.0}}
"""
TASK = """
name: moods
title: Moods
kind: sentence-classification
dataset: {id: me/talk}
labels: [bad, good]
metrics: [accuracy]
licence: CC0
source: here
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def new_run(folder: Path, model: object, source: str = "{path: texts.txt}", tasks: str = "[]") -> Run:
    (folder / "texts.txt").write_text("Привет\n" * 5, encoding="utf-8")
    (folder / "recipe.yaml").write_text(RECIPE.format(model=model, source=source, tasks=tasks), encoding="utf-8")
    return Run(load_recipe(folder / "recipe.yaml"), folder / "run")


@pytest.fixture
def api(local_hub, monkeypatch):  # noqa: F811
    monkeypatch.setattr(constants, "ENDPOINT", local_hub.endpoint)
    monkeypatch.setenv("HF_TOKEN", local_hub.tokens["me"])
    found = HfApi(endpoint=local_hub.endpoint, token=local_hub.tokens["me"])
    found.create_repo("me/teacher")
    return found


def commit(api: HfApi, text: str) -> str:
    done = api.upload_file(path_or_fileobj=text.encode(), path_in_repo="config.json", repo_id="me/teacher")
    return str(done.oid)


def test_a_run_keeps_its_commit_until_it_is_updated_and_also_offline(api, tmp_path, monkeypatch):
    first = commit(api, "{}")
    run = with_commits(new_run(tmp_path, "me/teacher"))
    assert run.recipe.teacher.revision == first
    bring_up_to_date(run, [])
    assert json.loads((run.folder / "commits.json").read_text()) == {"model me/teacher@main": first}
    assert f"revision: {first}" in (run.folder / "recipe.yaml").read_text()
    second = commit(api, '{"model_type": "bert"}')
    assert with_commits(new_run(tmp_path, "me/teacher")).recipe.teacher.revision == first
    assert with_commits(new_run(tmp_path, "me/teacher"), update=True).recipe.teacher.revision == second
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert with_commits(new_run(tmp_path, "me/teacher")).recipe.teacher.revision == first
    # What it ran with is a recipe of the same commit.
    again = Run(load_recipe(run.folder / "recipe.yaml"), tmp_path / "other")
    assert with_commits(again).recipe == run.recipe


def test_without_the_hub_the_commit_of_the_local_cache_is_taken(tmp_path, monkeypatch, cache):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    (cache / "models--me--teacher/refs").mkdir(parents=True)
    (cache / "models--me--teacher/refs/main").write_text("b" * 40)
    (cache / "models--me--teacher/snapshots" / ("b" * 40)).mkdir(parents=True)
    assert with_commits(new_run(tmp_path, "me/teacher")).recipe.teacher.revision == "b" * 40
    assert with_commits(new_run(tmp_path, "me/other")).recipe.teacher.revision == "main"


def test_data_sets_of_the_corpus_and_of_tasks_are_resolved(tmp_path, monkeypatch, tiny_teacher_folder):
    (tmp_path / "moods.yaml").write_text(TASK, encoding="utf-8")
    source = "{dataset: me/talk}"
    with DatasetHub([{"text": "а"}]) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        run = with_commits(new_run(tmp_path, tiny_teacher_folder, source, "[./moods.yaml]"))
    assert run.recipe.corpus.sources[0].revision == COMMIT
    (_, (task,)) = pinned_tasks(run)
    assert task.dataset is not None
    assert task.dataset.revision == COMMIT
    assert run.commits == {"dataset me/talk@main": COMMIT}


def test_what_does_not_belong_to_a_model_restarts_nothing(tmp_path, tiny_teacher_folder, capsys):
    teacher = shutil.copytree(tiny_teacher_folder, tmp_path / "teacher")
    (tmp_path / "texts.txt").write_text("Привет, как дела?\nХорошо, а у тебя?\n" * 3, encoding="utf-8")
    recipe = RECIPE.format(model=teacher, source="{path: texts.txt}, max_length: 64", tasks="[]").replace(
        "}, max_length: 64]", "}], max_length: 64, validation: 0"
    )
    recipe += "distillation: {max_steps: 1, batch_tokens: 64, batches_per_update: 1}\n"
    (tmp_path / "recipe.yaml").write_text(recipe, encoding="utf-8")
    command = ["distill", str(tmp_path / "recipe.yaml"), "--run-dir", str(tmp_path / "run")]
    assert main(command) == 0
    for name in ("README.md", ".DS_Store", "training.log", "picture.png"):
        (teacher / name).write_bytes(b"anything")
    capsys.readouterr()
    assert main(command) == 0
    assert "student: up to date" in capsys.readouterr().err
    config = json.loads((teacher / "config.json").read_text())
    (teacher / "config.json").write_text(json.dumps(config | {"layer_norm_eps": 1e-5}))
    assert main(command) == 0
    assert "corpus: tokenising the corpus (teacher.files.0." in capsys.readouterr().err
