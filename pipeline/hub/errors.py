"""What a failed request means: whether to try again, and one line that says what to do."""

import contextlib
import importlib
import json
import re
from collections.abc import Iterator

from huggingface_hub.errors import (
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from distilrubert.modeling.errors import UserError

TRANSIENT_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
# 409 and 412 answer a commit whose parent is no longer the head.
CONFLICT_STATUSES = frozenset({409, 412})
LONGEST_SERVER_MESSAGE = 300
# How the client's ValueError begins when the Hub's validate-yaml refuses a card.
INVALID_CARD = "Invalid metadata in README.md."


def _connection_errors() -> tuple[type[BaseException], ...]:
    """The base classes that the client's HTTP library raises: requests below 1.0, httpx from there, httpx2 from 2.0."""
    found: list[type[BaseException]] = [ConnectionError, TimeoutError]
    with contextlib.suppress(ImportError):
        import requests

        found += [requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError]
    for name in ("httpx", "httpx2"):
        with contextlib.suppress(ImportError):
            found += [importlib.import_module(name).TransportError]
    return tuple(found)


CONNECTION_ERRORS = _connection_errors()


def chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was raised from; the client wraps a failed upload in a RuntimeError."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def status_of(error: BaseException) -> int | None:
    """The HTTP status that the server answered with, None where there was no answer."""
    for link in chain(error):
        if isinstance(link, HfHubHTTPError) and link.response is not None:
            return int(link.response.status_code)
    return None


def is_offline(error: BaseException) -> bool:
    """Whether the client was told not to use the network."""
    return any(isinstance(link, OfflineModeIsEnabled) for link in chain(error))


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed a little later."""
    if is_offline(error):
        return False
    status = status_of(error)
    if status is not None and not _is_broken_upload(error):
        return status in TRANSIENT_STATUSES
    return is_connection_error(error) or _is_broken_upload(error) or _is_senseless_answer(error)


def is_connection_error(error: BaseException) -> bool:
    """Whether the Hub was not reached, or went away in the middle."""
    return any(isinstance(link, CONNECTION_ERRORS) or _is_lost_session(link) for link in chain(error))


def _is_lost_session(error: BaseException) -> bool:
    """Whether the client has closed the session that all of its threads share, as one of them lost the connection.

    From 1.0 on another thread may then find None where the session was (seen with 2.4).
    """
    return isinstance(error, AttributeError) and error.obj is None and error.name in {"request", "stream"}


def _is_broken_upload(error: BaseException) -> bool:
    """Whether sending a large file failed, by LFS or Xet: either raises RuntimeError.

    Another attempt is always worth while, even after a refusal: it gets new addresses, and skips what has arrived.
    """
    return any(isinstance(link, RuntimeError) for link in chain(error))


def _is_senseless_answer(error: BaseException) -> bool:
    """Whether an answer lacks what it must hold, as when it was cut off, or comes from something that is no Hub."""
    # The client reads fields and headers by their names, and lets the KeyError of a missing one through.
    senseless = (json.JSONDecodeError, KeyError, FileMetadataError, LocalEntryNotFoundError)
    return any(isinstance(link, senseless) for link in chain(error))


def retry_after_s(error: BaseException) -> float:
    """Seconds that the server asks to wait, 0 where it does not say."""
    for link in chain(error):
        if isinstance(link, HfHubHTTPError) and link.response is not None:
            value = link.response.headers.get("Retry-After", "")
            return float(value) if value.isdigit() else 0.0
    return 0.0


def explain(error: BaseException, *, endpoint: str, repo_id: str, token: str | None) -> UserError | None:
    """One line that says what happened and what to do; None for an error that no user can cause."""
    text = _reason(error, endpoint, repo_id, _server_message(error))
    if text is None:
        return None
    return UserError(text.replace(token, "***") if token else text)


def _reason(error: BaseException, endpoint: str, repo_id: str, message: str) -> str | None:
    status = status_of(error)
    if is_offline(error):
        return "HF_HUB_OFFLINE: is set, so nothing can be published; unset it"
    if isinstance(error, ValueError) and str(error).startswith(INVALID_CARD):
        return f"README.md: the Hub refuses its front matter: {_clean(str(error).removeprefix(INVALID_CARD))}"
    if status is not None:
        return _reason_of_status(error, status, endpoint, repo_id, message)
    if is_connection_error(error):
        return (
            f"{endpoint}: cannot be reached or broke the connection ({_cause(error)}); check the network and "
            "--endpoint or HF_ENDPOINT, then repeat: what has arrived is not sent again"
        )
    if _is_broken_upload(error):
        return f"{endpoint}: sending a file failed ({_cause(error)}); repeat: what has arrived is not sent again"
    if _is_senseless_answer(error):
        return f"{endpoint}: does not answer as a Hub does; check --endpoint or HF_ENDPOINT, and any proxy in between"
    return None


def _reason_of_status(error: BaseException, status: int, endpoint: str, repo_id: str, message: str) -> str:
    said = f" ({message})" if message else ""
    if any(isinstance(link, GatedRepoError) for link in chain(error)):
        return (
            f"{repo_id}: is gated and this token has no access{said}; ask for it at {endpoint}/{repo_id}, then repeat"
        )
    if any(isinstance(link, RepositoryNotFoundError) for link in chain(error)) and status == 404:
        return f"{repo_id}: not found at {endpoint}, or hidden from this token{said}; check the name and the token"
    if status == 401:
        return (
            f"{endpoint}: refuses the token{said}; make a new one with write access at {endpoint}/settings/tokens, "
            "then set HF_TOKEN or run `hf auth login`"
        )
    if status in (402, 403, 413, 507) and re.search(r"storage|quota|limit|too large|payment", message, re.IGNORECASE):
        return f"{repo_id}: the storage quota is used up{said}; free space or raise the quota, then repeat"
    if status == 403:
        owner = repo_id.partition("/")[0]
        return (
            f"{repo_id}: this token may not do that{said}; use a token with write access to {owner}, another owner, or "
            "propose the change with --create-pr"
        )
    if status == 429:
        return (
            f"{endpoint}: too many requests{said}; wait some minutes, then repeat: what has arrived is not sent again"
        )
    if status >= 500:
        return (
            f"{endpoint}: answers with {status} again and again{said}; repeat later: what has arrived is not sent again"
        )
    return f"{repo_id}: {endpoint} refuses the request with {status}{said}"


def _server_message(error: BaseException) -> str:
    for link in chain(error):
        if isinstance(link, HfHubHTTPError):
            return _clean(link.server_message or "")
    return ""


def _clean(text: str) -> str:
    """A server's words as one short line without control characters, which could drive the user's terminal."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return line if len(line) <= LONGEST_SERVER_MESSAGE else line[:LONGEST_SERVER_MESSAGE] + "…"


def _cause(error: BaseException) -> str:
    """The innermost reason in a few words, for example "Connection refused"."""
    *_, innermost = chain(error)
    if isinstance(innermost, OSError) and innermost.strerror:
        return _clean(innermost.strerror)
    return _clean(f"{type(innermost).__name__}: {innermost}").removesuffix(": ")
