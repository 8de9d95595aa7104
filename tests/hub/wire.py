"""Requests and responses of the local Hub, as plain values between the sockets and the routes."""

import dataclasses
import json
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol


class Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


class Body:
    """The body of a request, read as it arrives; plain or chunked."""

    def __init__(self, source: Any, headers: Mapping[str, str]) -> None:
        self._source = source
        self._chunked = "chunked" in headers.get("Transfer-Encoding", "").lower()
        self._left = int(headers.get("Content-Length") or 0)
        self._blocks = self._read_chunks() if self._chunked else self._read_plain()

    def __iter__(self) -> Iterator[bytes]:
        return self._blocks

    def read_all(self) -> bytes:
        return b"".join(self._blocks)

    def _read_plain(self) -> Iterator[bytes]:
        while self._left:
            block = self._source.read(min(self._left, 2**20))
            if not block:
                raise ConnectionError("the client went away in the middle of a body")
            self._left -= len(block)
            yield block

    def _read_chunks(self) -> Iterator[bytes]:
        while size := int(self._source.readline().split(b";")[0] or b"0", 16):
            yield self._source.read(size)
            self._source.readline()
        self._source.readline()


@dataclasses.dataclass
class Request:
    method: str
    target: str
    headers: Mapping[str, str]
    body: Body

    @property
    def path(self) -> str:
        """Still percent-encoded, so that a slash inside a revision stays apart from one between segments."""
        return urllib.parse.urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        return dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.target).query))

    @property
    def token(self) -> str | None:
        kind, _, token = self.headers.get("Authorization", "").partition(" ")
        return token if kind.lower() == "bearer" and token else None

    def json(self) -> Any:
        return json.loads(self.body.read_all())

    def form(self) -> dict[str, list[str]]:
        return urllib.parse.parse_qs(self.body.read_all().decode())


@dataclasses.dataclass
class Response:
    """An answer; a body on disk is sent in pieces, `part` being its first byte and the byte after its last."""

    status: int = 200
    body: bytes | Path = b""
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    part: tuple[int, int] | None = None

    @classmethod
    def json(cls, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> "Response":
        return cls(
            status, json.dumps(value).encode(), {"Content-Type": "application/json; charset=utf-8", **(headers or {})}
        )

    @property
    def length(self) -> int:
        start, end = self.bounds
        return end - start

    @property
    def bounds(self) -> tuple[int, int]:
        whole = len(self.body) if isinstance(self.body, bytes) else self.body.stat().st_size
        return self.part or (0, whole)

    def blocks(self) -> Iterator[bytes]:
        start, end = self.bounds
        if isinstance(self.body, bytes):
            yield self.body[start:end]
            return
        with self.body.open("rb") as file:
            file.seek(start)
            while start < end and (block := file.read(min(2**20, end - start))):
                start += len(block)
                yield block
