"""What a user can do wrong, or the Hub can refuse: one line each that says what to do, and no token in it."""

import http.server
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from distilrubert.common.errors import UserError
from distilrubert.pipeline.cli import main
from distilrubert.pipeline.hub.connection import connect
from distilrubert.pipeline.hub.publish_errors import is_transient
from distilrubert.pipeline.hub.publish_settings import PublishSettings
from distilrubert.pipeline.hub.push import push_folder
from distilrubert.pipeline.hub.target import check_target, read_target

from .conftest import HASTY
from .server import LocalHub


def refusal(hub: LocalHub | str, folder: Path, settings: PublishSettings) -> str:
    endpoint = hub if isinstance(hub, str) else hub.endpoint
    with pytest.raises(UserError) as caught:
        push_folder(folder, settings, endpoint, HASTY)
    text = str(caught.value)
    assert "\n" not in text
    assert "hf_" not in text, "a token"
    return text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"repo_id": None}, "publish.repo_id: is missing"),
        ({"repo_id": "demo"}, "'demo' is malformed; expected OWNER/NAME"),
        ({"repo_id": "me/a/b"}, "'me/a/b' is malformed; expected OWNER/NAME"),
        ({"repo_id": "me/a b"}, "'me/a b' is malformed"),
        ({"repo_id": "me/--x"}, "'me/--x' is malformed"),
        ({"repo_id": "me/модель"}, "is malformed"),
        (
            {"revision": "refs/heads/main"},
            "publish.revision: 'refs/heads/main': give a branch or tag by its name alone",
        ),
        ({"tag": "refs/pr/1"}, "publish.tag: 'refs/pr/1': give a branch or tag by its name alone"),
        ({"revision": "bad name"}, "publish.revision: 'bad name' cannot name a branch"),
        ({"revision": "-x"}, "publish.revision: '-x'"),
        ({"revision": "a" * 40}, "is a commit, and commits cannot change"),
        ({"tag": "v 1"}, "publish.tag: 'v 1'"),
        ({"tag": "v1", "create_pr": True}, "merge it, then publish again"),
        ({"revision": "refs/pr/1", "create_pr": True}, "is a pull request already"),
    ],
)
def test_a_target_that_makes_no_sense(
    local_hub: LocalHub, target: PublishSettings, folder: Path, change: dict[str, str], words: str
) -> None:
    assert words in refusal(local_hub, folder, target.model_copy(update=change))


def test_no_token(local_hub: LocalHub, target: PublishSettings, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(folder / "none"))
    assert "set HF_TOKEN or run `hf auth login`" in refusal(local_hub, folder, target)


def test_the_stored_login_is_used(
    local_hub: LocalHub, target: PublishSettings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = folder.parent / "token"
    stored.write_text(local_hub.tokens["me"])
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(stored))
    assert push_folder(folder, target, local_hub.endpoint, HASTY).changed


