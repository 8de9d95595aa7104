"""`distilrubert corpus`: one process, parts by hand, and the processes of a launcher make the same corpus."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from distilrubert.common.persistence import sha256_of
from distilrubert.pipeline.cli import main

from .example_recipes import MINIMAL, ROOT


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """A working folder of its own, no launcher, no way to a real Hub."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def recipe(tmp_path, tiny_teacher_folder, sentences) -> Path:
    (tmp_path / "texts").mkdir()
    for name, chosen in (("a", sentences[:90]), ("b", sentences[60:150]), ("c", sentences[140:])):
        (tmp_path / f"texts/{name}.txt").write_text("".join(f"{text}\n" for text in chosen), encoding="utf-8")
    path = tmp_path / "recipe.yaml"
    settings = "*.txt}], max_length: 64, validation: 0.1, processes: 1"
    path.write_text(
        MINIMAL.replace("some/teacher", str(tiny_teacher_folder)).replace("*.txt}]", settings), encoding="utf-8"
    )
    return path


def corpus_of(folder: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in (folder / "corpus").iterdir()}


def test_parts_by_hand_and_under_slurm_make_what_one_process_makes(recipe, capsys, monkeypatch):
    def call(run: str, *arguments: str) -> str:
        assert main(["corpus", str(recipe), "--run-dir", run, *arguments]) == 0
        return capsys.readouterr().out

    assert "The corpus is in" in call("one")
    whole = corpus_of(Path("one"))
    assert "train_lengths.npy" in whole
    for part in ("2/3", "1/3"):
        assert f"Part {part} is done; the same command without --part" in call("by-hand", "--part", part)
    assert not Path("by-hand/corpus").exists()
    call("by-hand")
    assert corpus_of(Path("by-hand")) == whole
    assert "The corpus is in" in call("by-hand", "--part", "3/3")
    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.setenv("SLURM_PROCID", "1")
    # The other task was lost: this one does its part, too.
    assert "The corpus is in" in call("slurm")
    assert corpus_of(Path("slurm")) == whole
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert "The corpus is in" in call("slurm")


SHAPE = "layers: 2, dim: 16, heads: 4, hidden_dim: 32"


def vocabulary_of(folder: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in (folder / "student-vocabulary").iterdir()}


def without_names(corpus: dict[str, str]) -> dict[str, str]:
    """The files but that which has the path of the vocabulary."""
    return {name: digest for name, digest in corpus.items() if name != "manifest.json"}


@pytest.mark.parametrize(
    ("vocabulary", "weights"), [("{train: {size: 200}}", "{mlm: 1.0, match: 1.0}"), ("{trim: {}}", "{mlm: 1.0}")]
)
def test_a_vocabulary_is_counted_in_parts(vocabulary, weights, recipe, capsys, monkeypatch):
    def call(run: str, *arguments: str) -> str:
        student = f"student={{{SHAPE}, vocabulary: {vocabulary}}}"
        arguments = ("--set", student, "--set", f"distillation.weights={weights}", *arguments)
        assert main(["corpus", str(recipe), "--run-dir", run, *arguments]) == 0
        return capsys.readouterr().out

    call("one")
    for part in ("2/3", "1/3"):
        assert f"Part {part} is counted" in call("by-hand", "--part", part)
        # Once more it still waits for the others.
        assert f"Part {part} is counted" in call("by-hand", "--part", part)
    assert not Path("by-hand/student-vocabulary").exists()
    # The last part has the vocabulary made, and is tokenised.
    assert "Part 3/3 is done" in call("by-hand", "--part", "3/3")
    assert vocabulary_of(Path("by-hand")) == vocabulary_of(Path("one"))
    assert "Part 1/3 is done" in call("by-hand", "--part", "1/3")
    call("by-hand")
    expected = without_names(corpus_of(Path("one")))
    assert without_names(corpus_of(Path("by-hand"))) == expected
    # Without the other parts it counts them itself.
    call("alone", "--part", "2/2")
    call("alone")
    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.setenv("SLURM_PROCID", "1")
    # The other task was lost: this one counts its part, too.
    assert "The corpus is in" in call("slurm")
    for run in ("alone", "slurm"):
        assert vocabulary_of(Path(run)) == vocabulary_of(Path("one"))
        assert without_names(corpus_of(Path(run))) == expected
        assert not list(Path(run).glob("stages/*/.*"))


@pytest.mark.slow
def test_processes_of_torchrun_share_the_corpus(recipe):
    assert main(["corpus", str(recipe), "--run-dir", "one"]) == 0
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = ["-m", "distilrubert.pipeline", "corpus", str(recipe), "--run-dir", "two"]
    done = subprocess.run(
        [sys.executable, *torchrun, *command], capture_output=True, text=True, env=os.environ, timeout=500
    )
    assert done.returncode == 0, done.stderr
    assert "The corpus is in" in done.stdout
    assert corpus_of(Path("two")) == corpus_of(Path("one"))


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("17/16", "argument --part: '17/16' is not a part: 3/16 is one, and 1/16 to 16/16 are all of sixteen"),
        ("0/4", "'0/4' is not a part"),
        ("3", "'3' is not a part"),
        ("a/b", "'a/b' is not a part"),
    ],
)
def test_what_is_no_part_is_one_line(recipe, capsys, part, said):
    with pytest.raises(SystemExit, match="2"):
        main(["corpus", str(recipe), "--part", part])
    assert said in capsys.readouterr().err
    assert not Path("runs").exists()


def test_mistakes_are_one_line_before_any_work(recipe, capsys, monkeypatch):
    def mistake(*arguments: str) -> str:
        assert main(["corpus", str(recipe), "--run-dir", "run", *arguments]) == 2
        return capsys.readouterr().err.strip().splitlines()[-1]

    assert "no file matches path" in mistake("--set", "corpus.sources=[{path: missing.txt}]")
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "1")
    assert "--part: each of the 4 processes that were started together" in mistake("--part", "1/4")
    monkeypatch.setenv("RANK", "x")
    assert "RANK=x" in mistake()


def test_a_recipe_of_a_task_without_a_corpus_is_one_line_and_leaves_nothing(capsys, monkeypatch):
    monkeypatch.setenv("DISTILRUBERT_E5", "some/teacher")
    assert main(["corpus", str(ROOT / "recipes/tasks/rusentiment.yaml"), "--run-dir", "run", "--part", "1/2"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("distilrubert: corpus.sources: ")
    assert not Path("run").exists()


def test_another_number_of_parts_is_refused(recipe, capsys):
    assert main(["corpus", str(recipe), "--run-dir", "run", "--part", "1/3"]) == 0
    capsys.readouterr()
    assert main(["corpus", str(recipe), "--run-dir", "run", "--part", "1/4"]) == 2
    assert "in parts already, 3, not 4" in capsys.readouterr().err.strip().splitlines()[-1]
    # Another recipe is another stage, with parts of its own.
    assert main(["corpus", str(recipe), "--run-dir", "run", "--part", "1/4", "--set", "corpus.max_length=32"]) == 0
