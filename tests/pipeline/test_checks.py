"""What is refused before any work: nothing that a run directory holds is touched."""

import shutil
from pathlib import Path

import pytest

from distilrubert.pipeline.cli import main

RECIPE = """
name: small-one
teacher: {{model: {teacher}}}
corpus: {{sources: [{{path: texts.txt}}], validation: 0.3, max_length: 64, processes: 1}}
student: {{layers: 2}}
distillation: {{batch_tokens: 256, batches_per_update: 1, max_steps: 2, precision: fp32, num_workers: 0}}
conversion: {{onnx: [], openvino: []}}
card: {{language: ru, license: apache-2.0}}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_teacher_folder: Path, sentences: list[str]) -> Path:
    """A folder with a recipe and a run directory that holds a finished student."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "texts.txt").write_text("\n".join(sentences), encoding="utf-8")
    (folder / "recipe.yaml").write_text(RECIPE.format(teacher=tiny_teacher_folder), encoding="utf-8")
    assert main(["distill", str(folder / "recipe.yaml"), "--run-dir", str(folder / "run")]) == 0
    return folder


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refusal(folder: Path, capsys: pytest.CaptureFixture[str], *overrides: str) -> str:
    """The one line that a command says about a mistake; everything in the folder stays as it was."""
    before = contents(folder)
    capsys.readouterr()
    given = [part for override in overrides for part in ("--set", override)]
    assert main(["distill", str(folder / "recipe.yaml"), "--run-dir", str(folder / "run"), *given]) == 2
    captured = capsys.readouterr()
    assert contents(folder) == before
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


def test_a_student_that_cannot_be_made_does_not_cost_the_finished_one(finished, capsys):
    assert "student.layers: 99; the teacher has 4, at most as many" in refusal(finished, capsys, "student.layers=99")
    assert main(["distill", str(finished / "recipe.yaml"), "--run-dir", str(finished / "run")]) == 0
    assert "student: up to date" in capsys.readouterr().err


def test_a_project_that_is_copied_or_touched_keeps_what_it_has_made(finished, tmp_path, capsys, tiny_teacher_folder):
    there = shutil.copytree(finished, tmp_path / "there", copy_function=shutil.copyfile)
    teacher = shutil.copytree(tiny_teacher_folder, there / "teacher", copy_function=shutil.copyfile)
    (there / "recipe.yaml").write_text(RECIPE.format(teacher=teacher), encoding="utf-8")
    capsys.readouterr()
    assert main(["distill", str(there / "recipe.yaml"), "--run-dir", str(there / "run")]) == 0
    said = capsys.readouterr().err
    assert "corpus: up to date" in said
    assert "student: up to date" in said
    # Another text of the same length is another text.
    text = (there / "texts.txt").read_bytes()
    (there / "texts.txt").write_bytes(text.replace("Привет".encode(), "Примат".encode()))
    assert len((there / "texts.txt").read_bytes()) == len(text)
    assert main(["distill", str(there / "recipe.yaml"), "--run-dir", str(there / "run")]) == 0
    assert "corpus: corpus.files.0.sha256 was" in capsys.readouterr().err
