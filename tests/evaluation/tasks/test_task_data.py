import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from distilrubert.common.errors import UserError
from distilrubert.evaluation.tasks.task import TaskDataset, TaskDefinition, TaskFiles, known_tasks, load_task
from distilrubert.evaluation.tasks.task_data import TaskRows, load_rows


def make(folder: Path, rows: list[dict[str, Any]], name: str = "rows.jsonl", **changes: Any) -> TaskDefinition:
    path = folder / name
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    fields: dict[str, Any] = {
        "name": "toy",
        "title": "Toy",
        "kind": "sentence-classification",
        "files": TaskFiles(train=str(path)),
        "labels": ["a", "b"],
        "test_share": 0.25,
        "validation_share": 0.25,
        "metrics": ["accuracy"],
        "licence": "CC0-1.0",
        "source": "here",
    }
    return TaskDefinition(**fields | changes)


def forty(**more: Any) -> list[dict[str, Any]]:
    """40 rows, a quarter of them of class b."""
    return [{"text": f"строка {index}", "label": "b" if index % 4 == 0 else "a", **more} for index in range(40)]


def texts(rows: Dataset) -> set[str]:
    return set(rows["text"])


def test_splits_are_disjoint_complete_proportional_and_always_the_same(tmp_path: Path) -> None:
    task = make(tmp_path, forty())
    rows = load_rows(task)
    parts = [rows.train, rows.validation, rows.test]
    assert [len(part) for part in parts] == [22, 8, 10]
    assert set.union(*map(texts, parts)) == {row["text"] for row in forty()}
    assert [sum(part["label"]) for part in parts] == [6, 2, 2]
    assert load_rows(task).fingerprint() == rows.fingerprint()
    assert load_rows(task.model_copy(update={"split_seed": 1})).fingerprint() != rows.fingerprint()


def test_parts_of_their_own_are_left_as_they_are(tmp_path: Path) -> None:
    make(tmp_path, [{"text": "проверка", "label": "a"}], "validation.jsonl")
    make(tmp_path, [{"text": "итог", "label": "b"}], "test.jsonl")
    files = {part: str(tmp_path / f"{part}.jsonl") for part in ("validation", "test")}
    task = make(tmp_path, forty(), files=TaskFiles(train=str(tmp_path / "rows.jsonl"), **files), test_share=None)
    rows = load_rows(task)
    assert (len(rows.train), texts(rows.validation), texts(rows.test)) == (40, {"проверка"}, {"итог"})


