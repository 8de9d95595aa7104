"""A run that was stopped, however and whenever, ends as one that never was."""

from collections.abc import Callable
from typing import Any

import pytest

FILES = ["model.safetensors", "optimizer.safetensors", "state.json"]
STOPS = {
    "in an update": ["checkpoint-00000002"],
    "before the moments are written": ["checkpoint-00000002"],
    "before the state is written": ["checkpoint-00000002"],
    "before old checkpoints are removed": ["checkpoint-00000002", "checkpoint-00000004", "checkpoint-00000006"],
    "while an old checkpoint is removed": ["checkpoint-00000004", "checkpoint-00000006"],
}


@pytest.fixture(scope="module")
def results(scenario: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    return scenario("stops")


def assert_as_if_never_stopped(resumed: dict[str, Any], straight: dict[str, Any]) -> None:
    for key in ("digest", "curves", "validation", "tokens", "steps"):
        assert resumed[key] == straight[key], key


@pytest.mark.parametrize("moment", STOPS)
def test_after_a_kill_the_result_is_the_same_to_the_bit(results: dict[str, Any], moment: str) -> None:
    stopped = results[moment]
    assert stopped["status"] == -9
    assert stopped["resumed"] == 0
    assert stopped["resumes"] == 1
    assert_as_if_never_stopped(stopped, results["straight"])


@pytest.mark.parametrize(("moment", "names"), STOPS.items())
def test_a_kill_leaves_complete_checkpoints_only(results: dict[str, Any], moment: str, names: list[str]) -> None:
    assert results[moment]["left"] == dict.fromkeys(names, FILES)
    assert results[moment]["hidden"] == []


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1", "with the group"])
def test_asked_to_stop_it_saves_and_goes_on_later(results: dict[str, Any], name: str) -> None:
    stopped = results[name]
    assert stopped["status"] == 130
    # It came in the fifth update, which was given up.
    assert stopped["left"] == {"checkpoint-00000004": FILES}
    assert stopped["resumed"] == 0
    assert_as_if_never_stopped(stopped, results["straight"])


def test_asked_to_stop_where_it_is_saved_already_it_writes_nothing(results: dict[str, Any]) -> None:
    assert results["twice"] == {"status": 130, "same": True, "left": {"checkpoint-00000004": FILES}}


def test_a_resumed_run_masks_no_example_that_it_had_trained_on(results: dict[str, Any]) -> None:
    def of_second_half(visits: list[list[int]]) -> list[list[int]]:
        training = [visit for visit in visits if visit[0] < 2]
        return training[-len(of_resumed) :]

    of_resumed = [visit for visit in results["SIGTERM"]["visits"] if visit[0] < 2]
    assert 0 < len(of_resumed) < 2 * 90
    assert of_resumed == of_second_half(results["straight"]["visits"])


@pytest.mark.slow
def test_fourteen_kills_at_random_moments(scenario: Callable[..., dict[str, Any]]) -> None:
    results = scenario("random_kills", KILLS="7")
    for processes in (results["one"], results["two"]):
        assert set(processes["resumed"]) == {0}
        for finished in processes["finished"]:
            assert_as_if_never_stopped(finished, processes["straight"])
        assert all(files == FILES for left in processes["left"] for files in left.values())
