"""What a failed request of publishing means: whether to try again, and one line that says what to do."""

import re
from typing import NamedTuple

from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

from distilrubert.common.errors import UserError
from distilrubert.common.hub_failures import (
    cause,
    chain,
    clean,
    is_broken_transfer,
    is_connection_error,
    is_invalid_answer,
    is_not_a_hub,
    is_offline,
    redact,
    response_of,
    server_message,
    status_of,
)

TRANSIENT_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
# 409 and 412 answer a commit whose parent is no longer the head.
CONFLICT_STATUSES = frozenset({409, 412})
# How the client's ValueError begins when the Hub's validate-yaml refuses a card.
INVALID_CARD = "Invalid metadata in README.md."
# "api";r=0;t=55: no request is left, the window ends in 55 seconds.
RATE_LIMIT_RESET = re.compile(r";\s*t\s*=\s*(\d+)")
REPEAT = "repeat the command: files that have arrived are not sent again"


class Explanation(NamedTuple):
    """A failed request in two parts, so that the advice is given once, at the end of all attempts."""

    problem: str
    advice: str

    def as_error(self) -> UserError:
        """Both parts as the error that ends the command."""
        return UserError(f"{self.problem}; {self.advice}" if self.advice else self.problem)


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed a little later."""
    if is_offline(error) or is_not_a_hub(error):
        return False
    status = status_of(error)
    # A large file is worth another attempt even after a refusal: it gets new addresses, and skips what has arrived.
    if status is not None and not is_broken_transfer(error):
        return status in TRANSIENT_STATUSES
    return is_connection_error(error) or is_broken_transfer(error) or is_invalid_answer(error)


def retry_after_s(error: BaseException) -> float:
    """Seconds that the server asks to wait, 0 where it does not say.

    That is the header Retry-After, or for 429 the end of the window in the Hub's header RateLimit.
    """
    response = response_of(error)
    if response is None:
        return 0.0
    if (value := response.headers.get("Retry-After", "")).isdigit():
        return float(value)
    reset = RATE_LIMIT_RESET.search(response.headers.get("RateLimit", ""))
    return float(reset[1]) if reset and response.status_code == 429 else 0.0


def explain(error: BaseException, *, endpoint: str, repo_id: str, token: str | None) -> Explanation | None:
    """What happened and what to do, without the token; None for an error that no user can cause."""
    explanation = _explain(error, endpoint, repo_id, token)
    return explanation and Explanation(*(redact(part, token) for part in explanation))


def _explain(error: BaseException, endpoint: str, repo_id: str, token: str | None) -> Explanation | None:
    status = status_of(error)
    if is_offline(error):
        return Explanation("HF_HUB_OFFLINE: is set, so nothing can be published", "unset it")
    if isinstance(error, ValueError) and str(error).startswith(INVALID_CARD):
        said = clean(str(error).removeprefix(INVALID_CARD), token)
        return Explanation(f"README.md: the Hub refuses its front matter: {said}", "")
    if is_not_a_hub(error):
        return Explanation(
            f"{endpoint}: is not a Hub, or a proxy answers in its place", "check --endpoint or HF_ENDPOINT"
        )
    if status is not None:
        return _explain_status(error, status, endpoint, repo_id, server_message(error, token))
    if is_connection_error(error):
        problem = f"{endpoint}: cannot be reached, or broke the connection ({cause(error, token)})"
        return Explanation(problem, f"check the network and --endpoint or HF_ENDPOINT, then {REPEAT}")
    if is_broken_transfer(error):
        return Explanation(f"{endpoint}: sending a file failed ({cause(error, token)})", REPEAT)
    if is_invalid_answer(error):
        return Explanation(f"{endpoint}: sent an incomplete answer", f"check any proxy in between, then {REPEAT}")
    return None


def _explain_status(error: BaseException, status: int, endpoint: str, repo_id: str, said: str) -> Explanation:
    if any(isinstance(link, GatedRepoError) for link in chain(error)):
        return Explanation(
            f"{repo_id}: is gated and this token has no access{said}", f"ask for it at {endpoint}/{repo_id}"
        )
    if any(isinstance(link, RepositoryNotFoundError) for link in chain(error)) and status == 404:
        return Explanation(
            f"{repo_id}: not found at {endpoint}, or hidden from this token{said}", "check the name and the token"
        )
    if status == 401:
        return Explanation(f"{endpoint}: refuses the token{said}", token_advice(endpoint))
    if status in (402, 403, 413, 507) and re.search(r"storage|quota|limit|too large|payment", said, re.IGNORECASE):
        return Explanation(f"{repo_id}: the storage quota is used up{said}", "free space or raise the quota")
    if status == 403:
        advice = f"use one that may write to {repo_id.partition('/')[0]}"
        return Explanation(f"{repo_id}: this token is not allowed to do that{said}", advice)
    if status == 429:
        return Explanation(f"{endpoint}: too many requests{said}", f"wait five minutes, then {REPEAT}")
    if status >= 500:
        return Explanation(f"{endpoint}: answers with {status}{said}", f"later {REPEAT}")
    return Explanation(f"{repo_id}: {endpoint} refuses the request with {status}{said}", "")


def token_advice(endpoint: str) -> str:
    """How to get a token that can publish."""
    return f"make one with write access at {endpoint}/settings/tokens, then set HF_TOKEN or run `hf auth login`"
