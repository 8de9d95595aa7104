"""What a file holds decides; its time of change only spares reading it."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from distilrubert.common import contents
from distilrubert.common.contents import content_of, recall, remember
from distilrubert.common.errors import UserError

LONG_AGO = 1_500_000_000 * 10**9


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a new process."""
    monkeypatch.setattr(contents, "_known", {})
    monkeypatch.setattr(contents, "_recalled", {})


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read to be hashed."""
    read: list[Path] = []
    plain = contents.sha256_of
    monkeypatch.setattr(contents, "sha256_of", lambda path: read.append(path) or plain(path))
    return read


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.txt"
    path.write_bytes(b"abc")
    os.utime(path, ns=(LONG_AGO, LONG_AGO))
    return path


def test_it_is_name_length_and_hash(file: Path) -> None:
    assert content_of(file) == {"name": "a.txt", "bytes": 3, "sha256": hashlib.sha256(b"abc").hexdigest()}


def test_a_copy_that_is_touched_holds_the_same(file: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    copy = Path(shutil.copy(file, tmp_path / "elsewhere"))
    assert copy.stat().st_mtime_ns != file.stat().st_mtime_ns
    assert content_of(copy) == content_of(file)


def test_an_unchanged_file_is_read_once_also_by_later_processes(
    file: Path, tmp_path: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = content_of(file)
    assert content_of(file) == first
    remember(tmp_path / "run" / "contents.json")
    monkeypatch.setattr(contents, "_known", {})
    recall(tmp_path / "run" / "contents.json")
    recall(tmp_path / "none.json")
    assert content_of(file) == first
    assert reads == [file]
    # What was recalled and asked for is remembered again.
    remember(tmp_path / "again.json")
    assert list(json.loads((tmp_path / "again.json").read_text())) == [str(file)]


@pytest.mark.parametrize("text", [b"abcd", b"xyz"])
def test_another_length_or_time_is_looked_into(file: Path, text: bytes, reads: list[Path]) -> None:
    before = content_of(file)
    file.write_bytes(text)
    os.utime(file, ns=(LONG_AGO, LONG_AGO + (len(text) == 3)))
    assert content_of(file)["sha256"] == hashlib.sha256(text).hexdigest() != before["sha256"]
    assert len(reads) == 2


def test_a_file_that_was_written_just_now_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be written again at what the file system's clock takes for the same moment."""
    monkeypatch.setattr(contents, "SETTLED_NS", 3600 * 10**9)
    path = tmp_path / "new.txt"
    path.write_bytes(b"abc")
    status = path.stat()
    before = content_of(path)
    path.write_bytes(b"xyz")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert content_of(path) != before


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.txt: cannot be read: No such file"):
        content_of(tmp_path / "none.txt")
