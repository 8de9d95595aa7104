"""The address of a Hub: which ones are safe to send a token to, and the web pages of its repositories."""

import ipaddress
import re
from urllib.parse import SplitResult, quote, urlsplit

from huggingface_hub import constants

from distilrubert.common.errors import UserError

COMMIT = re.compile(r"[0-9a-f]{40}")
"""How a commit is told from a branch or tag."""


def hub_endpoint(endpoint: str | None = None) -> str:
    """The URL of the Hub to use, without a closing slash.

    It comes from the user alone, never from a recipe: whoever names the endpoint receives the token.

    Args:
        endpoint: what ``--endpoint`` says; None takes HF_ENDPOINT, or the public Hub.

    Raises:
        UserError: as :func:`check_endpoint`.
    """
    if endpoint is None:
        return check_endpoint(constants.ENDPOINT, "HF_ENDPOINT")
    return check_endpoint(endpoint, "--endpoint")


def check_endpoint(endpoint: str, field: str) -> str:
    """The endpoint without a closing slash; messages name the `field` where it was given.

    Raises:
        UserError: if it is no URL, is not encrypted although it leaves this machine, or carries a password.
    """
    example = "expected a URL like https://huggingface.co"
    try:
        parts = urlsplit(endpoint)
        is_url = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        raise UserError(f"{field}: is not a URL; {example}") from None
    # Before anything of it is printed.
    if "@" in endpoint:
        raise UserError(f"{field}: must not contain a user name or password; the token goes into HF_TOKEN")
    if not is_url or parts.query or parts.fragment:
        raise UserError(f"{field}: {endpoint!r} is not the URL of a Hub; {example}")
    if parts.scheme == "http" and not _is_loopback(parts):
        raise UserError(
            f"{field}: {endpoint!r} would send the token unencrypted; use https:// (http:// is for this machine alone: "
            "localhost, 127.0.0.1, [::1])"
        )
    return endpoint.rstrip("/")


def repository_url(
    repo_id: str, revision: str = "main", *, endpoint: str | None = None, repo_type: str = "model"
) -> str:
    """The web page of a model repository, or of a Space, at a branch, tag or commit."""
    base = f"{(endpoint or constants.ENDPOINT).rstrip('/')}/{'spaces/' if repo_type == 'space' else ''}{repo_id}"
    return base if revision == "main" else f"{base}/tree/{quote(revision, safe='')}"


def _is_loopback(parts: SplitResult) -> bool:
    if parts.hostname == "localhost":
        return True
    try:
        return ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False
