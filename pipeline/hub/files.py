"""The files of a folder and of a repository, by their content."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub.hf_api import RepoFile

from distilrubert.common.errors import UserError
from distilrubert.pipeline.terminal import format_size

BLOCK_SIZE = 2**20
# Left by the client's downloads, by git and by file managers; never part of a model.
IGNORED_NAMES = frozenset({".cache", ".DS_Store", ".git", "__pycache__"})
# Made by the Hub when it makes a repository; not ours to delete.
HUB_FILES = frozenset({".gitattributes"})


@dataclasses.dataclass(frozen=True)
class FileDigest:
    """The content of a file, as the Hub identifies it.

    Attributes:
        size: bytes.
        git_sha1: git's id of its content, by which the Hub knows regular files.
        sha256: of its content, by which the Hub knows large files.
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
    """The files of :func:`local_files`, not yet read; and links to folders, which cannot be published."""
    if not folder.is_dir():
        raise UserError(f"{folder}: is not a folder; a folder that `publish.py RECIPE` has made is needed")
    return sorted(
        path
        for path in folder.rglob("*")
        if (path.is_symlink() or not path.is_dir()) and not IGNORED_NAMES.intersection(path.relative_to(folder).parts)
    )


class ModelFolder:
    """A folder that is about to be published, as the checks read it.

    Attributes:
        root: the folder.
        paths: its files, relative, with forward slashes, sorted.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.paths = [path.relative_to(root).as_posix() for path in list_files(root)]

    def __contains__(self, path: str) -> bool:
        return path in self.paths

    def __truediv__(self, path: str) -> Path:
        return self.root / path

    def ending(self, *suffixes: str) -> list[str]:
        """The files whose names end with one of the suffixes."""
        return [path for path in self.paths if path.endswith(suffixes)]

    def json(self, path: str) -> Any:
        """The content of a JSON file; None where it is missing or broken, which another check reports."""
        try:
            return json.loads((self / path).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def json_object(self, path: str) -> dict[str, Any]:
        """The content of a JSON file with an object; empty where it is missing, broken, or something else."""
        value = self.json(path)
        return value if isinstance(value, dict) else {}


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
    """The paths that are missing from the repository, or whose content is another one there."""
    return [path for path, digest in local.items() if path not in remote or not digest.matches(remote[path])]


def require_model(folder: Path) -> None:
    """Refuse what is no folder with a model.

    Raises:
        UserError: if it is none; a run directory is told where its model is.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder")
    if not (folder / "config.json").is_file():
        if (folder / "hub" / "config.json").is_file():
            raise UserError(f"{folder}: is a run directory; name the model repository in it: {folder / 'hub'}")
        raise UserError(f"{folder}: holds no model: there is no config.json")


def render_folder(folder: Path) -> str:
    """The files of a folder for a person, one line each.

    Raises:
        UserError: as :func:`local_files`.
    """
    sizes = {path: digest.size for path, digest in local_files(folder).items()}
    width = max(map(len, sizes))
    lines = [f"{folder}: {len(sizes)} files, {format_size(sum(sizes.values()))}"]
    return "\n".join(lines + [f"    {path:<{width}}  {format_size(size):>10}" for path, size in sizes.items()])


def folder_as_json(folder: Path) -> dict[str, Any]:
    """The same for machines: the folder, and size and SHA-256 of each of its files."""
    found = local_files(folder).items()
    files = [{"path": path, "bytes": digest.size, "sha256": digest.sha256} for path, digest in found]
    return {"folder": str(folder), "files": files}
