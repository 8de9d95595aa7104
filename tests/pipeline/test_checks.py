"""What is refused before any work: nothing that a run directory holds is touched."""

import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from distilrubert.common.errors import UserError
from distilrubert.evaluation.tasks.kinds import KINDS
from distilrubert.modeling.teacher import save_teacher
from distilrubert.pipeline import checks
from distilrubert.pipeline.cli import main
from distilrubert.pipeline.exporting import check_exported

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
    assert "student.layers: 99; the teacher has 4, and no more are allowed" in refusal(
        finished, capsys, "student.layers=99"
    )
    assert main(["distill", str(finished / "recipe.yaml"), "--run-dir", str(finished / "run")]) == 0
    assert "student: up to date" in capsys.readouterr().err


def test_an_encoder_is_no_teacher_of_predictions(finished, tmp_path, capsys, tiny_teacher):
    save_teacher(dataclasses.replace(tiny_teacher, model=tiny_teacher.model.base_model), tmp_path / "encoder")
    said = refusal(finished, capsys, f"teacher.model={tmp_path / 'encoder'}")
    assert "distillation.weights: kl, mlm compare predictions, but the teacher is an encoder without" in said
    assert "for that there are cosine, attention, hidden" in said


@pytest.mark.parametrize(
    ("field", "value"),
    [("task", "fill-mask"), pytest.param("onnx", "[masked-lm-int8]", marks=pytest.mark.export)],
)
def test_an_encoder_has_no_file_that_fills_masks(finished, tmp_path, capsys, tiny_teacher, field, value):
    save_teacher(dataclasses.replace(tiny_teacher, model=tiny_teacher.model.base_model), tmp_path / "encoder")
    changes = (f"teacher.model={tmp_path / 'encoder'}", "distillation.weights={cosine: 1.0}")
    said = refusal(finished, capsys, *changes, f"conversion.{field}={value}")
    assert (
        f"conversion.{field}: {value.strip('[]')} needs a masked-language head, and {tmp_path / 'encoder'} has" in said
    )


def test_files_that_no_exporter_makes_are_refused():
    tasks = [SimpleNamespace(name=kind, kind=kind, task_kind=KINDS[kind]) for kind in KINDS]
    with pytest.raises(UserError, match=r"task question-answering: is question-answering, of which no"):
        check_exported(["onnx-fp32"], tasks, "modernbert")
    check_exported(["onnx-fp32"], tasks, "distilbert")
    check_exported([], tasks, "modernbert")


def test_a_project_that_is_copied_or_touched_keeps_what_it_has_made(finished, tmp_path, capsys, tiny_teacher_folder):
    there = shutil.copytree(finished, tmp_path / "there", symlinks=True, copy_function=shutil.copyfile)
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
    assert "corpus: tokenising the corpus (corpus.files.0.0.sha256 was" in capsys.readouterr().err


def test_sources_are_opened_until_the_corpus_is_there(finished, tmp_path, capsys, monkeypatch):
    """A run continues where there is no Internet, and looking a data set up does not fetch it."""
    opened = []

    def open_nothing(source):
        opened.append(source)
        raise UserError("corpus: cannot be had here")

    monkeypatch.setattr(checks, "open_source", open_nothing)
    assert main(["distill", str(finished / "recipe.yaml"), "--run-dir", str(finished / "run")]) == 0
    assert opened == []
    assert "cannot be had here" in refusal(finished, capsys, "corpus.sources=[{dataset: some/talk}]")
    assert [(source.dataset, source.streaming) for source in opened] == [("some/talk", True)]


