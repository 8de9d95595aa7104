"""Row results, the paired bootstrap and what is derived from them, on values worked out by hand."""

from typing import Any

import numpy as np
import pytest

from distilrubert.evaluation.tasks.metrics import METRICS, compute_metrics
from distilrubert.evaluation.tasks.row_results import class_counts, parse_rows, row_results, score_of_rows
from distilrubert.evaluation.tasks.significance import (
    bootstrap_p_value,
    is_learnt,
    resampled_scores,
    standard_error_of_gain,
)
from distilrubert.evaluation.tasks.task import TaskDefinition, TaskFiles

CLASSES = ([0, 1, 1, 2, 0, 1], [0, 1, 0, 2, 1, 1])
TWO_CLASSES = ([0, 1, 1, 1, 0, 1], [0, 1, 0, 1, 1, 1])
TAGS = (
    [["B-PER", "I-PER", "O", "B-ORG"], ["B-ORG", "I-ORG"], ["O", "O"]],
    [["B-PER", "I-PER", "O", "B-LOC"], ["B-ORG", "O"], ["O", "B-PER"]],
)
SEVERAL = ([[0, 1], [1, 1], [0, 0], [1, 0]], [[0, 1], [0, 1], [1, 0], [1, 1]])
NUMBERS = ([0.5, 1.5, -2.0, 4.25, 3.0], [0.25, 1.0, -1.0, 5.0, 2.0])
QUERIES = [3, 3, 8, 8, 8]
RANKINGS = ([0.5, 1.5, -2.0, 4.25, 3.0], [0.0, 1.0, 2.0, 1.0, 0.0])
ANSWERS = (["The Москва-река.", "в сорок пятом году", "нет"], [["москварека"], ["в 1945 году", "сорок пятом"], ["да"]])


@pytest.mark.parametrize("metric", sorted(METRICS.keys() - {"ndcg_at_10"}))
def test_the_score_of_all_rows_is_the_metric(metric: str) -> None:
    known: dict[str, Any] = dict.fromkeys(("pearson", "spearman", "r2"), NUMBERS) | {"f1_micro": SEVERAL}
    known |= {"f1": TWO_CLASSES, "span_f1": TAGS, "exact_match": ANSWERS, "answer_f1": ANSWERS}
    predictions, references = known.get(metric, CLASSES)
    columns = parse_rows(row_results(metric, predictions, references))
    whole = compute_metrics([metric], predictions, references)[metric]
    assert score_of_rows(metric, columns) == pytest.approx(whole, abs=1e-6)
    few = {name: values[1:] for name, values in columns.items()}
    part = compute_metrics([metric], predictions[1:], references[1:])[metric]
    assert score_of_rows(metric, few) == pytest.approx(part, abs=1e-6)


def test_of_a_ranking_each_query_is_a_row() -> None:
    rows = row_results("ndcg_at_10", *RANKINGS, QUERIES)
    columns = parse_rows(rows)
    assert [*columns] == ["ndcg_at_10"]
    assert columns["ndcg_at_10"].shape == (2,)
    whole = compute_metrics(["ndcg_at_10"], *RANKINGS, QUERIES)["ndcg_at_10"]
    assert score_of_rows("ndcg_at_10", columns) == pytest.approx(whole, abs=1e-6)
    last = compute_metrics(["ndcg_at_10"], *(side[2:] for side in RANKINGS), QUERIES[2:])["ndcg_at_10"]
    assert score_of_rows("ndcg_at_10", {"ndcg_at_10": columns["ndcg_at_10"][1:]}) == pytest.approx(last, abs=1e-6)
    resampled = resampled_scores("ndcg_at_10", [rows])
    assert set(resampled.round(4)) == set(np.array([1.0, last, (1 + last) / 2]).round(4))


def test_row_results_by_hand() -> None:
    assert row_results("accuracy", *CLASSES) == {"reference": "0 1 0 2 1 1", "prediction": "0 1 1 2 0 1"}
    assert row_results("span_f1", *TAGS) == {"expected": "2 1 1", "found": "2 1 0", "correct": "1 0 0"}
    assert row_results("answer_f1", *ANSWERS) == {"exact_match": "1 0 0", "answer_f1": "1 0.666667 0"}


@pytest.mark.parametrize("metric", ["f1_macro", "f1_weighted", "accuracy"])
def test_the_score_of_all_rows_of_several_classes_is_the_metric(metric: str) -> None:
    rows = row_results(metric, *SEVERAL)
    assert rows["reference_0"] == "0 0 1 1"
    assert rows["prediction_1"] == "1 1 0 0"
    assert score_of_rows(metric, parse_rows(rows)) == pytest.approx(compute_metrics([metric], *SEVERAL)[metric])


