"""A student that continues from a finished one: its weights, vocabulary, fingerprint, report and refusals."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import HfApi, constants
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from distilrubert.modeling.student import load_student
from distilrubert.modeling.teacher import Teacher, save_teacher
from distilrubert.pipeline.cli import main
from distilrubert.pipeline.recipe import load_recipe
from distilrubert.pipeline.run import Run
from distilrubert.pipeline.stages import stages_of
from distilrubert.pipeline.starting_student import starting_student
from distilrubert.pipeline.task_stages import start_folder

from ..hub.conftest import local_hub  # noqa: F401

OWN = {"layers": 2, "dim": 16, "heads": 4, "hidden_dim": 32, "vocabulary": {"train": {"size": 150}}}


def write(folder: Path, model: Path, sentences: list[str], **sections: Any) -> Path:
    """A recipe of few updates on the sentences; sections are put in place of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "texts.txt").write_text("\n".join(sentences), encoding="utf-8")
    recipe = {
        "name": folder.name,
        "teacher": {"model": str(model)},
        "corpus": {"sources": [{"path": "texts.txt"}], "validation": 0.3, "max_length": 32, "processes": 1},
        "student": {"layers": 2},
        "distillation": {
            "batch_tokens": 256, "batches_per_update": 1, "max_steps": 2, "precision": "fp32", "num_workers": 0,
        },
        "conversion": {"onnx": [], "openvino": []},
        "card": {"language": "ru", "license": "mit"},
    }  # fmt: skip
    for name, section in sections.items():
        recipe[name] = section if name == "student" else {**recipe[name], **section}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, allow_unicode=True), encoding="utf-8")
    return path


def distil(recipe: Path) -> int:
    return main(["distill", str(recipe), "--run-dir", str(recipe.parent / "run")])