def test_groups_stay_together(tmp_path: Path) -> None:
    raw = [{"text": f"{index}", "label": "ab"[index // 8 % 2], "book": f"book {index % 8}"} for index in range(40)]
    rows = load_rows(make(tmp_path, raw, group_by="book"))
    books = [{int(text) % 8 for text in texts(part)} for part in (rows.train, rows.validation, rows.test)]
    assert sum(map(len, books)) == len(set.union(*books)) == 8
    assert min(map(len, books)) > 0


def candidates(queries: int = 12, each: int = 5, score: int = 1) -> list[dict[str, Any]]:
    """Rows of a reranker: of the candidates of each query one is good, and has this score."""
    return [
        {"asked": f"вопрос {row % queries}", "text_pair": f"ответ {row}", "score": score * (row // queries == 2)}
        for row in range(queries * each)
    ]


RERANKER: dict[str, Any] = {
    "kind": "sentence-pair-regression",
    "labels": [],
    "columns": {"text": "asked"},
    "metrics": ["ndcg_at_10", "spearman"],
}


def test_candidates_of_a_query_stay_together_where_they_are_ranked(tmp_path: Path) -> None:
    task = make(tmp_path, candidates(), **RERANKER)
    for limit, whole in ((None, 60), (20, 20)):
        rows = load_rows(task, train_limit=limit, unlabelled=None if limit is None else [])
        parts = [rows.train, rows.validation, rows.test]
        queries = [texts(part) for part in parts]
        assert sum(map(len, queries)) == len(set.union(*queries))
        assert len(rows.train) + len(rows.validation) == (whole if limit else whole - len(rows.test))
        assert [len(set(task.queries_of(part))) for part in parts] == [len(part) / 5 for part in parts]
    scored = make(tmp_path, candidates(), **RERANKER | {"metrics": ["spearman"]})
    assert scored.queries_of(load_rows(scored).test) == []
    assert scored.kept_together is None


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (candidates(score=-1), "task toy: ndcg_at_10: needs scores of 0 or more, the validation part has -1"),
        (candidates(score=0), "task toy: ndcg_at_10: in the validation part no text has rows with different scores"),
        (candidates(queries=40, each=1), "in the validation part no text has rows with different scores"),
    ],
)
def test_what_cannot_be_ranked_is_told(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        load_rows(make(tmp_path, rows, **RERANKER))


def test_a_limit_takes_a_fixed_choice_of_the_training_rows_only(tmp_path: Path) -> None:
    task = make(tmp_path, forty())
    whole, few = load_rows(task), load_rows(task, train_limit=12)
    assert (len(few.train), len(few.validation), len(few.test)) == (9, 3, 10)
    assert texts(few.test) == texts(whole.test)
    assert texts(few.train) == texts(load_rows(task, train_limit=12).train)
    assert load_rows(task, train_limit=1000).fingerprint() == whole.fingerprint()


def test_a_filter_keeps_rows_of_the_training_part(tmp_path: Path) -> None:
    raw = [{**row, "year": 2000 + index // 4 % 2} for index, row in enumerate(forty())]
    rows = load_rows(make(tmp_path, raw, filter={"year": [2001]}))
    assert len(rows.train) + len(rows.validation) + len(rows.test) == 20
    with pytest.raises(UserError, match="has no rows that pass the filter"):
        load_rows(make(tmp_path, raw, filter={"year": [1999]}))


def test_columns_are_renamed_and_labels_merged(tmp_path: Path) -> None:
    raw = [{"a": f"{index}", "b": "да", "grade": index % 3 - 1} for index in range(30)]
    task = make(
        tmp_path,
        raw,
        kind="sentence-pair-classification",
        columns={"text": "a", "text_pair": "b", "label": "grade"},
        labels={"different": [-1], "same": [0, 1]},
    )
    train = load_rows(task).train
    assert all(label == (int(text) % 3 > 0) for text, label in zip(train["text"], train["label"], strict=True))
    assert set(train["text_pair"]) == {"да"}


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.jsonl"])
def test_compressed_or_not(tmp_path: Path, name: str) -> None:
    assert len(load_rows(make(tmp_path, forty(), name)).train) == 22


def test_brackets_in_a_name_are_no_pattern(tmp_path: Path) -> None:
    """Another file that the name would match as a pattern is not read."""
    make(tmp_path, [{"text": "чужая", "label": "a"}] * 40, "rows1.jsonl")
    assert "чужая" not in texts(load_rows(make(tmp_path, forty(), "rows[1].jsonl")).train)


def test_csv_cells_are_text_even_if_they_read_like_missing_values(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,label\n" + 2 * "NA,0\nnull,1\nnan,0\n,1\n", encoding="utf-8")
    rows = load_rows(make(tmp_path, [], files=TaskFiles(train=str(path)), labels=[0, 1], test_share=0.5))
    found = [text for part in (rows.train, rows.validation, rows.test) for text in part["text"]]
    assert sorted(found) == sorted(2 * ["", "NA", "nan", "null"])
    path.write_text("text,label\n" + 2 * "007,01\n1e5,02\n-0,01\n4.50,02\n", encoding="utf-8")
    rows = load_rows(make(tmp_path, [], files=TaskFiles(train=str(path)), labels=["01", "02"], test_share=0.5))
    found = [text for part in (rows.train, rows.validation, rows.test) for text in part["text"]]
    assert sorted(found) == sorted(2 * ["-0", "007", "1e5", "4.50"])


@pytest.mark.parametrize(
    ("rows", "changes", "message"),
    [
        ([{"text": "да", "mark": "a"}], {}, "has no column label; it has text, mark"),
        ([{"text": "да", "label": "c"}], {}, "row 1: unknown label 'c'; known: a, b"),
        ([{"text": "да", "label": "a"}, {"text": None, "label": "a"}], {}, "row 2: text holds None, expected text"),
        ([{"text": "да", "label": "a"}], {}, "rows: 1; too few to split a share of 0.25 off"),
        ([{"text": f"{n}", "label": "a"} for n in range(9)], {}, "all 4 rows to train on are of one class; two are"),
        ([{"text": "да", "label": "a"}], {"group_by": "book"}, "has no column book"),
        (
            [{"tokens": ["а"], "tags": []}],
            {"kind": "token-classification", "labels": ["O", "B-PER"], "metrics": ["span_f1"]},
            "have 0 tags",
        ),
        (
            [{"tokens": [["Маша"]], "tags": ["O"]}],
            {"kind": "token-classification", "labels": ["O", "B-PER"], "metrics": ["span_f1"]},
            "row 1: tokens hold ['Маша'], expected words",
        ),
    ],
)
def test_bad_rows_are_told_in_one_line(
    tmp_path: Path, rows: list[dict[str, Any]], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as caught:
        load_rows(make(tmp_path, rows, **changes))
    assert message in str(caught.value)
    assert str(caught.value).startswith("task toy: ")


@pytest.mark.parametrize(
    ("name", "content"), [("rows.parquet", b"PAR0"), ("rows.jsonl", b"\x00{"), ("rows.csv", b"text,label\n\xff,a\n")]
)
def test_unreadable_files_are_told(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"{name}: cannot be read: .+"):
        load_rows(make(tmp_path, [], "other.jsonl", files=TaskFiles(train=str(path))))


def test_a_data_set_that_is_a_script_is_told(tmp_path: Path) -> None:
    (tmp_path / "moods").mkdir()
    (tmp_path / "moods" / "moods.py").write_text("raise SystemExit")
    dataset = TaskDataset(id=str(tmp_path / "moods"), test=None)
    with pytest.raises(
        UserError, match=r"train: cannot be read: Dataset scripts are no longer supported, .* moods\.py"
    ):
        load_rows(make(tmp_path, [], files=None, dataset=dataset))


def test_an_unknown_kind_of_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"rows\.xlsx: is not a kind of file that can be read; known: \.parquet, "):
        load_rows(make(tmp_path, forty(), "rows.xlsx"))


@pytest.mark.data
@pytest.mark.parametrize("name", known_tasks())
def test_the_shipped_tasks_read_the_reference_data(data_folder: Path, name: str) -> None:
    rows = load_rows(load_task(name))
    expected = {
        "factrueval": (1769, 3138),
        "paraphraser": (7227, 1924),
        "rucola": (7869 + 983, 1804),
        "rusentiment": (28218, 2967),
        "terra": (2616, 307),
        "xquad-ru": (836, 354),
    }
    assert (len(rows.train) + len(rows.validation), len(rows.test)) == expected[name]
    # docs/results.md says so.
    assert load_rows(load_task(name), train_limit=2000).count_test_rows_in_train() == (
        4 if name == "rusentiment" else 0
    )


def test_test_rows_that_are_training_rows_are_counted() -> None:
    def pairs(*texts: tuple[str, str]) -> Dataset:
        return Dataset.from_list([{"text": first, "text_pair": second, "label": 0} for first, second in texts])

    train = pairs(("Кот спит", "Спит кот"), ("да", "нет"))
    # Equal but for case and spacing; twice; in the other order; half of it.
    test = pairs(("кот  спит", "спит кот"), ("да", "нет"), ("да", "нет"), ("нет", "да"), ("да", "да"))
    assert TaskRows(train, train, test).count_test_rows_in_train() == 3
    words = [Dataset.from_dict({"tokens": [tokens], "tags": [[0, 0]]}) for tokens in (["Да", "нет"], ["да", "нет"])]
    assert TaskRows(words[0], words[0], words[1]).count_test_rows_in_train() == 1


def test_rows_beyond_the_limit_are_text_without_labels(tmp_path: Path) -> None:
    task = make(tmp_path, forty())
    rows = load_rows(task, train_limit=20, unlabelled=[])
    assert rows.unlabelled is not None
    assert [len(part) for part in rows.parts.values()] == [15, 5, 10, 10]
    assert set.union(*map(texts, rows.parts.values())) == {row["text"] for row in forty()}
    assert set(rows.unlabelled["label"]) == {-100}
    assert rows.unlabelled.features == rows.train.features
    # With and without them, the other parts are the same.
    plain = load_rows(task, train_limit=20)
    assert plain.unlabelled is None
    assert plain.fingerprint() != rows.fingerprint()
    assert [texts(plain.parts[part]) for part in plain.parts] == [texts(rows.parts[part]) for part in plain.parts]


def test_text_without_labels_comes_from_files_too_once_and_never_from_another_part(tmp_path: Path) -> None:
    task = make(tmp_path, forty())
    more = ["новая строка", "Новая  СТРОКА", *(row["text"] for row in forty())]
    (tmp_path / "more.txt").write_text("\n".join(more), encoding="utf-8")
    rows = load_rows(task, unlabelled=[str(tmp_path / "more.txt")])
    assert rows.unlabelled is not None
    assert rows.unlabelled["text"][:] == ["новая строка"]
    # Lines of a text file, whatever the task's own column is called.
    renamed = [{"review" if name == "text" else name: value for name, value in row.items()} for row in forty()]
    task = make(tmp_path, renamed, columns={"text": "review"})
    rows = load_rows(task, unlabelled=[str(tmp_path / "more.txt")])
    assert rows.unlabelled is not None
    assert rows.unlabelled["text"][:] == ["новая строка"]


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([{"comment": "текст"}], r"task toy: .*more.jsonl: has no column text; it has comment"),
        ([{"text": None}, {"text": "x"}], r"task toy: .*more.jsonl: row 1: text holds None, expected text"),
        ([{"text": "строка 1"}], r"task toy: there is no text without labels; name files in task.unlabelled, or set"),
    ],
)
def test_bad_text_without_labels_is_told_in_one_line(tmp_path: Path, rows: list[dict[str, Any]], told: str) -> None:
    make(tmp_path, rows, "more.jsonl")
    with pytest.raises(UserError, match=told):
        load_rows(make(tmp_path, forty()), unlabelled=[str(tmp_path / "more.jsonl")])


def test_questions_without_answers_are_text_without_labels(tmp_path: Path) -> None:
    asked = [{"question": f"что {i}", "context": f"вот {i}", "answer": "вот", "answer_start": 0} for i in range(20)]
    task = make(tmp_path, asked, kind="question-answering", labels=[], metrics=["exact_match"])
    rows = load_rows(task, train_limit=10, unlabelled=[])
    assert rows.unlabelled is not None
    assert set(rows.unlabelled["start"]) == {-100}
    assert rows.unlabelled.features == rows.train.features