@pytest.mark.parametrize(
    ("kind", "answers", "expected"),
    [
        ("sentence-classification", CLASSES, [("a", 2, 2, 1), ("b", 3, 3, 2), ("c", 1, 1, 1)]),
        ("multi-label-classification", SEVERAL, [("a", 2, 2, 1), ("b", 3, 2, 2)]),
        ("token-classification", TAGS, None),
    ],
)
def test_what_each_class_has_by_hand(kind: str, answers: Any, expected: list[tuple[Any, ...]] | None) -> None:
    names = {"token-classification": ["O", "B-x", "I-x"], "multi-label-classification": ["a", "b"]}
    metric = {"token-classification": "span_f1"}.get(kind, "f1_macro")
    common = {"name": "toy", "title": "Toy", "licence": "CC0", "source": "these tests", "test_share": 0.2}
    files = TaskFiles(train="unused")
    labels = names.get(kind, ["a", "b", "c"])
    task = TaskDefinition(kind=kind, labels=labels, metrics=[metric], files=files, **common)
    counted = [tuple(each.values()) for each in class_counts(task, *answers)]
    if expected is not None:
        assert counted == expected
    else:
        # Of spans the totals are those of the rows.
        rows = parse_rows(row_results("span_f1", *TAGS))
        totals = [sum(each[place] for each in counted) for place in (1, 2, 3)]
        assert totals == [rows[name].sum() for name in ("expected", "found", "correct")]


def test_many_row_results_take_little_space() -> None:
    references = np.random.default_rng(1).integers(0, 3, 1000).tolist()
    rows = row_results("accuracy", references[::-1], references)
    assert all(len(column) < 500 for column in rows.values())
    assert {name: values.tolist() for name, values in parse_rows(rows).items()} == {
        "reference": references,
        "prediction": references[::-1],
    }


def classes(predictions: list[int], references: list[int]) -> dict[str, str]:
    return row_results("accuracy", predictions, references)


def test_two_models_are_compared_on_the_same_draws() -> None:
    """Models that are right on the same rows but one differ by that row alone, however much the rows differ."""
    references = [0, 1] * 50
    own = list(references)
    other = [1 - references[0], *references[1:]]
    scores = [resampled_scores("accuracy", [classes(predictions, references)]) for predictions in (own, other)]
    draws = np.round(100 * (scores[0] - scores[1])).astype(int)
    assert scores[0].min() == 1
    # How often a row is drawn follows a Poisson distribution of mean 1.
    assert np.mean(draws == 0) == pytest.approx(np.exp(-1), abs=0.06)
    assert np.mean(draws) == pytest.approx(1, abs=0.15)


def test_the_mean_over_runs_is_resampled() -> None:
    references = [0, 1, 0, 1]
    runs = [classes(references, references), classes([1 - label for label in references], references)]
    assert resampled_scores("accuracy", runs) == pytest.approx(0.5)


def test_p_values() -> None:
    references = [0, 1] * 100
    own = resampled_scores("accuracy", [classes(references, references)])
    one_wrong, many_wrong = (
        resampled_scores("accuracy", [classes([1 - label for label in references[:n]] + references[n:], references)])
        for n in (1, 40)
    )
    assert bootstrap_p_value(0.005, own - one_wrong) > 0.3
    assert bootstrap_p_value(0.2, own - many_wrong) == pytest.approx(1 / 1001)
    assert bootstrap_p_value(0.0, own - own) == 1.0


def figures(predictions: list[int], references: list[int]) -> dict:
    accuracy = float(np.mean(np.array(predictions) == np.array(references)))
    return {"accuracy": {"values": [accuracy]}, "rows": [classes(predictions, references)]}


REFERENCES = [0] * 150 + [1] * 50
# .75 by always answering 0, .95 for the teacher, .755 for another.
MAJORITY = figures([0] * 200, REFERENCES)
TEACHER = figures([0] * 150 + [1] * 40 + [0] * 10, REFERENCES)
POOR = figures([0] * 150 + [1] + [0] * 49, REFERENCES)


def test_the_error_of_the_gain_over_the_majority_class_by_hand() -> None:
    # The lead is that of 1 of 40 rows: the error of a share of 1/40 of 40 rows, sqrt(1/40 x 39/40 / 40).
    assert standard_error_of_gain("accuracy", POOR, TEACHER, MAJORITY) == pytest.approx(0.0247, abs=0.004)


def test_a_task_is_learnt_only_against_a_baseline() -> None:
    assert is_learnt("accuracy", TEACHER, MAJORITY)
    assert not is_learnt("accuracy", POOR, MAJORITY)
    assert not is_learnt("accuracy", MAJORITY, MAJORITY)
    assert not is_learnt("accuracy", TEACHER, None)


def test_the_gain_on_few_rows_has_a_finite_error() -> None:
    """Of six rows a draw may have none on which the teacher is better than the majority class."""
    references = [0, 0, 0, 1, 1, 1]
    error = standard_error_of_gain(
        "accuracy",
        figures([0, 0, 0, 1, 0, 0], references),
        figures(references, references),
        figures([0] * 6, references),
    )
    assert 0 < error < 1
