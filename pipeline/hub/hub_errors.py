"""What a failed request of publishing means: whether to try again, and one line that says what to do."""

import re

from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

from distilrubert.common.errors import UserError
from distilrubert.common.hub_failures import (
    cause,
    chain,
    clean,
    is_broken_transfer,
    is_connection_error,
    is_offline,
    is_senseless_answer,
    redact,
    server_message,
    status_of,
)

TRANSIENT_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
# 409 and 412 answer a commit whose parent is no longer the head.
CONFLICT_STATUSES = frozenset({409, 412})
# How the client's ValueError begins when the Hub's validate-yaml refuses a card.
INVALID_CARD = "Invalid metadata in README.md."


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed a little later."""
    if is_offline(error):
        return False
    status = status_of(error)
    # Another attempt at a large file is worth while even after a refusal: it gets new addresses, and skips what has
    # arrived.
    if status is not None and not is_broken_transfer(error):
        return status in TRANSIENT_STATUSES
    return is_connection_error(error) or is_broken_transfer(error) or is_senseless_answer(error)


def retry_after_s(error: BaseException) -> float:
    """Seconds that the server asks to wait, 0 where it does not say."""
    for link in chain(error):
        if isinstance(link, HfHubHTTPError) and link.response is not None:
            value = link.response.headers.get("Retry-After", "")
            return float(value) if value.isdigit() else 0.0
    return 0.0


def explain(error: BaseException, *, endpoint: str, repo_id: str, token: str | None) -> UserError | None:
    """One line that says what happened and what to do; None for an error that no user can cause."""
    text = _reason(error, endpoint, repo_id, token)
    return None if text is None else UserError(redact(text, token))


def _reason(error: BaseException, endpoint: str, repo_id: str, token: str | None) -> str | None:
    status = status_of(error)
    if is_offline(error):
        return "HF_HUB_OFFLINE: is set, so nothing can be published; unset it"
    if isinstance(error, ValueError) and str(error).startswith(INVALID_CARD):
        return f"README.md: the Hub refuses its front matter: {clean(str(error).removeprefix(INVALID_CARD), token)}"
    if status is not None:
        return _reason_of_status(error, status, endpoint, repo_id, server_message(error, token))
    if is_connection_error(error):
        return (
            f"{endpoint}: cannot be reached or broke the connection ({cause(error, token)}); check the network and "
            "--endpoint or HF_ENDPOINT, then repeat: what has arrived is not sent again"
        )
    if is_broken_transfer(error):
        return f"{endpoint}: sending a file failed ({cause(error, token)}); repeat: what has arrived is not sent again"
    if is_senseless_answer(error):
        return f"{endpoint}: does not answer as a Hub does; check --endpoint or HF_ENDPOINT, and any proxy in between"
    return None


def _reason_of_status(error: BaseException, status: int, endpoint: str, repo_id: str, said: str) -> str:
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
    if status in (402, 403, 413, 507) and re.search(r"storage|quota|limit|too large|payment", said, re.IGNORECASE):
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
