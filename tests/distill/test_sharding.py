"""Processes that hold a part of the weights each: the same training as with all of them, and as exact to resume."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from distilrubert.distill.losses import LossWeights
from distilrubert.distill.objective import ObjectiveSettings
from distilrubert.distill.paired_objective import PairedObjective
from distilrubert.modeling.presets import StudentArchitecture
from distilrubert.modeling.student import build_student
from distilrubert.modeling.teacher import Teacher
from distilrubert.modeling.vocabulary import train_wordpiece


@pytest.fixture(scope="module")
def results(scenario: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    return scenario("sharded")


def test_every_process_ends_with_the_whole_student(results: dict[str, Any]) -> None:
    first, second = results["two"]
    for key in ("digest", "curves", "validation", "tokens", "steps"):
        assert first[key] == second[key], key


def test_they_train_as_one_process_does_to_rounding(results: dict[str, Any]) -> None:
    one, two = results["one"], results["two"][0]
    assert results["difference"] < 2e-4
    for mine, theirs in zip(two["curves"] + two["validation"], one["curves"] + one["validation"], strict=True):
        assert mine == pytest.approx(theirs, rel=1e-4)
    assert min(point["gradient_norm"] for point in one["curves"]) > 0.2, "the gradient should be clipped"


def test_each_holds_its_part_of_weights_and_moments(results: dict[str, Any]) -> None:
    student = results["holdings"][0]["student"]
    assert sum(held["weights"] for held in results["holdings"]) == student
    assert sum(held["moments"] for held in results["holdings"]) == 2 * student
    for held in results["holdings"]:
        assert held["weights"] < 0.4 * student


def test_a_checkpoint_is_that_of_a_process_alone(results: dict[str, Any]) -> None:
    one, two = results["files"]
    assert one == two


@pytest.mark.parametrize(("fault", "statuses"), [("die", [1, -9]), ("be_asked_to_stop", [130, 130]), ("crash", [1, 1])])
def test_when_one_stops_the_other_does_too_and_both_go_on_exactly(
    results: dict[str, Any], fault: str, statuses: list[int]
) -> None:
    stopped, straight = results[fault], results["two"][0]
    assert stopped["statuses"] == statuses
    assert stopped["resumed"] == [0, 0]
    assert stopped["resumes"] == 1
    for key in ("digest", "curves", "validation", "tokens", "steps"):
        assert stopped[key] == straight[key], key


def test_a_run_goes_from_one_process_to_three_with_parts_and_to_two_without(results: dict[str, Any]) -> None:
    passed_on = results["passed on"]
    assert passed_on["statuses"] == [130, 130, 130, 130, 0, 0]
    assert passed_on["resumes"] == 2
    assert passed_on["difference"] < 2e-4


def test_blocks_can_be_recomputed(results: dict[str, Any]) -> None:
    assert results["recomputed"]["digest"] == results["two"][0]["digest"]


@pytest.mark.parametrize("case", ["headless", "frozen"])
def test_weights_that_are_not_trained_hold_nobody_up_and_end_as_in_one_process(
    results: dict[str, Any], case: str
) -> None:
    assert results[case]["statuses"] == [0, 0]
    assert len(set(results[case]["digests"])) == 1
    assert results[case]["difference"] < 2e-4


def test_a_copy_has_weights_of_its_own_and_shares_what_is_only_read(
    tiny_teacher: Teacher, sentences: list[str]
) -> None:
    """A second teacher, or second tables, would be for nothing; and of a sparse table torch makes no copy."""
    own = train_wordpiece(sentences, size=150, max_length=64)
    student = build_student(tiny_teacher, StudentArchitecture(layers=1), tokenizer=own)
    weights = LossWeights(mlm=1.0, match=1.0, reduce_map=1.0, reduce=1.0)
    objective = PairedObjective(student, tiny_teacher, ObjectiveSettings(weights=weights))
    copied = copy.deepcopy(objective)
    assert copied.student.get_output_embeddings().weight is copied.student.get_input_embeddings().weight
    assert not {id(parameter) for parameter in copied.parameters()} & set(map(id, objective.parameters()))
    assert all(loss is copied.layer_losses[name] for name, loss in copied._layer_losses.items())
    assert copied._teacher is objective._teacher
    assert copied._comparisons["reduce_map"] is objective._comparisons["reduce_map"]
