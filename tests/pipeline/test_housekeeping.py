"""`distilrubert status` on a run directory that a run is still at work in."""

import json
import os
import time
from pathlib import Path

import pytest

from distilrubert.common.persistence import write_json
from distilrubert.pipeline.cli import main
from distilrubert.pipeline.stage_folders import StageFolders


@pytest.fixture
def running(tmp_path: Path) -> Path:
    """A run directory with a finished corpus and a student that is being distilled."""
    folders = StageFolders(tmp_path)
    corpus = folders.begin("corpus", {"seed": 1})
    (corpus.path / "corpus").mkdir()
    (corpus.path / "corpus" / "shard").write_bytes(b"1234")
    folders.finish(corpus, ("corpus",), 2.0)
    student = folders.begin("student", {"seed": 1})
    for step in (90, 200):
        (student.path / "checkpoints" / f"checkpoint-{step}").mkdir(parents=True)
    progress = {"step": 240, "total_steps": 480, "tokens_per_s": 2071.4, "left_s": 600.0, "losses": {"kl": 0.25}}
    write_json(student.path / "progress.json", {**progress, "written_at": time.time() - 8})
    return tmp_path


def test_a_stage_that_runs_says_how_far_it_is(running: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(running)]) == 0
    shown = capsys.readouterr().out
    assert "student: step 240 of 480, 2071 tokens/s, 10.0 minutes left; kl 0.25; newest checkpoint: " in shown
    assert "checkpoint-200; as of " in shown
    assert "corpus:" not in shown


@pytest.mark.parametrize("command", ["status", "clean"])
def test_a_run_in_which_no_stage_has_begun(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "stages").mkdir()
    assert main([command, str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path}: no stage has begun yet\n"
    assert [path.name for path in tmp_path.iterdir()] == ["stages"]


def test_a_folder_may_vanish_meanwhile(
    running: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scandir = os.scandir

    def vanishing(path: str) -> object:
        if Path(path).name == "checkpoint-90":
            raise FileNotFoundError(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", vanishing)
    assert main(["status", str(running)]) == 0
    assert "student: step 240" in capsys.readouterr().out


def test_the_same_for_machines(running: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(running), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    stages = {stage["stage"]: stage for stage in found["stages"]}
    assert stages["corpus"]["is_complete"]
    assert stages["corpus"]["progress"] is None
    assert stages["corpus"]["seconds"] == 2.0
    assert not stages["student"]["is_complete"]
    assert stages["student"]["progress"]["step"] == 240
    assert stages["student"]["checkpoint"].endswith("checkpoints/checkpoint-200")
    assert found["bytes"] >= sum(stage["bytes"] for stage in stages.values()) > 0


def test_a_training_for_a_task_says_how_far_its_latest_rate_is(
    running: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = StageFolders(running).begin("task-student", {"seed": 1})
    for rate, step, age_s in (("0.0001", 480, 90), ("0.0003", 20, 5)):
        training = stage.path / "training" / f"rate-{rate}"
        (training / "checkpoints" / f"checkpoint-{step}").mkdir(parents=True)
        progress = {"step": step, "total_steps": 480, "tokens_per_s": 2000.0, "left_s": 60.0, "losses": {"logits": 1.0}}
        write_json(training / "progress.json", {**progress, "written_at": time.time() - age_s})
    assert main(["status", str(running)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "task-student: step 20 of 480" in shown
    assert "newest checkpoint: checkpoint-20;" in shown


def test_a_stage_before_its_first_point_has_no_progress(running: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (student,) = running.glob("stages/student-*")
    (student / "progress.json").unlink()
    assert main(["status", str(running)]) == 0
    assert "step" not in capsys.readouterr().out
