"""Fine-tuning runs in several processes at once, with real processes and real signals."""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from distilrubert.common.errors import UserError
from distilrubert.evaluation.evaluation_settings import FinetuningSettings, QualitySettings
from distilrubert.evaluation.tasks.parallel import run_all
from distilrubert.evaluation.tasks.quality import measure_quality
from distilrubert.evaluation.tasks.task import TaskDefinition

from . import jobs
from .jobs import PATIENCE_S, describe, kill_itself, refuse, refuse_when_there_is


def test_jobs_share_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    results = dict(run_all({name: partial(describe, name) for name in "abc"}, 2, "letters"))
    assert {key: name for key, (name, *_) in results.items()} == {"a": "a", "b": "b", "c": "c"}
    processes = {process for _, process, _ in results.values()}
    assert os.getpid() not in processes
    assert len(processes) <= 2
    assert {share for *_, share in results.values()} == {2}
    (alone, other) = dict(run_all({name: partial(describe, name) for name in "ab"}, 4, "letters")).values()
    assert (alone[2], other[2]) == (2, 2), "of four processes two are started"


def test_one_process_is_this_one() -> None:
    assert dict(run_all({1: os.getpid, 2: os.getpid}, 1, "")) == {1: os.getpid(), 2: os.getpid()}


def test_what_is_finished_is_there_before_a_mistake(tmp_path: Path) -> None:
    results = run_all({"good": os.getpid, "bad": partial(refuse_when_there_is, tmp_path / "now")}, 2, "jobs")
    assert next(results)[0] == "good"
    (tmp_path / "now").touch()
    with pytest.raises(UserError, match="no good"):
        next(results)


def test_a_mistake_ends_the_others() -> None:
    started = time.monotonic()
    with pytest.raises(UserError, match="no good"):
        dict(run_all({"short": partial(refuse, 0), "long": partial(time.sleep, PATIENCE_S)}, 2, "jobs"))
    assert time.monotonic() - started < PATIENCE_S / 2


@pytest.mark.parametrize("order", [["killed", "other"], ["other", "killed"]])
def test_a_process_ended_from_outside_is_told_of(order: list[str]) -> None:
    work = {"killed": kill_itself, "other": partial(time.sleep, PATIENCE_S)}
    started = time.monotonic()
    with pytest.raises(UserError, match="one of 2 processes was killed"):
        dict(run_all({name: work[name] for name in order}, 2, "jobs"))
    assert time.monotonic() - started < PATIENCE_S / 2


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_no_process_outlives_its_parent(how: signal.Signals, tmp_path: Path) -> None:
    paths = [tmp_path / "first", tmp_path / "second"]
    (temporary := tmp_path / "temporary").mkdir()
    with (tmp_path / "said").open("w") as said:
        parent = subprocess.Popen(
            [sys.executable, jobs.__file__, *map(str, paths)],
            stderr=said,
            env={**os.environ, "TMPDIR": str(temporary)},
        )
    _wait_until(lambda: all(path.exists() and path.read_text() for path in paths))
    parent.send_signal(how)
    parent.wait(PATIENCE_S)
    _wait_until(lambda: not any(_lives(int(path.read_text())) for path in paths))
    if how == signal.SIGINT:
        assert not list(temporary.iterdir())
        assert "leaked" not in (tmp_path / "said").read_text()


def test_scores_do_not_depend_on_the_processes(
    student_folder: Path, noun_task: TaskDefinition, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    finetuning = FinetuningSettings(learning_rates=[1e-4, 3e-3], epochs=1, batch_size=8, precision="fp32")
    settings = QualitySettings(finetuning=finetuning, seeds=[1, 2])
    models = {"student": student_folder}
    alone = measure_quality(models, [noun_task], settings, [], tmp_path / "alone")
    caplog.clear()
    with caplog.at_level(logging.INFO, "distilrubert"):
        together = measure_quality(models, [noun_task], settings, [], tmp_path / "together", processes=2)
    scores = [report["student"].values["tasks"]["nouns"] for report in (alone, together)]
    assert scores[0]["accuracy"] == scores[1]["accuracy"]
    assert scores[0]["run"]["learning_rate"] == scores[1]["run"]["learning_rate"]
    assert sum("on validation" in record.message for record in caplog.records) == 3
    assert {path.name for path in (tmp_path / "alone").iterdir()} == {
        path.name for path in (tmp_path / "together").iterdir()
    }


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _lives(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False
