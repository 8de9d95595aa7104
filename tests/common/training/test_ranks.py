"""Several processes: the same training as in one, and none of them left behind."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

WORKER = Path(__file__).with_name("training_worker.py")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def results(scenario: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    return scenario("ranks")


@pytest.mark.parametrize("batches", ["2 batches", "4 batches"])
def test_the_replicas_are_identical(results: dict[str, Any], batches: str) -> None:
    first, second = results[batches]["two"]
    for key in ("digest", "curves", "validation", "tokens", "steps"):
        assert first[key] == second[key], key


@pytest.mark.parametrize("batches", ["2 batches", "4 batches"])
def test_every_sequence_is_trained_on_once_an_epoch(results: dict[str, Any], batches: str) -> None:
    visits = [tuple(visit) for rank in results[batches]["two"] for visit in rank["visits"] if visit[0] < 2]
    assert sorted(visits) == [(epoch, index) for epoch in (0, 1) for index in range(90)]
    assert results[batches]["two"][0]["tokens"] == results[batches]["one"]["tokens"]


def test_two_processes_with_a_batch_each_equal_one_that_accumulates_two_to_the_bit(results: dict[str, Any]) -> None:
    assert results["2 batches"]["two"][0]["digest"] == results["2 batches"]["one"]["digest"]


def test_all_skip_the_updates_that_are_not_finite_on_one(results: dict[str, Any]) -> None:
    one, two = results["poisoned"]["one"], results["poisoned"]["two"]
    assert 0 < one["skipped_updates"] < one["steps"]
    for key in ("digest", "skipped_updates"):
        assert [rank[key] for rank in two] == [one[key], one[key]]


def test_two_choose_the_same_epoch_as_one(results: dict[str, Any]) -> None:
    one, two = results["evaluated"]["one"], results["evaluated"]["two"]
    assert len(one["evaluations"]) >= 2
    for key in ("digest", "evaluations", "steps"):
        assert [rank[key] for rank in two] == [one[key], one[key]]


def test_three_that_were_stopped_add_their_gradients_as_before(results: dict[str, Any]) -> None:
    three = results["three"]
    assert three["statuses"] == [130, 130, 130]
    assert three["resumed"]["resumes"] == 1
    assert three["resumed"]["digest"] == three["straight"]["digest"]


def test_with_accumulation_on_each_they_equal_one_to_rounding(results: dict[str, Any]) -> None:
    one, two = results["4 batches"]["one"], results["4 batches"]["two"][0]
    # Of weights that have moved by up to 0.08; AdamW enlarges the rounding of small gradients.
    assert results["4 batches"]["difference"] < 2e-4
    for mine, theirs in zip(two["curves"] + two["validation"], one["curves"] + one["validation"], strict=True):
        assert mine == pytest.approx(theirs, rel=1e-4)


@pytest.mark.parametrize("case", ["headless", "frozen", "sentences", "kept"])
def test_weights_that_are_not_trained_hold_nobody_up_and_end_as_in_one_process(
    results: dict[str, Any], case: str
) -> None:
    assert results[case]["statuses"] == [0, 0]
    assert len(set(results[case]["digests"])) == 1


@pytest.mark.parametrize(("fault", "statuses"), [("die", [1, -9]), ("be_asked_to_stop", [130, 130]), ("crash", [1, 1])])
def test_when_one_stops_the_other_does_too_and_both_go_on_exactly(
    results: dict[str, Any], fault: str, statuses: list[int]
) -> None:
    stopped, straight = results[fault], results["straight"]
    assert stopped["statuses"] == statuses
    assert stopped["resumed"] == [0, 0]
    assert stopped["resumes"] == 1
    for key in ("digest", "curves", "validation", "tokens", "steps"):
        assert stopped[key] == straight[key], key


def test_a_mistake_that_one_process_meets_ends_all_with_its_line(results: dict[str, Any]) -> None:
    assert results["blocked"] == [2, 2]
    assert results["stderr"].count("blocked/checkpoints: cannot be written: File exists") == 2


def test_batches_that_cannot_be_shared_out_are_refused(results: dict[str, Any]) -> None:
    assert results["odd"] == [2, 2]
    line = "distillation.batches_per_update: 3 is no multiple of the number of processes, 2"
    assert results["stderr"].count(line) == 2


def test_what_one_process_began_two_finish(results: dict[str, Any]) -> None:
    assert results["passed on"]["status"] == 130
    assert results["passed on"]["resumed"] == [0, 0]
    assert results["passed on"]["digest"] == results["straight"]["digest"]


@pytest.mark.slow
def test_under_torchrun_it_ends_cleanly(tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d"]
    command = [*torchrun, "--rdzv-endpoint", "localhost:0", str(WORKER), "record", str(tmp_path)]
    done = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "destroy_process_group" not in done.stderr
    outcomes = [json.loads((tmp_path / f"outcome-{rank}.json").read_text()) for rank in (0, 1)]
    assert outcomes[0]["digest"] == outcomes[1]["digest"]
    assert {tuple(visit) for visit in outcomes[0]["visits"]}.isdisjoint(map(tuple, outcomes[1]["visits"]))
