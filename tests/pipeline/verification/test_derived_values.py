"""Means, medians and ratios of a report that do not follow from its raw values are found out."""

import copy
from typing import Any

import pytest

from distilrubert.common.measurements import Measurements
from distilrubert.pipeline.verification.derived_values import check_derived
from tests.model_card.example_run import REPORTS

WAYS = ("single", "padded", "full_length")


def reports() -> dict[str, dict[str, Any]]:
    found = copy.deepcopy({name: REPORTS[name] for name in ("speed", "quality", "parity")})
    for row in found["parity"]["rows"]:
        metrics = ("maximal_difference", "mean_difference", "token_cosine", "token_cosine_p1", "pooled_cosine")
        row |= {way: {metric: row[metric] for metric in metrics} for way in WAYS}
    # The majority class scores 0.30 and the teacher 0.773766...
    share = (0.7644666666666667 - 0.3) / (0.7737666666666666 - 0.3)
    score = {"mean": 0.3, "std": None, "values": [0.3]}
    found["quality"]["rows"].append({"case": "majority-class", "tasks": {"rusentiment": {"f1_weighted": score}}})
    found["quality"]["rows"][1]["gain_over_majority"]["rusentiment"]["value"] = share
    return found


def verdicts(found: dict[str, dict[str, Any]]) -> dict[str, tuple[str, str]]:
    measured = {name: Measurements.from_dict(report) for name, report in found.items()}
    return {
        f"{statement.subject} {statement.quantity}": (statement.verdict, statement.reason)
        for statement in check_derived(measured)
        if statement.verdict != "holds"
    }


def test_honest_reports_hold() -> None:
    assert verdicts(reports()) == {}


@pytest.mark.parametrize(
    ("report", "row", "path", "value"),
    [
        ("speed", 3, ("latency_ratio",), 20.0),
        ("speed", 3, ("throughput_ratio",), 20.0),
        ("speed", 3, ("ratio",), 20.0),
        ("speed", 3, ("latency_s",), 0.01),
        ("speed", 3, ("samples_per_s",), 99.0),
        ("speed", 3, ("latency_ratio_range", 0), 5.69),
        ("speed", 3, ("starts",), 50),
        ("quality", 1, ("tasks", "rusentiment", "f1_weighted", "mean"), 0.9),
        ("quality", 1, ("tasks", "rusentiment", "f1_weighted", "std"), 0.5),
        ("quality", 1, ("linear_probe", "rusentiment", "accuracy", "mean"), 0.9),
        ("quality", 1, ("ratio",), 1.1),
        ("quality", 1, ("gain_over_majority", "rusentiment", "value"), 0.99),
        ("parity", 2, ("token_cosine",), 0.999),
        ("parity", 2, ("maximal_difference",), 0.0),
    ],
)
def test_an_edited_value_is_named(report: str, row: int, path: tuple[Any, ...], value: float) -> None:
    found = reports()
    place: Any = found[report]["rows"][row]
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    wrong = verdicts(found)
    assert {verdict for verdict, _ in wrong.values()} == {"does not hold"}
    assert any(f"{'.'.join(map(str, path))} is {value}, " in reason for _, reason in wrong.values())


def test_a_report_without_raw_values_is_not_checked() -> None:
    found = reports()
    for row in found["speed"]["rows"]:
        row["batches"] = {}
    del found["parity"]["rows"][0]["padded"]
    wrong = verdicts(found)
    assert {verdict for verdict, _ in wrong.values()} == {"not checked"}
    assert len(wrong) == 5


def test_a_share_of_a_lead_that_does_not_exist_is_wrong() -> None:
    found = reports()
    del found["quality"]["rows"][-1]
    assert [verdict for verdict, _ in verdicts(found).values()] == ["does not hold"]
