"""What went wrong in a request to the Hub: the kind of failure, and words that are safe to print.

Downloads and publishing give different advice, so the advice is not here.
"""

import contextlib
import importlib
import json
from collections.abc import Iterator
from typing import Any

import huggingface_hub
from huggingface_hub.errors import FileMetadataError, HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

from distilrubert.common.errors import UserError, printable

LONGEST_MESSAGE = 300


def _connection_errors() -> tuple[type[BaseException], ...]:
    """What the client's HTTP library raises: requests below 1.0, httpx from 1.0, httpx2 from 2.0; base classes."""
    found: list[type[BaseException]] = [ConnectionError, TimeoutError]
    with contextlib.suppress(ImportError):
        import requests

        found += [requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError]
    for name in ("httpx", "httpx2"):
        with contextlib.suppress(ImportError):
            found += [importlib.import_module(name).TransportError]
    return tuple(found)


CONNECTION_ERRORS = _connection_errors()


def token_in_use() -> str | None:
    """The token that the client sends: HF_TOKEN, or the login that `hf auth login` stored; None without either.

    Raises:
        UserError: if it cannot be a token.
    """
    token = huggingface_hub.get_token()
    if token and (not token.isascii() or not token.isprintable() or " " in token):
        raise UserError(
            "HF_TOKEN: holds characters that no token has; copy it again, without quotes or blanks around it"
        )
    return token


def chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was raised from: the client wraps what failed in errors of its own."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def status_of(error: BaseException) -> int | None:
    """The HTTP status that the server answered with, None where there was no answer."""
    response = response_of(error)
    return None if response is None else int(response.status_code)


def response_of(error: BaseException) -> Any:
    """The answer of a server that refused the request; of requests or httpx."""
    for link in chain(error):
        if isinstance(link, HfHubHTTPError) and link.response is not None:
            return link.response
    return None


def is_offline(error: BaseException) -> bool:
    """Whether the client was told not to use the network."""
    return any(isinstance(link, OfflineModeIsEnabled) for link in chain(error))


def is_connection_error(error: BaseException) -> bool:
    """Whether the Hub was not reached, or went away in the middle."""
    return any(isinstance(link, CONNECTION_ERRORS) or _is_lost_session(link) for link in chain(error))


def _is_lost_session(error: BaseException) -> bool:
    """Whether the client has closed the session that all of its threads share, as one of them lost the connection.

    From 1.0 on another thread may then find None where the session was (seen with 2.4).
    """
    return isinstance(error, AttributeError) and error.obj is None and error.name in {"request", "stream"}


def is_broken_transfer(error: BaseException) -> bool:
    """Whether moving a large file failed, by LFS or Xet: either raises RuntimeError."""
    return any(isinstance(link, RuntimeError) for link in chain(error))


def is_invalid_answer(error: BaseException) -> bool:
    """Whether something is missing from an answer, as when it was cut off, or when a server is not a Hub."""
    # The client reads fields and headers by their names, and lets the KeyError of a missing one through.
    invalid = (json.JSONDecodeError, KeyError, FileMetadataError, LocalEntryNotFoundError)
    return any(isinstance(link, invalid) for link in chain(error))


def is_not_a_hub(error: BaseException) -> bool:
    """Whether a web page came in place of an answer, or an address is missing that every Hub has."""
    response = response_of(error)
    if response is not None:
        # A Hub says with a code what it has not found. The addresses of a storage are none of its API.
        is_unknown = response.status_code in (404, 405, 501) and "X-Error-Code" not in response.headers
        return is_unknown and "/api/" in str(response.url)
    return any(isinstance(link, json.JSONDecodeError) and link.doc.lstrip()[:1] == "<" for link in chain(error))


def server_message(error: BaseException, token: str | None) -> str:
    """The server's own words in brackets, to be put behind ours; empty where it said nothing."""
    for link in chain(error):
        if isinstance(link, HfHubHTTPError) and (said := clean(link.server_message or "", token)):
            return f" ({said})"
    return ""


def cause(error: BaseException, token: str | None) -> str:
    """The innermost reason in a few words, for example "Connection refused"."""
    *_, innermost = chain(error)
    if isinstance(innermost, OSError) and innermost.strerror:
        return clean(innermost.strerror, token)
    return clean(f"{type(innermost).__name__}: {innermost}", token).removesuffix(": ")


def clean(text: str, token: str | None) -> str:
    """Another's words as one short line, without the token and control characters, which could drive a terminal."""
    # The token goes first: shortened, it would no longer be found.
    line = printable(" ".join(redact(text, token).split()))
    return line if len(line) <= LONGEST_MESSAGE else line[:LONGEST_MESSAGE] + "…"


def redact(text: str, token: str | None) -> str:
    """The text with ``***`` in place of the token."""
    return text.replace(token, "***") if token else text
