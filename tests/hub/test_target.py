"""Whether a token may publish is known before any work is done: the answer is the one that publishing gets."""

from pathlib import Path
from typing import Any

import pytest

from distilrubert.common.errors import UserError
from distilrubert.pipeline.hub.connection import connect
from distilrubert.pipeline.hub.publish_settings import PublishSettings
from distilrubert.pipeline.hub.target import check_target

from .conftest import HASTY
from .server import LocalHub
from .survival import push_once

PROPOSAL = {"create_pr": True}


@pytest.mark.parametrize(
    ("who", "repo_id", "changes", "words"),
    [
        ("me", "me/new", {}, None),
        ("me", "me/demo", {}, None),
        ("me", "team/new", {}, None),
        ("colleague", "team/new", {}, None),
        ("fine", "me/new", {}, None),
        ("narrow", "me/demo", {}, None),
        ("stranger", "me/demo", PROPOSAL, None),
        ("proposer", "others/demo", PROPOSAL, None),
        ("unknown", "me/new", {}, "refuses the token (Invalid credentials in Authorization header); make one with"),
        ("expired", "me/new", {}, 'refuses the token (User Access Token "publisher" is expired); make one with'),
        ("reader", "me/new", {}, "HF_TOKEN: is a read token; make one with write access at"),
        ("reader", "me/demo", PROPOSAL, "HF_TOKEN: is a read token"),
        ("fine", "team/new", {}, "HF_TOKEN: the token has no write access to team; add it at"),
        ("narrow", "me/new", {}, "HF_TOKEN: the token has no write access to me; add it at"),
        ("narrow", "others/demo", PROPOSAL, "HF_TOKEN: the token has no permission for pull requests on others/demo"),
        ("proposer", "me/demo", {}, "HF_TOKEN: the token has no write access to me/demo; add it at"),
        ("me", "library/new", {}, "publish.repo_id: me cannot write to library, only to me, team; choose one"),
        ("me", "others/demo", {}, "cannot write to others, only to me, team; choose one, or propose the change with"),
        (
            "stranger",
            "others/new",
            {},
            "stranger cannot write to others, only to stranger; choose one",
        ),
    ],
)
def test_missing_permission_is_found_beforehand(
    local_hub: LocalHub, target: PublishSettings, folder: Path, monkeypatch: pytest.MonkeyPatch,
    who: str, repo_id: str, changes: dict[str, Any], words: str | None,
) -> None:  # fmt: skip
    for name in ("me/demo", "others/demo"):
        local_hub.storage.create(name, name.partition("/")[0])
    monkeypatch.setenv("HF_TOKEN", local_hub.tokens.get(who, "hf_unknown"))
    settings = target.model_copy(update={"repo_id": repo_id, **changes})
    if words is None:
        check_target(settings, connect(settings, local_hub.endpoint, HASTY))
    else:
        with pytest.raises(UserError) as caught:
            check_target(settings, connect(settings, local_hub.endpoint, HASTY))
        assert words in str(caught.value)
        # Without a repository there is nothing to propose a change to.
        assert ("--create-pr" in str(caught.value)) is (repo_id == "others/demo" and not changes)
    assert {method for method, _ in local_hub.requests} == {"GET"}
    if words is None:
        assert push_once(folder, settings, local_hub.endpoint, HASTY).committed
    else:
        with pytest.raises(UserError):
            push_once(folder, settings, local_hub.endpoint, HASTY)


@pytest.mark.parametrize(
    "account",
    [
        # What a Hub does not say, or says in words of its own, is left to it.
        {"type": "user", "name": "me", "orgs": [{"name": "team", "roleInOrg": "member"}]},
        {"type": "user", "name": "me", "orgs": [{"name": "team"}], "auth": {"type": "oauth"}},
        {"type": "user", "name": "me", "orgs": [{"name": "Team", "roleInOrg": "write"}], "auth": None},
        # A resource group grants what the organisation as a whole does not.
        {
            "name": "me",
            "orgs": [{"name": "team", "roleInOrg": "read", "resourceGroups": [{"name": "nlp", "role": "write"}]}],
        },
        {"type": "org", "name": "team"},
        # A fine-grained token need not see the organisation that it writes to.
        {
            "name": "me",
            "orgs": [],
            "auth": {
                "accessToken": {
                    "role": "fineGrained",
                    "fineGrained": {
                        "scoped": [{"entity": {"type": "org", "name": "team"}, "permissions": ["repo.write"]}]
                    },
                }
            },
        },
    ],
)
def test_answers_that_leave_it_open(
    local_hub: LocalHub, target: PublishSettings, monkeypatch: pytest.MonkeyPatch, account: dict[str, Any]
) -> None:
    settings = target.model_copy(update={"repo_id": "team/demo"})
    connection = connect(settings, local_hub.endpoint, HASTY)
    monkeypatch.setattr(connection.api, "whoami", lambda: account)
    check_target(settings, connection)
