"""Every form of file gives the same texts; whatever is wrong with one is a single line that says where."""

import csv
import gzip
import io
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from pydantic import ValidationError

from distilrubert.common.errors import UserError
from distilrubert.distill.corpus import readers, sources
from distilrubert.distill.corpus.corpus_settings import CorpusSource
from distilrubert.distill.corpus.sources import identities_of, iterate_texts, open_source

from .dataset_hub import DatasetHub

TEXTS = ["Привет!", 'Он сказал: "да", и ушёл', "третий, с запятой", "Ёж"]


def as_txt(texts: list[str]) -> bytes:
    return "".join(f"{text}\n" for text in texts).encode()


def as_jsonl(texts: list[str]) -> bytes:
    return "".join(json.dumps({"n": 1, "text": text}) + "\n" for text in texts).encode()


def as_csv(texts: list[str]) -> bytes:
    file = io.StringIO()
    csv.writer(file).writerows([["n", "text"], *([str(n), text] for n, text in enumerate(texts))])
    return file.getvalue().encode()


FORMS: dict[str, Callable[[list[str]], bytes]] = {".txt": as_txt, ".jsonl": as_jsonl, ".csv": as_csv}
COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda content: content,
    ".gz": gzip.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


def read(path: Path | str, **settings: Any) -> list[str]:
    return list(iterate_texts([CorpusSource(path=str(path), **settings)]))


def write_parquet(path: Path, column: pa.Array, name: str = "text") -> Path:
    pq.write_table(pa.table({"n": range(len(column)), name: column}), path, compression="zstd")
    return path


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("form", FORMS)
def test_text_comes_out_of_every_form_as_it_went_in(tmp_path: Path, form: str, compression: str) -> None:
    path = tmp_path / f"talk{form}{compression}"
    path.write_bytes(COMPRESSIONS[compression](FORMS[form](TEXTS)))
    assert read(path) == TEXTS


@pytest.mark.parametrize(
    "kind",
    [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())],
    ids=["string", "large", "dictionary"],
)
def test_parquet_holds_text_in_several_types_and_rows_without(tmp_path: Path, kind: pa.DataType) -> None:
    column = pa.array([*TEXTS, None, "  "]).cast(kind)
    assert read(write_parquet(tmp_path / "talk.parquet", column)) == TEXTS


def test_compressed_files_of_several_members_are_read_to_the_end(tmp_path: Path) -> None:
    for name, compress in (("a.txt.gz", COMPRESSIONS[".gz"]), ("b.txt.zst", COMPRESSIONS[".zst"])):
        (tmp_path / name).write_bytes(compress(as_txt(["раз"])) + compress(as_txt(["два"])))
    assert read(tmp_path / "*") == ["раз", "два", "раз", "два"]


def test_a_document_is_the_lines_between_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "dialogues.txt"
    path.write_bytes("\ufeff\r\n- Ты где?\r\n- Дома. \r\n \r\n\r\n- Да.\r\n".encode())
    assert read(path, documents="blank-line") == ["- Ты где?\n- Дома.", "- Да."]
    assert read(path) == ["- Ты где?", "- Дома.", "- Да."]


def test_a_csv_field_may_hold_line_breaks(tmp_path: Path) -> None:
    path = tmp_path / "talk.csv"
    path.write_text('text,n\n"раз\nдва",1\n\nтри,2\n', encoding="utf-8")
    assert read(path) == ["раз\nдва", "три"]


def test_globs_are_read_in_the_order_of_names_and_sources_in_their_own(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "deep/er/c.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{path.stem}\n")
    assert read(tmp_path / "*.txt") == ["a", "b"]
    assert read(tmp_path / "**/*.txt") == ["a", "b", "c"]
    sources = [CorpusSource(path=str(tmp_path / name)) for name in ("deep/**/*.txt", "a.txt")]
    assert list(iterate_texts(sources)) == ["c", "a"]


def test_a_name_with_brackets_is_no_pattern(tmp_path: Path) -> None:
    (tmp_path / "talk[1].txt").write_text("да\n")
    assert read(tmp_path / "talk[1].txt") == ["да"]


