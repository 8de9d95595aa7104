import math
import socket
from pathlib import Path

import evaluate
import pytest

from distilrubert.evaluation.tasks.metrics import METRICS, compute_metrics, ndcg_by_query


def test_metrics_of_three_classes_by_hand() -> None:
    references, predictions = [0, 0, 1, 1, 2, 2], [0, 1, 1, 1, 2, 0]
    # By class: precision 1/2, 2/3, 1; recall 1/2, 1, 1/2; so F1 1/2, 4/5, 2/3.
    scores = compute_metrics(["accuracy", "f1_macro", "f1_weighted"], predictions, references)
    assert scores["accuracy"] == pytest.approx(4 / 6)
    assert scores["f1_macro"] == pytest.approx((1 / 2 + 4 / 5 + 2 / 3) / 3)
    assert scores["f1_weighted"] == pytest.approx(scores["f1_macro"])  # two rows of each class


def test_weighted_f1_weighs_by_the_rows_of_a_class() -> None:
    # Class 0: precision 3/4, recall 1, F1 6/7; class 1: F1 0.
    scores = compute_metrics(["f1_weighted", "f1_macro"], [0, 0, 0, 0], [0, 0, 0, 1])
    assert scores["f1_weighted"] == pytest.approx(3 / 4 * 6 / 7)
    assert scores["f1_macro"] == pytest.approx(3 / 7)


def test_f1_looks_for_the_second_class() -> None:
    references, predictions = [1, 1, 1, 0, 0], [1, 1, 0, 1, 0]
    assert compute_metrics(["f1"], predictions, references)["f1"] == pytest.approx(2 / 3)
    assert compute_metrics(["f1"], [0, 0], [0, 1])["f1"] == 0


def test_matthews_by_hand() -> None:
    # tp 2, tn 1, fp 1, fn 1: (2·1 − 1·1) / sqrt(3·3·2·2)
    assert compute_metrics(["matthews"], [1, 1, 0, 1, 0], [1, 1, 1, 0, 0])["matthews"] == pytest.approx(1 / 6)


def test_span_f1_wants_type_and_both_borders() -> None:
    references = [["B-PER", "I-PER", "O", "B-LOC"], ["B-ORG", "O"]]
    predictions = [["B-PER", "I-PER", "O", "B-ORG"], ["B-ORG", "I-ORG"]]
    # One span of three is right on either side.
    assert compute_metrics(["span_f1"], predictions, references)["span_f1"] == pytest.approx(1 / 3)
    assert compute_metrics(["span_f1"], [["O", "O"]], [["O", "B-PER"]])["span_f1"] == 0


def test_metrics_of_several_classes_by_hand() -> None:
    references, predictions = [[1, 1], [0, 1], [0, 0]], [[1, 0], [0, 1], [1, 0]]
    # The first class: 1 of 2 found is right, 1 of 1 is found, F1 2/3; the second: 1 of 1 is right, 1 of 2, F1 2/3.
    scores = compute_metrics(["f1_micro", "f1_macro", "f1_weighted", "accuracy"], predictions, references)
    assert scores == pytest.approx({"f1_micro": 2 / 3, "f1_macro": 2 / 3, "f1_weighted": 2 / 3, "accuracy": 1 / 3})


def test_metrics_of_numbers_by_hand() -> None:
    scores = compute_metrics(["pearson", "spearman", "r2"], [1.0, 3.0, 2.0, 10.0], [0.0, 1.0, 2.0, 3.0])
    # Deviations -3, -1, -2, 6 and -1.5, -.5, .5, 1.5: 13 / sqrt(50 * 5); ranks 1, 3, 2, 4 and 1, 2, 3, 4: 1 - 6*2/60.
    assert scores["pearson"] == pytest.approx(13 / 250**0.5)
    assert scores["spearman"] == pytest.approx(0.8)
    # 1 - (1 + 4 + 0 + 49) / 5
    assert scores["r2"] == pytest.approx(1 - 54 / 5)
    assert compute_metrics(["pearson", "spearman"], [2.0, 2.0], [1.0, 3.0]) == {"pearson": 0.0, "spearman": 0.0}
    assert compute_metrics(["pearson", "spearman", "r2"], [2.0], [1.0]) == {"pearson": 0.0, "spearman": 0.0, "r2": 0.0}


def test_candidates_are_ranked_query_by_query() -> None:
    # Of query 7 the best comes last: 0 / log2(2) + 1 / log2(3) + 2 / log2(4) of 2 / log2(2) + 1 / log2(3).
    # Of query 4 the order is right. All candidates of query 5 are equally good: it says nothing.
    queries, references = [7, 4, 7, 5, 7, 4, 5], [2.0, 3.0, 0.0, 1.0, 1.0, 0.0, 1.0]
    predictions = [0.1, 0.3, 0.9, 0.5, 0.4, -2.0, 0.7]
    of_seven = (1 / math.log2(3) + 1) / (2 + 1 / math.log2(3))
    assert ndcg_by_query(references, predictions, queries) == pytest.approx([of_seven, 1.0])
    found = compute_metrics(["ndcg_at_10", "spearman"], predictions, references, queries)
    assert found["ndcg_at_10"] == pytest.approx((of_seven + 1) / 2)
    # Equal scores are no order: the gain of each place is the mean of both.
    assert ndcg_by_query([1.0, 0.0], [0.5, 0.5], [0, 0]) == pytest.approx([(1 + 1 / math.log2(3)) / 2])
    # What stands behind the tenth place is not found.
    assert ndcg_by_query([0.0] * 10 + [1.0], [*range(11, 0, -1)], [0] * 11) == [0.0]
    assert compute_metrics(["ndcg_at_10"], [1.0, 2.0], [1.0, 1.0], [0, 0]) == {"ndcg_at_10": 0.0}


def test_answers_are_compared_as_squad_does() -> None:
    predictions = ["The Москва-река.", "в сорок пятом году", "нет"]
    references = [["москварека"], ["в 1945 году", "сорок пятом"], ["да"]]
    scores = compute_metrics(["exact_match", "answer_f1"], predictions, references)
    assert scores["exact_match"] == pytest.approx(1 / 3)
    # The second: shares «в», «году» with the first answer (4/7), both words with the second one (4/6).
    assert scores["answer_f1"] == pytest.approx((1 + 4 / 6 + 0) / 3)


def test_empty_answers_score_by_the_words_that_are_not_there() -> None:
    scores = compute_metrics(["exact_match", "answer_f1"], [""], [["ответ"]])
    assert scores == {"exact_match": 0.0, "answer_f1": 0.0}


def test_metrics_use_neither_network_nor_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a metric opened a socket")

    cache = tmp_path / "cache"
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", cache)
    monkeypatch.chdir(tmp_path)
    for name in METRICS:
        tags, answers = [["B-A", "O"]], (["да"], [["да"]])
        sets = [[0, 1], [1, 1]]
        arguments = {"span_f1": (tags, tags), "f1_micro": (sets, sets), "exact_match": answers, "answer_f1": answers}
        predictions, references = arguments.get(name, ([0, 1], [0, 1]))
        assert compute_metrics([name], predictions, references, [5, 5]) == pytest.approx({name: 1.0})
    assert list(tmp_path.iterdir()) == []
