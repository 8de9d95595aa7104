"""Which function of the local Hub answers which request, and who may ask.

Answers and error codes are those of the real Hub as the client libraries read them: see `huggingface_hub` `hf_api.py`,
`_commit_api.py`, `lfs.py`, `file_download.py` and `utils/_http.py` (0.36 and 1.x).
"""

import re
import urllib.parse
from collections.abc import Callable
from typing import TYPE_CHECKING

from .storage import Account, Refusal, Repository
from .wire import Request, Response

if TYPE_CHECKING:
    from .server import LocalHub

Handler = Callable[..., Response]
ROUTES: list[tuple[str, re.Pattern[str], Handler]] = []
REPO = r"(?P<repo>[^/]+/[^/]+)"
API = rf"/api/(?P<kind>models|spaces)/{REPO}"
PAGE = rf"/(?P<kind>spaces/)?{REPO}"
REVISION = r"(?P<revision>[^/]+)"


def route(method: str, pattern: str) -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        ROUTES.append((method, re.compile(pattern), handler))
        return handler

    return register


def dispatch(hub: "LocalHub", request: Request) -> Response:
    """Answer a request; Refusal where the Hub answers with an error."""
    method = "GET" if request.method == "HEAD" else request.method
    for allowed, pattern, handler in ROUTES:
        if allowed == method and (match := pattern.fullmatch(request.path)):
            segments = {
                key: urllib.parse.unquote(value) for key, value in match.groupdict().items() if value is not None
            }
            # A Space is stored under the name that its page has.
            if segments.pop("kind", "").startswith("spaces"):
                segments["repo"] = f"spaces/{segments['repo']}"
            return handler(hub, request, **segments)
    raise Refusal(404, "Sorry, we can't find the page you are looking for.")


def account_of(hub: "LocalHub", request: Request) -> Account | None:
    if request.token is None:
        return None
    account = hub.storage.accounts.get(request.token)
    if account is None:
        raise Refusal(401, hub.invalid_token_message.replace("TOKEN", request.token))
    if account.expired:
        raise Refusal(401, 'User Access Token "publisher" is expired')
    return account


def find(hub: "LocalHub", request: Request, repo: str) -> tuple[Repository, Account | None]:
    account = account_of(hub, request)
    return hub.storage.find(repo, account), account


def find_writable(
    hub: "LocalHub", request: Request, repo: str, *, pull_request: bool = False
) -> tuple[Repository, Account]:
    repository, account = find(hub, request, repo)
    if account is None:
        raise Refusal(401, "Invalid username or password.")
    if pull_request and account.may_propose(repo):
        return repository, account
    if not account.may_write(repo):
        hint = " pass `create_pr=1` as a query parameter to create a Pull Request" if account.role == "write" else ""
        raise Refusal(403, f"Forbidden:{hint}" if hint else "Authorization error.")
    return repository, account