@pytest.mark.parametrize("token", ["hf_сyrillic", "two words", "line\x07"])
def test_a_token_that_is_none(
    local_hub: LocalHub, target: PublishSettings, folder: Path, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    text = refusal(local_hub, folder, target)
    assert "copy it again" in text
    assert token not in text


@pytest.mark.parametrize(
    ("who", "repo_id", "words"),
    [
        ("unknown", "me/demo", "refuses the token (Invalid credentials in Authorization header); make one with"),
        ("expired", "me/demo", 'refuses the token (User Access Token "publisher" is expired); make one with'),
        ("reader", "me/new", "this token is not allowed to do that (You don't have the rights to create a model"),
        ("reader", "me/demo", "not allowed to do that (Authorization error.); use one that may write to me"),
        ("stranger", "me/demo", "to create a Pull Request); use one that may write to me"),
        ("me", "others/new", "use one that may write to others"),
        ("stranger", "me/secret", "this token is not allowed to do that (You don't have the rights"),
    ],
)
def test_a_token_that_may_not(
    local_hub: LocalHub, target: PublishSettings, folder: Path, who: str, repo_id: str, words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    local_hub.storage.create("me/demo", "me")
    local_hub.storage.create("me/secret", "me", private=True)
    monkeypatch.setenv("HF_TOKEN", local_hub.tokens.get(who, "hf_unknown"))
    assert words in refusal(local_hub, folder, target.model_copy(update={"repo_id": repo_id}))
    assert all(len(repository.history()) == 1 for repository in local_hub.storage.repositories.values())


def test_a_stranger_may_propose(
    local_hub: LocalHub, target: PublishSettings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = local_hub.storage.create("me/demo", "me")
    monkeypatch.setenv("HF_TOKEN", local_hub.tokens["stranger"])
    assert (
        push_folder(folder, target.model_copy(update={"create_pr": True}), local_hub.endpoint, HASTY).pull_request == 1
    )
    assert len(repository.history()) == 1


def test_a_server_that_quotes_the_token(
    local_hub: LocalHub, target: PublishSettings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local_hub.invalid_token_message = "\x1b[31mNo such token: TOKEN"
    monkeypatch.setenv("HF_TOKEN", "hf_unknown")
    text = refusal(local_hub, folder, target)
    assert "(" in text
    assert "No such token: ***" in text
    assert "\x1b" not in text


def test_storage_quota(local_hub: LocalHub, target: PublishSettings, folder: Path) -> None:
    repository = local_hub.storage.create("me/demo", "me")
    repository.quota = 100
    assert "storage quota is used up (Private repository storage limit reached" in refusal(
        local_hub.endpoint, folder, target
    )
    assert len(repository.history()) == 1


def test_gated_to_oneself(
    local_hub: LocalHub, target: PublishSettings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local_hub.storage.create("me/demo", "me").gated_except = ("me",)
    monkeypatch.setenv("HF_TOKEN", local_hub.tokens["colleague"])
    text = refusal(local_hub, folder, target)
    assert "me/demo: is gated and this token has no access" in text
    assert f"{local_hub.endpoint}/me/demo" in text


def test_private_is_not_silently_ignored(local_hub: LocalHub, target: PublishSettings, folder: Path) -> None:
    repository = local_hub.storage.create("me/demo", "me")
    text = refusal(local_hub, folder, target.model_copy(update={"private": True}))
    assert "me/demo exists and is public; make it private" in text
    repository.private = True
    text = refusal(local_hub, folder, target.model_copy(update={"private": False}))
    assert "me/demo exists and is private; make it public in its settings on the Hub, or leave out --public" in text
    assert len(repository.history()) == 1


def test_revisions_that_cannot_be_published_to(local_hub: LocalHub, target: PublishSettings, folder: Path) -> None:
    repository = local_hub.storage.create("me/demo", "me")
    repository.tags["v1"] = repository.branches["main"]
    assert "v1 is a tag" in refusal(local_hub, folder, target.model_copy(update={"revision": "v1"}))
    assert "has no refs/pr/7; it has main" in refusal(
        local_hub.endpoint, folder, target.model_copy(update={"revision": "refs/pr/7"})
    )
    assert "has no next" in refusal(
        local_hub.endpoint, folder, target.model_copy(update={"revision": "next", "create_pr": True})
    )
    assert "does not exist" in refusal(
        local_hub.endpoint, folder, target.model_copy(update={"repo_id": "me/new", "create_pr": True})
    )
    assert "v1 exists at" in refusal(local_hub, folder, target.model_copy(update={"tag": "v1"}))
    assert len(repository.history()) == 1


def test_a_tag_that_a_repeat_may_find_again_is_not_refused_beforehand(
    local_hub: LocalHub, target: PublishSettings, folder: Path
) -> None:
    settings = target.model_copy(update={"tag": "v1"})
    push_folder(folder, settings, local_hub.endpoint, HASTY)
    assert read_target(settings, connect(settings, local_hub.endpoint)) is not None
    (folder / "README.md").write_text("---\nlicense: mit\n---\nnew\n", encoding="utf-8")
    assert "v1 exists at" in refusal(local_hub, folder, settings)
    push_folder(folder, target, local_hub.endpoint, HASTY)
    with pytest.raises(UserError, match="v1 exists at"):
        read_target(settings, connect(settings, local_hub.endpoint))


def test_a_card_that_the_hub_refuses(local_hub: LocalHub, target: PublishSettings, folder: Path) -> None:
    (folder / "README.md").write_text("---\nlicense: [1, 2]\n---\n")
    assert "README.md: the Hub refuses its front matter" in refusal(local_hub, folder, target)


def test_an_endpoint_where_nobody_answers(target: PublishSettings, folder: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}"
        # It is bound, so that nobody else takes it, and does not listen.
        text = refusal(endpoint, folder, target)
    assert text.startswith(f"{endpoint}: cannot be reached, or broke the connection (Connection refused)")
    assert "--endpoint" in text


def test_a_session_that_another_thread_of_the_client_has_closed() -> None:
    with pytest.raises(AttributeError) as lost:
        None.request("HEAD")  # type: ignore[attr-defined]
    assert is_transient(lost.value)
    with pytest.raises(AttributeError) as mistake:
        None.requests  # type: ignore[attr-defined]  # noqa: B018
    assert not is_transient(mistake.value)


class PlainServer(http.server.SimpleHTTPRequestHandler):
    """A web server that is not a Hub: it has no such page, or shows one and the same page for every address."""

    page: bytes | None = None
    asked = 0

    def do_GET(self) -> None:
        type(self).asked += 1
        if self.page is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(self.page)))
        self.end_headers()
        self.wfile.write(self.page)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Silence."""


@pytest.mark.parametrize("page", [None, b"<!doctype html><title>Log in</title>"], ids=["404", "a page"])
def test_a_web_server_that_is_no_hub(target: PublishSettings, page: bytes | None) -> None:
    class Server(PlainServer):
        pass

    Server.page = page
    with http.server.HTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        with pytest.raises(UserError) as caught:
            check_target(target, connect(target, endpoint))
        server.shutdown()
    said = "is not a Hub, or a proxy answers in its place; check --endpoint or HF_ENDPOINT"
    assert str(caught.value) == f"{endpoint}: {said}"
    assert Server.asked == 1, "it does not become one by waiting"


def test_an_api_without_the_addresses_of_a_hub(local_hub: LocalHub, target: PublishSettings, folder: Path) -> None:
    assert "/elsewhere: is not a Hub" in refusal(f"{local_hub.endpoint}/elsewhere", folder, target)


def test_offline(local_hub: LocalHub, target: PublishSettings) -> None:
    program = (
        "import sys, pathlib\n"
        "from distilrubert.pipeline.hub import connection, remote, publish_settings\n"
        "target = publish_settings.PublishSettings(repo_id='me/demo')\n"
        "remote.read_remote(connection.connect(target, sys.argv[1]))\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", program, local_hub.endpoint],
        env=os.environ | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert "UserError: HF_HUB_OFFLINE: is set" in found.stderr


@pytest.mark.parametrize("kind", ["missing", "empty", "only ignored", "a file", "unreadable"])
def test_folders_that_cannot_be_published(
    local_hub: LocalHub, target: PublishSettings, tmp_path: Path, kind: str
) -> None:
    folder = tmp_path / "some"
    if kind == "a file":
        folder.write_text("")
    elif kind != "missing":
        folder.mkdir()
    if kind == "only ignored":
        (folder / ".git").mkdir()
        (folder / ".git" / "config").write_text("")
    if kind == "unreadable":
        (folder / "model.bin").symlink_to(tmp_path / "gone")
    assert str(folder) in refusal(local_hub, folder, target)


def test_a_card_that_leads_to_another_repository(
    local_hub: LocalHub, target: PublishSettings, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    warning = f"{folder}: its card leads to me/other; publish.py RECIPE --repo-id me/demo"
    for named in ("me/demo", "me/other"):
        (folder / "reports" / "card.json").write_text(json.dumps({"repo_id": named}))
        assert main(["push", str(folder), "--repo-id", "me/demo", "--no-push", "--endpoint", local_hub.endpoint]) == 0
        assert (warning in capsys.readouterr().err) == (named == "me/other")


def test_nothing_is_sent_before_the_target_is_checked(local_hub: LocalHub, target: PublishSettings) -> None:
    connect(target, local_hub.endpoint)
    assert not local_hub.requests
