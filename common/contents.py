"""The content of files, by their SHA-256: it stays the same where a file is copied, moved, touched or checked out anew.

A hash is remembered with the file's size and time of change. As long as these are the same, the file is not read again.
"""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distilrubert.common.errors import UserError
from distilrubert.common.persistence import read_json, sha256_of, write_json

logger = logging.getLogger(__name__)

# What changed just now can change again without a difference in its time: clocks of file systems are that coarse.
SETTLED_NS = 2 * 10**9
LARGE_BYTES = 2**30

# The files of a folder that decide what a model reads, and what it computes; a README or a picture does not.
READING_FILES = (
    "config.json", "tokenizer*.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt", "vocab.json",
    "merges.txt", "*.model",
)  # fmt: skip
MODEL_FILES = (*READING_FILES, "*.safetensors", "pytorch_model*.bin")

# By path: size, time of change in ns, hash.
_known: dict[str, list[Any]] = {}
_recalled: dict[str, list[Any]] = {}


def content_of(path: Path) -> dict[str, Any]:
    """Name, length in bytes and SHA-256 of a file; the folders that it lies in are left out.

    Raises:
        UserError: if it cannot be read.
    """
    key, now = str(path.absolute()), time.time_ns()
    try:
        status = path.stat()
        seen = [status.st_size, status.st_mtime_ns]
        known = _known.get(key) or _recalled.get(key)
        if known is None or known[:2] != seen:
            if status.st_size > LARGE_BYTES:
                logger.info("%s: reading %.1f GB to see what is in it", path, status.st_size / 1e9)
            known = [*seen, sha256_of(path)]
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    if abs(now - status.st_mtime_ns) > SETTLED_NS:
        _known[key] = known
    return {"name": path.name, "bytes": status.st_size, "sha256": known[2]}


def model_contents(folder: Path, patterns: Sequence[str] = MODEL_FILES) -> list[dict[str, Any]]:
    """:func:`content_of` each file of a model, in the order of their names.

    Raises:
        UserError: if one cannot be read.
    """
    return [content_of(path) for path in sorted({path for pattern in patterns for path in folder.glob(pattern)})]


def recall(memory: Path) -> None:
    """Take over what :func:`remember` wrote, if there is such a file.

    Raises:
        UserError: if it is no JSON.
    """
    if memory.is_file():
        _recalled.update(read_json(memory))


def remember(memory: Path) -> None:
    """Write the hashes that were asked for in this process, for later ones."""
    write_json(memory, _known)
