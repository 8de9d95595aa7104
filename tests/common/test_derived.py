"""What follows from the raw values of a report, worked by hand."""

import math
from typing import Any

import pytest

from distilrubert.common.derived import derive, load_derived, worst_of
from distilrubert.common.measurements import Environment, Measurements, Row


def report(*rows: tuple[str, dict[str, Any]], **details: Any) -> Measurements:
    return Measurements(Environment.capture(), [Row(*row) for row in rows], rows[0][0], details)


def timed(device: str = "cpu", **starts_s: list[float]) -> dict[str, Any]:
    batches = {size.removeprefix("of_"): {"starts_s": starts} for size, starts in starts_s.items()}
    return {"device": device, "batches": batches}


def test_times_and_ratios() -> None:
    # Starts of 1, 2, 3, 4, 5 s, whose quartiles are 2 and 4; of 8 sequences in 1, 2, 4, 8, 8 s: 8, 4, 2, 1, 1 a second,
    # quartiles 1 and 4.
    baseline = timed(of_1=[1.0, 2.0, 3.0, 4.0, 5.0], of_8=[1.0, 2.0, 4.0, 8.0, 8.0])
    first, second = derive(report(("a", baseline), ("b", timed(of_1=[0.5] * 5, of_8=[1.0] * 5)))).rows
    assert (first.values["latency_s"], first.values["latency_spread_s"]) == (3, 2)
    assert (first.values["samples_per_s"], first.values["samples_spread_per_s"]) == (2, 3)
    assert first.values["starts"] == 5
    # Start by start 2, 4, 6, 8, 10 and 1, 2, 4, 8, 8.
    assert (second.values["latency_ratio"], second.values["throughput_ratio"]) == (6, 4)
    assert second.values["latency_ratio_range"] == [2, 10]
    assert second.values["throughput_ratio_range"] == [1, 8]


def test_a_ratio_compares_starts_that_took_turns() -> None:
    # The machine was half as fast in the second and third start, for both.
    rows = derive(report(("a", timed(of_1=[4.0, 8.0, 8.0])), ("b", timed(of_1=[1.0, 2.0, 2.1])))).rows
    assert rows[1].values["latency_ratio"] == 4
    assert rows[1].values["latency_ratio_range"] == [pytest.approx(8 / 2.1), 4]


def test_a_row_of_a_gpu_is_compared_on_its_own_device() -> None:
    rows = [("a", timed(of_1=[8.0])), ("a-cuda", timed("cuda", of_1=[1.0])), ("b-cuda", timed("cuda", of_1=[0.5]))]
    last = derive(report(*rows)).rows[2].values
    assert (last["latency_ratio"], last["ratio_to"]) == (2, "a-cuda")


def test_starts_that_do_not_match_have_no_ratio() -> None:
    rows = derive(report(("a", timed(of_1=[8.0, 8.0])), ("b", timed(of_1=[1.0])))).rows
    assert "latency_ratio" not in rows[1].values
    assert rows[1].values["latency_s"] == 1


def test_the_worst_of_the_ways() -> None:
    ways = {"single": {"maximal_difference": 1.0, "token_cosine": 0.9}}
    ways["padded"] = {"maximal_difference": 2.0, "token_cosine": 0.8}
    values = derive(report(("onnx-fp32", ways))).rows[0].values
    assert (values["maximal_difference"], values["token_cosine"]) == (2, 0.8)
    assert math.isnan(worst_of("token_cosine", [0.5, math.nan, 0.9]))


def scored(*values: float) -> dict[str, Any]:
    return {"tasks": {"moods": {"accuracy": {"values": list(values)}, "run": {"seeds": [1]}, "rows": []}}}


def test_means_shares_and_ratios_of_scores() -> None:
    """Raw, the student keeps 79 % of the teacher's score; of its lead over the majority class it keeps a fortieth."""
    student = scored(0.754, 0.756) | {"gain_over_majority": {"moods": {"standard_error": 0.02}}}
    rows = (("teacher", scored(0.95)), ("student", student), ("majority-class", scored(0.75)), ("other", {"tasks": {}}))
    found = derive(report(*rows, tasks={"moods": {"main_metric": "accuracy"}}))
    score = found["student"].values["tasks"]["moods"]["accuracy"]
    assert score == {"values": [0.754, 0.756], "mean": 0.755, "std": pytest.approx(0.002 / 2**0.5)}
    assert found["teacher"].values["tasks"]["moods"]["accuracy"]["std"] is None
    assert found["student"].values["tasks"]["moods"]["run"] == {"seeds": [1]}
    assert [row.ratio for row in found.rows] == pytest.approx([1, 0.755 / 0.95, 0.75 / 0.95, None])
    gain = found["student"].values["gain_over_majority"]["moods"]
    assert gain == {"standard_error": 0.02, "value": pytest.approx(1 / 40)}


def test_a_stated_share_or_mean_does_not_count(tmp_path: Any) -> None:
    boast = scored(0.5)
    boast["tasks"]["moods"]["accuracy"] |= {"mean": 0.9, "std": 0.0}
    boast["gain_over_majority"] = {"moods": {"value": 0.99, "standard_error": 0.1}}
    report(("teacher", boast), tasks={"moods": {"main_metric": "accuracy"}}).save(tmp_path / "quality.json")
    values = load_derived(tmp_path / "quality.json").rows[0].values
    assert values["tasks"]["moods"]["accuracy"] == {"mean": 0.5, "std": None, "values": [0.5]}
    assert values["gain_over_majority"] == {}  # without a majority class there is no lead


def test_older_results_keep_what_they_state() -> None:
    values = {"latency_s": 2.0, "latency_ratio": 3.0, "batches": {"1": {"median_s": 2.0}}}
    assert derive(report(("a", values))).rows[0].values == values


def test_what_a_report_from_elsewhere_lacks_is_not_derived() -> None:
    ways = {"single": {"token_cosine": 0.9, "pooled_cosine": 0.5}, "padded": {"token_cosine": 0.8}}
    values = derive(report(("onnx-fp32", ways))).rows[0].values
    assert values == {**ways, "token_cosine": 0.8}
    for main in ("rows", "run", "f1", None):
        found = derive(report(("teacher", scored(0.5)), tasks={"moods": {"main_metric": main}}))
        assert found["teacher"].ratio is None
