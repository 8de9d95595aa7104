"""What decides the result of a stage."""

from pathlib import Path
from typing import Any

import pytest

from distilrubert.pipeline import stage_inputs
from distilrubert.pipeline.recipe import load_recipe
from distilrubert.pipeline.run import Run
from distilrubert.pipeline.stages import stages_of

RECIPE = """
name: whole-run
teacher: {pretrain: {layers: 2, dim: 32, heads: 4, hidden_dim: 64, vocabulary_size: 300, max_positions: 64}}
corpus: {sources: [{path: "[ab].txt", weight: 3}, {path: c.txt}], max_length: 64}
student: {layers: 1, dim: 16, heads: 4, hidden_dim: 32, vocabulary: {train: {size: 150}}}
distillation: {weights: {mlm: 1.0}}
card: {language: ru, license: apache-2.0}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text(f"Строка {name}\n", encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    return tmp_path


def inputs(folder: Path, *overrides: str) -> dict[str, dict[str, Any]]:
    run = Run(load_recipe(folder / "recipe.yaml", list(overrides)), folder / "run")
    return {stage.name: dict(stage.inputs(run)) for stage in stages_of(run)}


@pytest.mark.parametrize(
    ("override", "first"),
    [
        # The same files in the same order; b.txt is taken once now, and not three times.
        ('corpus.sources=[{path: a.txt, weight: 3}, {path: "[bc].txt"}]', "vocabulary"),
        ("teacher.pretrain.max_positions=128", "vocabulary"),
        ("teacher.pretrain.vocabulary_size=310", "vocabulary"),
        ("teacher.pretrain.dim=64", "student-vocabulary"),
        ("student.vocabulary.train.size=160", "student-vocabulary"),
        ("corpus.max_length=32", "corpus"),
        ("teacher.pretrain.layers=3", "teacher"),
        ("student.layers=2", "student"),
        ("conversion.onnx=[fp32]", "conversion"),
        ("evaluation.seeds=[5]", "quality"),
        ("name=renamed", "card"),
        ("publish.repo_id=me/renamed", "card"),
        ("corpus.processes=1", None),
        ("evaluation.processes=2", None),
    ],
)
def test_a_change_concerns_stages_from_the_one_that_it_decides_on(
    folder: Path, override: str, first: str | None
) -> None:
    before, after = inputs(folder), inputs(folder, override)
    assert next((name for name in before if before[name] != after[name]), None) == first


def test_a_new_version_of_the_program_writes_the_card_anew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = inputs(folder)
    monkeypatch.setattr(stage_inputs, "renderer_version", lambda: "99.0")
    after = inputs(folder)
    assert [name for name in before if before[name] != after[name]] == ["card"]


@pytest.mark.parametrize(("version", "stage"), [("CONVERSION_VERSION", "conversion"), ("SPEED_VERSION", "speed")])
def test_what_is_written_or_measured_otherwise_is_done_again(
    folder: Path, version: str, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = inputs(folder)
    monkeypatch.setattr(stage_inputs, version, 99)
    after = inputs(folder)
    assert [name for name in before if before[name] != after[name]] == [stage]


def test_a_setting_of_the_bookkeeping_redoes_nothing(folder: Path) -> None:
    changes = ["distillation.log_every=1", "teacher.pretrain.keep_checkpoints=5", "distillation.trackers=[tensorboard]"]
    assert inputs(folder, *changes) == inputs(folder)


def test_other_weights_of_a_teacher_keep_the_corpus_and_the_vocabulary(folder: Path) -> None:
    teacher = folder / "teacher"
    teacher.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (teacher / name).write_text("{}", encoding="utf-8")
    changes = [f"teacher={{model: {teacher}}}"]
    first = inputs(folder, *changes)
    (teacher / "model.safetensors").write_text("other", encoding="utf-8")
    second = inputs(folder, *changes)
    assert next(name for name in first if first[name] != second[name]) == "student"
    (teacher / "tokenizer.json").write_text("[]", encoding="utf-8")
    third = inputs(folder, *changes)
    assert next(name for name in first if first[name] != third[name]) == "student-vocabulary"
