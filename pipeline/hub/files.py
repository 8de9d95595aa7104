"""The files of a folder and of a repository, by what they hold."""

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub.hf_api import RepoFile

from distilrubert.common.errors import UserError

BLOCK_SIZE = 2**20
# Left by the client's downloads, by git and by file managers; never part of a model.
IGNORED_NAMES = frozenset({".cache", ".DS_Store", ".git", "__pycache__"})
# Made by the Hub when it makes a repository; not ours to delete.
HUB_FILES = frozenset({".gitattributes"})


@dataclasses.dataclass(frozen=True)
class FileDigest:
    """What a file holds, in the terms of the Hub.

    Attributes:
        size: bytes.
        git_sha1: the id that git gives its content; the Hub tells it for regular files.
        sha256: of its content; the Hub tells it for large files.
    """

    size: int
    git_sha1: str
    sha256: str

    def matches(self, remote: RepoFile) -> bool:
        """Whether the repository's file holds the same bytes."""
        if remote.lfs is not None:
            return bool(remote.lfs.sha256 == self.sha256)
        return bool(remote.blob_id == self.git_sha1)


def local_files(folder: Path) -> dict[str, FileDigest]:
    """All files below a folder that would be published, by their path in the repository, in sorted order.

    Raises:
        UserError: if the folder is missing, empty, or holds what cannot be read.
    """
    paths = list_files(folder)
    if not paths:
        raise UserError(f"{folder}: holds no files to publish")
    try:
        return {path.relative_to(folder).as_posix(): digest_of(path) for path in paths}
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read: {error.strerror}") from error


def list_files(folder: Path) -> list[Path]:
    """The files of :func:`local_files`, not yet read."""
    if not folder.is_dir():
        raise UserError(f"{folder}: is no folder; run the stages first or give --run-dir")
    return sorted(
        path
        for path in folder.rglob("*")
        if not path.is_dir() and not IGNORED_NAMES.intersection(path.relative_to(folder).parts)
    )


def digest_of(path: Path) -> FileDigest:
    """Read a file once, in blocks, for both digests."""
    size = path.stat().st_size
    git_sha1 = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    sha256 = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK_SIZE):
            git_sha1.update(block)
            sha256.update(block)
    return FileDigest(size, git_sha1.hexdigest(), sha256.hexdigest())


def differing_files(local: Mapping[str, FileDigest], remote: Mapping[str, RepoFile]) -> list[str]:
    """The paths whose content the repository lacks or holds differently."""
    return [path for path, digest in local.items() if path not in remote or not digest.matches(remote[path])]


def format_size(size: int) -> str:
    """Bytes as a person reads them, in binary units."""
    value = float(size)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"