NOISE = os.urandom(900).hex().encode()
BAD_FILES: dict[str, tuple[str, bytes, dict[str, str], str]] = {
    "extension": ("talk.doc", b"", {}, r"talk\.doc: unsupported extension; allowed are \.txt, \.jsonl, \.csv"),
    "no extension": ("talk", b"", {}, "unsupported extension"),
    "compressed parquet": ("talk.parquet.gz", b"", {}, "unsupported extension"),
    "documents": ("talk.csv", b"text\n", {"documents": "blank-line"}, r"documents: blank-line is for \.txt files only"),
    "binary": ("talk.txt", b"da\n\x00\x01\n", {}, r"talk\.txt:2: binary data \(a zero byte at byte 3\)"),
    "encoding": ("talk.txt", "да\nнет\n".encode("cp1251"), {}, r"talk\.txt:1: not UTF-8 text \(byte 0"),
    "late encoding": (
        "talk.jsonl",
        b'{"text": "a"}\n{"text": "\xff"}\n',
        {},
        r"talk\.jsonl:2: not UTF-8 text \(byte 24",
    ),
    "no gzip": ("talk.txt.gz", b"plain text", {}, r"talk\.txt\.gz: cannot be read"),
    "no zstd": ("talk.txt.zst", b"plain text", {}, r"talk\.txt\.zst: cannot be read"),
    "truncated gzip": (
        "talk.txt.gz",
        gzip.compress(os.urandom(900).hex().encode())[:-9],
        {},
        "cannot be read: Truncated",
    ),
    "truncated zstd": (
        "talk.txt.zst",
        COMPRESSIONS[".zst"](os.urandom(900).hex().encode())[:-9],
        {},
        "cannot be read: Truncated",
    ),
    "no parquet": ("talk.parquet", b"PAR1 not at all PAR1", {}, r"talk\.parquet: cannot be read"),
    "empty parquet": ("talk.parquet", b"", {}, r"talk\.parquet: cannot be read"),
    "no json": ("talk.jsonl", b'{"text": "a"}\n{"text": \n', {}, r"talk\.jsonl:2: not JSON"),
    "json list": ("talk.jsonl", b"[1]\n", {}, r"talk\.jsonl:1: a JSON list; an object with key 'text' is needed"),
    "json key": ("talk.jsonl", b'{"body": "a", "id": 1}\n', {}, r"talk\.jsonl:1: no column 'text'; there are body, id"),
    "json number": ("talk.jsonl", b'{"text": 5}\n', {}, r"talk\.jsonl:1: 'text' holds int; a string is needed"),
    "half a surrogate": ("talk.jsonl", rb'{"text": "a\ud83d"}', {}, "half of a surrogate pair at character 1"),
    "csv column": ("talk.csv", b"id,body\n1,a\n", {}, r"talk\.csv:1: no column 'text'; there are id, body"),
    "csv fields": ("talk.csv", b"id,text\n1,a\n2,b,c\n", {}, r"talk\.csv:3: 3 fields; the header has 2"),
    "csv quote": ("talk.csv", b'text\n"open\nuntil the end', {}, r"talk\.csv:3: not CSV"),
    "empty csv": ("talk.csv", b"", {}, "no column 'text'; there are none"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_named_with_the_place(tmp_path: Path, case: str) -> None:
    name, content, settings, message = BAD_FILES[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path / name, **settings)
    assert "\n" not in str(caught.value)


def test_parquet_without_the_column_or_with_numbers_in_it(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "talk.parquet", pa.array([1, 2]), name="body")
    with pytest.raises(UserError, match=r"talk\.parquet: no column 'text'; there are n, body"):
        read(path)
    with pytest.raises(UserError, match=r"talk\.parquet: column 'body' holds int64; text \(string\) is needed"):
        read(path, column="body")


def test_a_parquet_page_that_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "talk.parquet"
    pq.write_table(
        pa.table({"text": [str(n) * 9 for n in range(500)]}), path, write_page_checksum=True, compression=None
    )
    content = path.read_bytes()
    damaged = content.replace(b"7" * 9, b"8" * 9, 1)
    assert damaged != content
    path.write_bytes(damaged)
    with pytest.raises(UserError, match=r"talk\.parquet: cannot be read"):
        read(path)


def test_a_folder_stands_for_the_texts_below_it(tmp_path: Path) -> None:
    for name in ("b/1.jsonl", "a/2.jsonl.gz", "a/_SUCCESS.txt", "b/.hidden.jsonl", "_logs/3.jsonl", "README.md"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        content = as_jsonl([name])
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    write_parquet(tmp_path / "c.parquet", pa.array(["c"]))
    assert read(tmp_path) == ["a/2.jsonl.gz", "b/1.jsonl", "c"]


def test_a_url_is_read_as_a_file_is(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    folder = f"/{tmp_path.name}"
    for form, write in FORMS.items():
        for ending, compress in COMPRESSIONS.items():
            memory.pipe(f"{folder}/deep/talk{form}{ending}", compress(write(TEXTS)))
            assert read(f"memory:/{folder}/deep/talk{form}{ending}") == TEXTS
    with memory.open(f"{folder}/part.parquet", "wb") as file:
        pq.write_table(pa.table({"text": [*TEXTS, None]}), file, row_group_size=2)
    assert read(f"memory:/{folder}/*.parquet") == TEXTS
    assert read(f"memory:/{folder}") == TEXTS * 10
    [[parquet]] = [open_source(CorpusSource(path=f"memory:/{folder}/part.parquet"))]
    assert list(parquet.records(1, 3)) == TEXTS[1:3]
    assert parquet.cut_at(0.5) == 2
    [before] = identities_of(CorpusSource(path=f"memory:/{folder}/part.parquet"))
    assert before["version"]
    assert parquet.describe() == {
        "path": f"memory://{folder}/part.parquet", "bytes": before["bytes"], "version": before["version"],
    }  # fmt: skip
    memory.pipe(f"{folder}/part.parquet", b"x" * before["bytes"])
    assert identities_of(CorpusSource(path=f"memory:/{folder}/part.parquet")) != [before]
    with pytest.raises(UserError, match=r"memory:/.*part\.parquet cannot be read: "):
        read(f"memory:/{folder}/part.parquet")
    with pytest.raises(UserError, match=r"no file matches path 'memory://.*nothing-\*'"):
        read(f"memory:/{folder}/nothing-*")
    with pytest.raises(UserError, match=r"memory://.*missing\.txt cannot be read"):
        read(f"memory:/{folder}/missing.txt")


class ClosedStore(fsspec.AbstractFileSystem):
    """An object store that says what those of S3 and of Google say without credentials."""

    protocol = "closed"
    cachable = False

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        raise RuntimeError("Unable to locate credentials")

    info = ls


def test_object_stores_without_package_or_credentials_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec.register_implementation("closed", ClosedStore, clobber=True)
    for path in ("closed://bucket/a.txt", "closed://bucket/*.txt", "closed://bucket"):
        with pytest.raises(UserError, match=r"^corpus: closed://bucket.* cannot be read: Unable to locate credentials"):
            read(path)
    # As if the package were not installed.
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(UserError, match=r"s3://bucket/a\.txt cannot be read: Install s3fs to access S3"):
        read("s3://bucket/a.txt")
    with pytest.raises(UserError, match=r"nosuch://a\.txt cannot be read: Protocol not known: nosuch$"):
        read("nosuch://a.txt")
    with pytest.raises(UserError, match="a URL with a password in it") as caught:
        CorpusSource(path="s3://me:hunter2@bucket/a.txt")
    assert "hunter2" not in str(caught.value)


def test_no_file_or_a_folder_without_texts(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file matches path '.*nothing-\*\.txt'"):
        read(tmp_path / "nothing-*.txt")
    (tmp_path / "notes.md").write_text("нет\n")
    with pytest.raises(UserError, match=r"no file matches path '"):
        read(tmp_path)


def test_a_text_without_end_is_refused_before_it_fills_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "MAXIMAL_TEXT_BYTES", 1000)
    (tmp_path / "line.txt").write_text("да " * 1000)
    with pytest.raises(UserError, match=r"line\.txt:1: a line of more than 1000 bytes"):
        read(tmp_path / "line.txt")
    (tmp_path / "lines.txt").write_text("да да да\n" * 1000)
    with pytest.raises(UserError, match=r"lines\.txt:126: no blank line in 1008 characters; set documents: lines"):
        read(tmp_path / "lines.txt", documents="blank-line")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "exactly one of the two"),
        ({"path": "a.txt", "dataset": "me/talk"}, "exactly one of the two"),
        ({"path": "a.txt", "revision": "main", "streaming": True}, "revision, streaming: not for a path"),
        ({"dataset": "me/talk", "documents": "blank-line"}, "documents: not for a dataset"),
        ({"path": "a.txt", "weight": 0}, "greater than 0"),
    ],
)
def test_settings_that_contradict_each_other(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        CorpusSource(**settings)


@pytest.mark.parametrize("place", [{"path": "a.txt"}, {"dataset": "me/talk"}])
def test_settings_written_out_in_full_are_read_in_again(place: dict[str, str]) -> None:
    source = CorpusSource(**place)
    assert CorpusSource(**source.model_dump()) == source


def test_what_decides_a_source_is_known_without_loading_a_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources.datasets, "load_dataset", lambda *_, **__: pytest.fail("loaded"))
    asked = {"dataset": "me/talk", "config": None, "revision": "v1", "split": "train"}
    assert identities_of(CorpusSource(dataset="me/talk", revision="v1")) == [asked]
    for name in ("b.txt", "a.txt"):
        (tmp_path / name).write_bytes(as_txt(TEXTS))
    found = identities_of(CorpusSource(path=str(tmp_path / "*.txt")))
    assert [identity["name"] for identity in found] == ["a.txt", "b.txt"]
    with pytest.raises(UserError, match="no file matches"):
        identities_of(CorpusSource(path=str(tmp_path / "*.csv")))


HUB_SCRIPT = """
import json, sys
from distilrubert.distill.corpus.sources import iterate_texts
from distilrubert.distill.corpus.corpus_settings import CorpusSource
from distilrubert.common.errors import UserError
for settings in json.loads(sys.argv[1]):
    try:
        print(json.dumps(list(iterate_texts([CorpusSource(**settings)]))))
    except UserError as error:
        print(json.dumps(str(error)))
"""


def read_from_hub(home: Path, sources: list[dict[str, Any]], **environment: str) -> list[Any]:
    """In a process of its own, since the client reads its environment when it is imported."""
    environment = {**os.environ, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", **environment}
    command = [sys.executable, "-c", HUB_SCRIPT, json.dumps(sources)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_a_data_set_of_the_hub(tmp_path: Path) -> None:
    sources: list[dict[str, Any]] = [
        {"dataset": "me/talk", "streaming": True},
        {"dataset": "me/talk"},
        {"dataset": "me/talk", "column": "body"},
        {"dataset": "me/talk", "column": "id"},
        {"dataset": "me/talk", "split": "test"},
        {"dataset": "me/other"},
    ]
    with DatasetHub([{"id": n, "text": text} for n, text in enumerate(TEXTS)]) as hub:
        streamed, downloaded, *errors = read_from_hub(tmp_path, sources, HF_ENDPOINT=hub.endpoint)
        [prepared] = tmp_path.glob("datasets/**/*.arrow")
        before = prepared.stat()
        [again] = read_from_hub(tmp_path, [{"dataset": "me/talk"}], HF_ENDPOINT=hub.endpoint)
    assert streamed == downloaded == again == TEXTS
    # It is prepared once.
    assert (prepared.stat().st_ino, prepared.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    expected = [
        "me/talk: no column 'body'; there are id, text",
        "me/talk: column 'id' holds int; text is needed",
        "corpus: dataset 'me/talk' cannot be read: Unknown split \"test\"",
        "corpus: dataset 'me/other' cannot be read: Dataset 'me/other' doesn't exist on the Hub",
    ]
    for error, beginning in zip(errors, expected, strict=True):
        assert error.startswith(beginning)


@pytest.mark.slow
def test_a_hub_out_of_reach(tmp_path: Path) -> None:
    [error] = read_from_hub(tmp_path, [{"dataset": "me/talk"}], HF_HUB_OFFLINE="1")
    assert error.startswith("corpus: dataset 'me/talk' cannot be read: Couldn't reach")


def test_a_token_that_the_hub_quotes_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    token = "hf_" + "A" * 34

    def load_dataset(*_: Any, **__: Any) -> None:
        raise ConnectionError(f"401: invalid token {token}")

    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    with pytest.raises(UserError, match=r"invalid token \*\*\*") as caught:
        next(iterate_texts([CorpusSource(dataset="me/talk")]))
    assert token not in "".join(traceback.format_exception(caught.value))
