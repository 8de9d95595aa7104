"""Files and folders that appear whole or not at all: write beside, fsync, rename."""

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distilrubert.modeling.errors import UserError


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a path beside `path` to write to; it takes the place of `path` when the block ends well.

    Raises:
        UserError: if the folder cannot be written or the disk is full; `path` is then as it was.
    """
    path = Path(path)
    beside = _beside(path)
    with _clear_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield beside
            _sync(beside)
            beside.replace(path)
            _sync(path.parent)
        finally:
            beside.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a new folder beside `path` to fill; it takes the place of `path` when the block ends well.

    Raises:
        UserError: if the parent folder cannot be written or the disk is full; `path` is then as it was.
    """
    path = Path(path)
    beside = _beside(path)
    with _clear_write_errors(path):
        beside.mkdir(parents=True)
        try:
            yield beside
            for entry in sorted(beside.rglob("*"), reverse=True):
                _sync(entry)
            _sync(beside)
            replace_folder(beside, path)
        finally:
            shutil.rmtree(beside, ignore_errors=True)


def replace_folder(source: Path, target: Path) -> None:
    """Rename the complete folder `source` to `target`, moving an existing `target` out of the way first."""
    if target.exists():
        old = _beside(target)
        target.rename(old)
        source.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    else:
        source.rename(target)
    _sync(target.parent)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with atomic_file(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` as indented JSON with a closing newline, atomically. NaN and infinity are refused."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file.

    Raises:
        UserError: if the file is missing or is no JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: cannot be read as JSON: {error}") from error


def sha256_of(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _beside(path: Path) -> Path:
    # The leading dot keeps a folder left by a SIGKILL out of every `checkpoint-*` or `*.onnx` listing.
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _clear_write_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error