RANDOM = "student.initialise_from=random"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["distillation.layer_map=[[1], [2], [3]]"], "distillation.layer_map: 3 lists for 2 student layers"),
        (["distillation.layer_map=[[1], [5]]"], "distillation.layer_map: teacher layer 5 for student layer 2"),
        (
            ["distillation.weights={kl: 1, attention: 1}", "student.heads=2", RANDOM],
            "the student has 2 heads and the teacher 4",
        ),
        (["student.dim=16"], "distillation.weights.cosine: compares states of one width"),
        (["distillation.weights={kl: 0}"], "distillation.weights: all are 0"),
        (["student.dim=64"], "student: width (dim) 64 (teacher: 32), width of a head 16 (teacher: 8)"),
        (["student.hidden_dim=65"], "student: hidden_dim 65 (teacher: 64)"),
        (["student.preset=slim"], "student: width (dim) 384 (teacher: 32), heads 6 (teacher: 4), hidden_dim 1536"),
        (
            ["student.dim=20", "student.heads=3", "student.prune={}"],
            "student.heads: 3 heads do not divide the width 20",
        ),
        (["student.prune={}"], "student.prune: each layer of the student is as large as one of the teacher"),
        (["student.prune={}", RANDOM], "student: prune: with initialise_from: random nothing comes from the teacher"),
        (
            ["student.prune={}", "student.hidden_dim=32", "distillation.freeze_embeddings=true"],
            "distillation.freeze_embeddings: only for embeddings that are the teacher's own, not with student.prune",
        ),
        (["distillation.batch_tokens=56"], "distillation.batch_tokens: 56 is less than corpus.max_length, 64"),
        (["corpus.max_length=72"], "corpus.max_length: 72 is more than the tokenizer's 64 tokens"),
        (
            [
                "student.vocabulary={train: {size: 150}}",
                "distillation.weights={reduce: 1}",
                "distillation.layer_map=[]",
            ],
            "distillation.layer_map: 0 lists for 2 student layers",
        ),
    ],
)
def test_what_the_teacher_decides_is_known_before_any_work(finished, capsys, overrides, said):
    assert said in refusal(finished, capsys, *overrides)


PRETRAIN = "{layers: 4, dim: 32, heads: 4, hidden_dim: 64, vocabulary_size: 300, max_positions: 64, batch_tokens: 256}"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["teacher.pretrain.heads=5"], "teacher.pretrain.heads: 5 heads do not divide the width 32"),
        (["teacher.pretrain.batch_tokens=8"], "teacher.pretrain.batch_tokens: 8 is less than corpus.max_length, 64"),
        (["teacher.pretrain.max_positions=32"], "corpus.max_length: 64 is more than the tokenizer's 32 tokens"),
        (["teacher.pretrain.trackers=[mlflow]"], "teacher.pretrain.trackers: mlflow is not installed"),
        (["student.layers=5"], "student.layers: 5; the teacher has 4"),
        (["student.dim=48", "student.heads=6"], "student: width (dim) 48 (teacher: 32), heads 6 (teacher: 4)"),
        (["distillation.layer_map=[[1], [5]]"], "distillation.layer_map: teacher layer 5 for student layer 2"),
    ],
)
def test_a_teacher_that_is_to_be_trained_is_known_by_its_sizes(finished, capsys, overrides, said):
    pretrained = ["teacher.model=null", f"teacher.pretrain={PRETRAIN}"]
    assert said in refusal(finished, capsys, *pretrained, *overrides)


def test_a_pruned_student_is_distilled_and_says_so(finished, tmp_path, capsys):
    folder = shutil.copytree(finished, tmp_path / "pruned", ignore=shutil.ignore_patterns("run"))
    changes = ["student.dim=16", "student.heads=2", "student.hidden_dim=24", "student.prune={sequences: 7}"]
    changes += ["distillation.weights={kl: 1.0, mlm: 1.0}"]
    given = [part for change in changes for part in ("--set", change)]
    assert main(["distill", str(folder / "recipe.yaml"), "--run-dir", str(folder / "run"), *given]) == 0
    config = json.loads((folder / "run" / "student" / "config.json").read_text())
    assert (config["model_type"], config["dim"], config["n_heads"], config["hidden_dim"]) == ("distilbert", 16, 2, 24)
    report = json.loads((folder / "run" / "reports" / "training.json").read_text())
    assert report["details"]["initialisation"] == {"layers": [0, 3], "teacher_layers": 4, "pruned_on_texts": 7}
    capsys.readouterr()
    assert main(["distill", str(folder / "recipe.yaml"), "--run-dir", str(folder / "run"), *given]) == 0
    assert "student: up to date" in capsys.readouterr().err


def test_rows_of_a_task_that_are_no_good_are_told_before_the_student_is_made(finished, tmp_path, capsys):
    (tmp_path / "moods.csv").write_text("text,label\nда,good\nнет,dreadful\n", encoding="utf-8")
    (tmp_path / "moods.yaml").write_text(
        "{name: moods, title: M, kind: sentence-classification, files: {train: moods.csv}, labels: [bad, good], "
        "test_share: 0.5, metrics: [accuracy], licence: CC0, source: here}",
        encoding="utf-8",
    )
    told = refusal(finished, capsys, f"evaluation.tasks=[{tmp_path / 'moods.yaml'}]", "seed=7")
    assert "moods.csv: row 2: unknown label 'dreadful'; known: bad, good" in told