def training_of(recipe: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((recipe.parent / "run" / "reports" / "training.json").read_text())
    return report


def refusal(recipe: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line about a mistake, said before any work."""
    capsys.readouterr()
    assert distil(recipe) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert not (recipe.parent / "run" / "stages").exists()
    return said


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, tiny_teacher_folder: Path, sentences: list[str]) -> Path:
    """The recipe of a finished first phase."""
    recipe = write(tmp_path_factory.mktemp("phases") / "first", tiny_teacher_folder, sentences)
    assert distil(recipe) == 0
    return recipe


@pytest.fixture(scope="module")
def start(first: Path) -> str:
    return str(first.parent / "run" / "student")


def test_a_second_phase_goes_on_from_the_weights_of_the_first(
    first, start, tmp_path, tiny_teacher_folder, tiny_teacher, sentences, capsys
):
    second = write(
        tmp_path / "second",
        tiny_teacher_folder,
        sentences[10:],
        student={"start_from": start},
        corpus={"max_length": 64},
        distillation={"learning_rate": 1e-12},
    )
    run = Run(load_recipe(second), tmp_path / "second" / "run")
    begun = starting_student(run, tiny_teacher.model.config).model.state_dict()
    finished = load_student(start).model.state_dict()
    assert all(torch.equal(begun[name], finished[name]) for name in finished)
    assert distil(second) == 0
    # At a learning rate of nothing it ends where it started, which is not where the first phase did.
    ended = load_student(second.parent / "run" / "student").model.state_dict()
    torch.testing.assert_close(ended, finished, rtol=0, atol=1e-9)
    earlier = training_of(first)
    assert training_of(second)["details"]["initialisation"] == {
        "start_from": {"name": "first"},
        "phases": [
            {
                "name": "first",
                "max_length": 32,
                "steps": 2,
                "tokens": earlier["rows"][0]["tokens"],
                "losses": {"kl": 5.0, "mlm": 2.0, "cosine": 1.0},
                "initialisation": {"layers": [0, 3], "teacher_layers": 4},
            }
        ],
    }
    # A third phase knows of both.
    third = write(
        tmp_path / "third", tiny_teacher_folder, sentences, student={"start_from": str(second.parent / "run/student")}
    )
    assert distil(third) == 0
    start_of_third = training_of(third)["details"]["initialisation"]
    assert start_of_third["start_from"] == {"name": "second"}
    assert [(phase["name"], phase["max_length"]) for phase in start_of_third["phases"]] == [
        ("first", 32),
        ("second", 64),
    ]
    capsys.readouterr()
    assert distil(third) == 0
    assert "student: up to date" in capsys.readouterr().err


def test_other_weights_make_another_student_of_the_same_corpus(start, tmp_path, tiny_teacher_folder, sentences, capsys):
    copied = shutil.copytree(start, tmp_path / "copied")
    recipe = write(tmp_path / "second", tiny_teacher_folder, sentences, student={"start_from": str(copied)})
    assert distil(recipe) == 0
    moved = copied.rename(tmp_path / "moved")
    recipe = write(tmp_path / "second", tiny_teacher_folder, sentences, student={"start_from": str(moved)})
    capsys.readouterr()
    assert distil(recipe) == 0
    assert "student: up to date" in capsys.readouterr().err
    weights = load_file(moved / "model.safetensors")
    save_file({name: 2 * tensor for name, tensor in weights.items()}, moved / "model.safetensors", {"format": "pt"})
    assert distil(recipe) == 0
    said = capsys.readouterr().err
    assert "corpus: up to date" in said
    assert "student: distilling the student (start.files" in said


def test_the_commit_of_a_student_on_the_hub_is_recorded(
    first,
    start,
    tmp_path,
    tiny_teacher_folder,
    sentences,
    monkeypatch,
    local_hub,  # noqa: F811
):
    monkeypatch.setattr(constants, "ENDPOINT", local_hub.endpoint)
    api = HfApi(endpoint=local_hub.endpoint, token=local_hub.tokens["me"])
    api.create_repo("me/first")
    published = shutil.copytree(start, tmp_path / "published")
    shutil.copytree(first.parent / "run" / "reports", published / "reports", copy_function=shutil.copyfile)
    commit = api.upload_folder(folder_path=published, repo_id="me/first").oid
    recipe = write(tmp_path / "second", tiny_teacher_folder, sentences, student={"start_from": "me/first"})
    run = recipe.parent / "run"
    # The client reads the address of the Hub when it is imported.
    environment = {"HF_ENDPOINT": local_hub.endpoint, "HF_HOME": str(tmp_path / "cache"), "HF_TOKEN": api.token}
    command = [sys.executable, "-m", "distilrubert.pipeline", "distill", str(recipe), "--run-dir", str(run)]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert json.loads((run / "commits.json").read_text()) == {"model me/first@main": commit}
    initialisation = training_of(recipe)["details"]["initialisation"]
    assert initialisation["start_from"] == {"name": "me/first", "id": "me/first", "commit": commit}
    assert [phase["steps"] for phase in initialisation["phases"]] == [2]


@pytest.mark.parametrize(
    ("shape", "weights"),
    [
        ({"layers": 2, "vocabulary": {"trim": {"minimum_count": 2}}}, {"kl": 1.0, "mlm": 1.0}),
        (OWN, {"mlm": 1.0, "match": 1.0}),
    ],
    ids=["trimmed", "trained"],
)
def test_a_vocabulary_of_its_own_is_kept(shape, weights, tmp_path, tiny_teacher_folder, sentences):
    losses = {"weights": weights}
    first = write(tmp_path / "first", tiny_teacher_folder, sentences, student=shape, distillation=losses)
    assert distil(first) == 0
    made = first.parent / "run" / "student"
    second = write(
        tmp_path / "second", tiny_teacher_folder, sentences, student={"start_from": str(made)}, distillation=losses
    )
    assert distil(second) == 0
    assert not (second.parent / "run" / "student-vocabulary").exists()
    vocabularies = [
        AutoTokenizer.from_pretrained(each.parent / "run" / "student").get_vocab() for each in (first, second)
    ]
    assert vocabularies[0] == vocabularies[1]
    # The corpus of the first phase is that of the second, in the tokens of both.
    held = [
        json.loads((each.parent / "run" / "corpus" / "manifest.json").read_text())["total"] for each in (first, second)
    ]
    assert held[0] == held[1]


def test_losses_that_do_not_fit_the_vocabulary_are_refused(tmp_path, tiny_teacher_folder, sentences, capsys):
    first = write(
        tmp_path / "first", tiny_teacher_folder, sentences, student=OWN, distillation={"weights": {"mlm": 1.0}}
    )
    assert distil(first) == 0
    start = {"start_from": str(first.parent / "run" / "student")}
    second = write(tmp_path / "second", tiny_teacher_folder, sentences, student=start)
    said = refusal(second, capsys)
    assert "distillation.weights: kl compares token by token, but the student has a vocabulary of its own" in said


def test_what_does_not_fit_is_refused_before_any_work(
    start, tmp_path, tiny_teacher: Teacher, tiny_teacher_folder, sentences, capsys
):
    def said(name: str, **sections: Any) -> str:
        sections = {"student": {"start_from": start}} | sections
        return refusal(write(tmp_path / name, tiny_teacher_folder, sentences, **sections), capsys)

    assert "student.start_from" in said("absent", student={"start_from": str(tmp_path / "absent")})
    teacher = {"start_from": str(tiny_teacher_folder)}
    assert "config.json says model_type 'bert'; a student is distilbert" in said("teacher", student=teacher)
    (tmp_path / "empty").mkdir()
    assert "config.json is missing" in said("nothing", student={"start_from": str(tmp_path / "empty")})
    assert "corpus.max_length: 128 is more than" in said("long", corpus={"max_length": 128})
    assert "distillation.weights: first_token compares two vocabularies, but" in said(
        "losses", distillation={"weights": {"first_token": 1.0}}
    )
    other = shutil.copytree(start, tmp_path / "lower")
    state = json.loads((other / "tokenizer.json").read_text())
    state["normalizer"]["lowercase"] = True
    (other / "tokenizer.json").write_text(json.dumps(state))
    settings = json.loads((other / "tokenizer_config.json").read_text())
    (other / "tokenizer_config.json").write_text(json.dumps(settings | {"do_lower_case": True}))
    assert "has the teacher's tokens, but splits text in another way" in said(
        "tokens", student={"start_from": str(other)}
    )
    headless = load_student(start)
    encoder = dataclasses.replace(tiny_teacher, model=headless.model.base_model, tokenizer=headless.tokenizer)
    save_teacher(encoder, tmp_path / "encoder")
    assert "kl, mlm compare predictions, but the student that this one starts from is an encoder" in said(
        "head", student={"start_from": str(tmp_path / "encoder")}
    )
    pretrain = {"model": None, "pretrain": {"layers": 2, "dim": 32, "heads": 4, "hidden_dim": 64}}
    assert "student.start_from: a teacher that is trained here has a new vocabulary" in said("new", teacher=pretrain)


def test_a_run_does_not_start_from_its_own_result(first, start, tiny_teacher_folder, sentences, tmp_path, capsys):
    copied = shutil.copytree(first.parent, tmp_path / "first", symlinks=True)
    (stage,) = copied.glob("run/stages/student-*")
    for own in (copied / "run" / "student", stage / "student"):
        recipe = write(copied, tiny_teacher_folder, sentences, student={"start_from": str(own)})
        capsys.readouterr()
        assert distil(recipe) == 2
        assert f"{own} is in the directory of this run; give the second phase one of its own" in capsys.readouterr().err


def test_a_student_of_a_task_starts_from_what_is_named_or_from_what_is_made_of_it(
    start, tmp_path, tiny_teacher_folder, sentences
):
    path = write(tmp_path / "task", tiny_teacher_folder, sentences, student={"start_from": start})
    general = Run(load_recipe(path, ["task.name=rusentiment"]), tmp_path / "general")
    alone = Run(load_recipe(path, ["task.name=rusentiment", "corpus.sources=[]"]), tmp_path / "alone")
    assert (start_folder(general), start_folder(alone)) == (general.student, Path(start))
    names = [[stage.name for stage in stages_of(run)] for run in (general, alone)]
    assert ["student" in each for each in names] == [True, False]
    assert not any("task-start" in each for each in names)
