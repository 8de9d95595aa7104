"""Xet storage, as far as uploading needs it: clients from 1.x on use it wherever hf_xet is installed.

The formats are those of huggingface.co/docs/xet: a xorb is a run of chunks, a shard says of which chunks a file is.
Whatever is newer than that (upload grants, shards v2) is answered with 404, upon which hf_xet 1.8 takes the old way.
"""

import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from .routing import API, REVISION, find_writable, route
from .storage import Refusal
from .wire import Request, Response

if TYPE_CHECKING:
    from .server import LocalHub

RECORD = 48
WITH_VERIFICATION, WITH_METADATA = 0x80000000, 0x40000000
BOOKEND = b"\xff" * 32
NO_COMPRESSION, LZ4, GROUPED_LZ4 = range(3)


@route("GET", f"{API}/xet-write-token/{REVISION}")
def write_token(hub: "LocalHub", request: Request, repo: str, revision: str) -> Response:
    if not hub.has_xet:
        raise Refusal(404, "Xet is not enabled for this repository")
    find_writable(hub, request, repo, pull_request="create_pr" in request.query)
    expires = int(time.time()) + 3600
    url = f"{hub.storage_endpoint}/cas"
    return Response.json(
        {"accessToken": "xet", "exp": expires, "casUrl": url},
        headers={"X-Xet-Cas-Url": url, "X-Xet-Access-Token": "xet", "X-Xet-Token-Expiration": str(expires)},
    )


@route("POST", "/cas/v1/xorbs/default/(?P<xorb>[0-9a-f]{64})")
def upload_xorb(hub: "LocalHub", request: Request, xorb: str) -> Response:
    path = hub.storage.large_files.folder / f"xorb-{xorb}"
    is_new = not path.exists()
    incoming = hub.storage.large_files.scratch()
    with incoming.open("wb") as file:
        for block in request.body:
            file.write(block)
    incoming.replace(path)
    hub.uploads.append(f"xorb-{xorb}")
    return Response.json({"was_inserted": is_new})


@route("POST", "/cas/v1/shards")
def upload_shard(hub: "LocalHub", request: Request) -> Response:
    files = hub.storage.large_files
    for sha256, segments in read_shard(request.body.read_all()):
        incoming = files.scratch()
        with incoming.open("wb") as target:
            for xorb, first, last in segments:
                path = files.folder / f"xorb-{xorb}"
                if not path.exists():
                    raise Refusal(400, f"There is no xorb {xorb}")
                target.writelines(read_chunks(path, first, last))
        files.keep(incoming, sha256)
    return Response.json({"result": 1})


@route("POST", "/v1/telemetry")
def telemetry(hub: "LocalHub", request: Request) -> Response:
    return Response.json({})


def read_shard(data: bytes) -> Iterator[tuple[str, list[tuple[str, int, int]]]]:
    """Each file's SHA-256 and where its chunks are: xorb, first chunk, chunk after the last."""
    position = RECORD
    while (header := data[position : position + RECORD])[:32] != BOOKEND:
        flags, count = struct.unpack_from("<II", header, 32)
        position += RECORD
        segments = []
        for _ in range(count):
            first, last = struct.unpack_from("<II", data, position + 40)
            segments.append((hexadecimal(data[position : position + 32]), first, last))
            position += RECORD
        if flags & WITH_VERIFICATION:
            position += RECORD * count
        assert flags & WITH_METADATA, "clients of the Hub always say the SHA-256"
        yield hexadecimal(data[position : position + 32]), segments
        position += RECORD


def hexadecimal(digest: bytes) -> str:
    """Xet writes a hash as four little-endian numbers."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", digest))


def read_chunks(xorb: Path, first: int, last: int) -> Iterator[bytes]:
    """The plain bytes of some chunks of a xorb."""
    with xorb.open("rb") as file:
        for index in range(last):
            header = file.read(8)
            packed, scheme = int.from_bytes(header[1:4], "little"), header[4]
            size = int.from_bytes(header[5:8], "little")
            data = file.read(packed)
            if index >= first:
                yield unpack(data, scheme, size)


def unpack(data: bytes, scheme: int, size: int) -> bytes:
    if scheme == NO_COMPRESSION:
        return data
    import pyarrow

    plain = pyarrow.decompress(data, decompressed_size=size, codec="lz4", asbytes=True)
    return ungroup(plain) if scheme == GROUPED_LZ4 else plain


def ungroup(data: bytes) -> bytes:
    """Undo the grouping of every fourth byte, which makes floating-point numbers compress better."""
    plain = bytearray(len(data))
    start = 0
    for offset in range(4):
        count = len(plain[offset::4])
        plain[offset::4] = data[start : start + count]
        start += count
    return bytes(plain)
