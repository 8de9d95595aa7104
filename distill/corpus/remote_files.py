"""Files on the file systems of fsspec, by their URL: ``s3://``, ``gs://``, ``hf://`` and others."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import IO, Any

import fsspec
from fsspec.core import has_magic

from distilrubert.common.errors import UserError
from distilrubert.common.hub_failures import clean, token_in_use

# What file systems call the state of a file's content, the surest first.
_VERSIONS = ("sha256", "ETag", "etag", "md5Hash", "crc32c", "blob_id", "LastModified", "mtime", "created")


@dataclass
class RemoteFile:
    """One file of a file system of fsspec.

    Attributes:
        fs: the file system.
        path: what the file is called there.
    """

    fs: Any
    path: str

    def __str__(self) -> str:
        return str(self.fs.unstrip_protocol(self.path))

    @property
    def suffixes(self) -> list[str]:
        """The endings of its name, as those of a path."""
        return PurePosixPath(self.path).suffixes

    @cached_property
    def content(self) -> dict[str, Any]:
        """Name, length in bytes, and the state of the content as far as the file system tells it without reading.

        Raises:
            UserError: if the file system cannot be asked.
        """
        with clear_remote_errors(str(self)):
            status = self.fs.info(self.path)
        version = next((str(status[key]) for key in _VERSIONS if status.get(key)), None)
        return {"name": PurePosixPath(self.path).name, "bytes": int(status.get("size") or 0), "version": version}

    def open(self) -> IO[bytes]:
        """Its content, to be read."""
        opened: IO[bytes] = self.fs.open(self.path, "rb")
        return opened


def matching_remote_files(url: str, texts_in: Callable[[Iterable[str]], list[str]]) -> list[RemoteFile]:
    """The files that match a URL with wildcards, the file that it names, or those below a folder, in order.

    Args:
        url: where they are.
        texts_in: chooses and sorts the names in a folder.

    Raises:
        UserError: if there is none, the file system's package is not installed, or the file system cannot be asked.
    """
    with clear_remote_errors(url):
        fs, path = fsspec.core.url_to_fs(url)
        # What this process has listed before may have changed.
        fs.invalidate_cache()
        if has_magic(path):
            names = sorted(name for name in fs.glob(path) if not fs.isdir(name))
        elif fs.isdir(path):
            names = [f"{path}/{name}" for name in texts_in(name[len(path) :].lstrip("/") for name in fs.find(path))]
        else:
            fs.info(path)
            names = [path]
    if not names:
        raise UserError(f"corpus: no file matches path {url!r}")
    return [RemoteFile(fs, name) for name in names]


@contextmanager
def clear_remote_errors(url: str) -> Iterator[None]:
    """Turn whatever a file system raises into one line that names the URL and no secret.

    The errors of the clients of object stores have no common base.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        said = clean(str(error) or type(error).__name__, token_in_use())
        is_no_question = isinstance(error, ImportError | FileNotFoundError | ValueError)
        advice = "" if is_no_question else "; credentials come from the environment"
        # Not from the error: a traceback would show what is taken out here.
        raise UserError(f"corpus: {url} cannot be read: {said}{advice}") from None
