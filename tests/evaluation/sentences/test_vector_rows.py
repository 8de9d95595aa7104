import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from datasets import Dataset

from distilrubert.common.errors import UserError
from distilrubert.evaluation.sentences.suite_scores import measure_suite
from distilrubert.evaluation.sentences.suites import load_suite

SIMILARITY = {"kind": "sentence-similarity", "metric": "spearman"}
FOLDED = {"kind": "similarity-classification", "metric": "accuracy"}
CLASSES = {"kind": "vector-classification", "metric": "accuracy", "train": "train"}
AREA = CLASSES | {"metric": "roc_auc"}
NEIGHBOURS = CLASSES | {"classifiers": ["nearest-neighbours"]}
RETRIEVAL = {"kind": "retrieval", "metric": "ndcg@10"}

PAIRS = ("sentence1", "sentence2", "score")
LABELLED_PAIRS = ("sentence1", "sentence2", "label")
LABELLED = ("text", "label")
TWO = [LABELLED, ("a", 0), ("b", 1)]
THREE = [*TWO, ("c", 2)]


def write(folder: Path, parts: dict[str, list[Sequence[Any]]]) -> None:
    for part, rows in parts.items():
        with (folder / f"{part}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(rows)


@pytest.mark.parametrize(
    ("task", "parts", "message"),
    [
        (
            SIMILARITY,
            {"test": [PAIRS, ("a", "b", 1)]},
            "test.csv: all scores are equal, rows: 1; two rows with different scores are needed",
        ),
        (
            SIMILARITY,
            {"test": [PAIRS, ("a", "b", "1"), ("a", "c", "1.0")]},
            "test.csv: all scores are equal, rows: 2; two rows with different scores are needed",
        ),
        *(
            (
                SIMILARITY,
                {"test": [PAIRS, ("a", "b", 1), ("a", "c", score)]},
                f"test.csv: row 2: the score is {score!r}; a finite number is needed",
            )
            for score in ("nan", "inf", "many", "")
        ),
        (
            FOLDED,
            {"test": [LABELLED_PAIRS, ("a", "b", 0), ("a", "c", 1)]},
            "test.csv: rows: 2; one for each of the 3 folds is needed",
        ),
        (
            FOLDED,
            {"test": [LABELLED_PAIRS, ("a", "b", 0), ("a", "c", 0), ("a", "d", 0), ("a", "e", 1)]},
            "test.csv: rows: 4, classes: 2; two classes are needed in what is left without any of the 3 folds",
        ),
        (
            CLASSES,
            {"test": TWO, "train": [LABELLED, ("a", 0), ("b", 0)]},
            "train.csv: classes: 1; classifiers need two to learn from",
        ),
        (
            NEIGHBOURS,
            {"test": TWO, "train": TWO},
            "train.csv: rows: 2; nearest-neighbours needs 3 to learn from",
        ),
        (AREA, {"test": TWO, "train": THREE}, "train.csv: classes: 3; roc_auc needs two"),
        (AREA, {"test": TWO[:2], "train": TWO}, "test.csv: classes: 1; roc_auc needs two"),
        (
            RETRIEVAL,
            {"test": [("query", "passage"), ("", "p"), (" ", "r")]},
            "test.csv: rows: 2, none with a query; one is needed",
        ),
    ],
)
def test_rows_that_cannot_be_scored_are_refused_before_a_model_is_opened(
    task: dict[str, Any], parts: dict[str, list[Sequence[Any]]], message: str, tmp_path: Path
) -> None:
    write(tmp_path, parts)
    assert refusal(tmp_path, task) == f"task t: {tmp_path}{os.sep}{message}"


def test_an_empty_cell_is_no_text(tmp_path: Path) -> None:
    rows = {"sentence1": ["a", None, "c"], "sentence2": ["b", "c", "d"], "score": [1, 2, 3]}
    Dataset.from_dict(rows).to_parquet(tmp_path / "test.parquet")
    message = "test.parquet: row 2: sentence1 holds None, expected text"
    assert refusal(tmp_path, SIMILARITY) == f"task t: {tmp_path}{os.sep}{message}"


def test_the_area_under_a_curve_needs_the_same_classes_in_both_parts(tmp_path: Path) -> None:
    write(tmp_path, {"train": TWO, "test": [LABELLED, ("a", 0), ("b", 7)]})
    assert refusal(tmp_path, AREA) == "task t: train and test differ in classes; roc_auc needs the same"


def refusal(folder: Path, task: dict[str, Any]) -> str:
    told = {"name": "t", "title": "T", "licence": "CC0-1.0", "source": "here", "test": "test"}
    (folder / "task.yaml").write_text(yaml.safe_dump(told | task), encoding="utf-8")
    with pytest.raises(UserError) as error:
        measure_suite({"model": folder / "absent"}, load_suite(folder / "task.yaml"), folder / "cache")
    return str(error.value)
