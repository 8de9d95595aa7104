"""Files and folders that appear whole or not at all: write beside, fsync, rename.

A process that is killed in mid-write leaves its work under a hidden name beside the target; the next write of the
same target sweeps such leftovers away once they are a day old, when no living writer can still be at them.
"""

import contextlib
import errno
import glob
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from distilrubert.common.errors import UserError

LEFTOVER_AGE_S = 24 * 60 * 60


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a path beside `path` to write to; it takes the place of `path` when the block ends well.

    Raises:
        UserError: if the folder cannot be written or the disk is full; `path` is then as it was.
    """
    path = Path(path)
    beside = _beside(path)
    with clear_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield beside
            assert beside.is_file(), f"nothing was written to {beside}"
            _sync(beside)
            beside.replace(path)
            _sync(path.parent)
            remove_leftovers(path, LEFTOVER_AGE_S)
        finally:
            beside.unlink(missing_ok=True)


def check_output_folder(output: Path, *, is_ours: bool = False) -> None:
    """Refuse a folder to write, the option ``--output``, before any work.

    Args:
        output: the folder.
        is_ours: whether what is in it was written by the same command, which replaces it.

    Raises:
        UserError: if it is the current folder, holds something else, or cannot be made.
    """
    if output.resolve() == Path.cwd():
        raise UserError("--output: is the current folder; name a new one")
    if output.exists() and not is_ours and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"--output {output}: exists; name a new folder")
    check_writable(output)


def check_writable(output: Path) -> None:
    """Refuse a path to write, the option ``--output``, that is in no folder that can be written to.

    Raises:
        UserError: as said.
    """
    above = next(folder for folder in output.absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise UserError(f"--output {output}: cannot be written: {above} is no folder that can be written to")


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a new folder beside `path` to fill; it takes the place of `path` when the block ends well.

    Where `path` is a link, that of the folder which it leads to: it may be on another disk for its size.

    Raises:
        UserError: if the parent folder cannot be written or the disk is full; `path` is then as it was.
    """
    path = Path(path)
    path = path.resolve() if path.is_symlink() else path
    beside = _beside(path)
    with clear_write_errors(path):
        try:
            beside.mkdir(parents=True)
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
        if not target.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(target))
        old = _beside(target)
        try:
            target.rename(old)
            source.rename(target)
        except BaseException:
            if not target.exists():
                old.rename(target)
            raise
        _remove(old)
    else:
        source.rename(target)
    _sync(target.parent)
    remove_leftovers(target, LEFTOVER_AGE_S)


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
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise UserError(f"{path}: is no JSON: {error}") from error


def sha256_of(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _beside(path: Path) -> Path:
    # The leading dot keeps a folder left by a SIGKILL out of every `checkpoint-*` or `*.onnx` listing.
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")


def remove_leftovers(path: Path, age_s: float = 0.0) -> None:
    """Remove what killed writers of `path` have left beside it; for a caller who knows that no other one is alive.

    Until `path` is complete, a hidden folder may be the one copy there is of what it replaces.

    Args:
        path: of a file or folder that was to appear whole.
        age_s: only what is older.
    """
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.????????.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - leftover.lstat().st_mtime >= age_s:
                _remove(leftover)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def clear_write_errors(path: Path) -> Iterator[None]:
    """Raise a UserError that `path` cannot be written in place of errors of writing; it names the file if another."""
    try:
        yield
    except OSError as error:
        # NumPy only says how much of an array it has written.
        reason = error.strerror or f"{error}; is the disk full?"
        if error.filename and not _is_near(Path(str(error.filename)), path):
            reason = f"{error.filename!s}: {reason}"
        raise UserError(f"{path}: cannot be written: {reason}") from error
    # The writers of safetensors and torch report a full disk as errors of their own.
    except (SafetensorError, RuntimeError) as error:
        if not any(sign in str(error) for sign in ("I/O error", "PytorchStreamWriter", "unexpected pos")):
            raise
        raise UserError(f"{path}: cannot be written: {error}") from error


def _is_near(found: Path, path: Path) -> bool:
    """Whether `found` is the target, what is written beside it, or a folder above it."""
    hidden = f".{path.name}."
    return found in (path, *path.parents) or any(part.name.startswith(hidden) for part in (found, *found.parents))
