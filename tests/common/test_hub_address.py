"""Which endpoints may receive a token, and the pages of a repository."""

import pytest
from huggingface_hub import constants

from distilrubert.common.errors import UserError
from distilrubert.common.hub_address import check_endpoint, hub_endpoint, repository_url


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://huggingface.co",
        "https://hub.example.org:8443/prefix/",
        "http://localhost:8765",
        "http://127.0.0.1:1",
        "http://127.1.2.3",
        "http://[::1]:80/",
    ],
)
def test_endpoints_that_are_safe(endpoint: str) -> None:
    assert check_endpoint(endpoint, "--endpoint") == endpoint.rstrip("/")


@pytest.mark.parametrize(
    ("endpoint", "words"),
    [
        ("http://hub.example.org", "unencrypted; use https"),
        ("http://localhost.example.org", "unencrypted"),
        ("http://192.168.0.7:8080", "unencrypted"),
        ("http://2130706433", "unencrypted"),
        ("huggingface.co", "'huggingface.co' is not the URL of a Hub"),
        ("https://", "is not the URL of a Hub"),
        ("ftp://host", "is not the URL of a Hub"),
        ("file:///etc", "is not the URL of a Hub"),
        ("https://host?x=1", "is not the URL of a Hub"),
        ("http://host:port", "is not a URL"),
        ("https://[::1", "is not a URL"),
        ("https://me:hidden@host", "must not contain a user name or password"),
        ("me:hidden@host", "must not contain a user name or password"),
        ("https://hidden@host", "must not contain a user name or password"),
    ],
)
def test_endpoints_that_are_refused(endpoint: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        check_endpoint(endpoint, "--endpoint")
    assert str(caught.value).startswith("--endpoint: ")
    assert "hidden" not in str(caught.value)


def test_the_argument_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "https://mirror.example.org")
    assert hub_endpoint() == "https://mirror.example.org"
    assert hub_endpoint("https://hub.example.org/") == "https://hub.example.org"
    monkeypatch.setattr(constants, "ENDPOINT", "http://mirror.example.org")
    with pytest.raises(UserError, match="HF_ENDPOINT: "):
        hub_endpoint()


def test_pages_of_a_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "https://mirror.example.org")
    assert repository_url("me/demo") == "https://mirror.example.org/me/demo"
    assert repository_url("me/demo", "next/v2", endpoint="https://hub") == "https://hub/me/demo/tree/next%2Fv2"
