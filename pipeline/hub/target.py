"""Whether a repository can be published to: asked before any work is done, and nothing is changed."""

from collections.abc import Iterator
from typing import Any

from distilrubert.common.errors import UserError
from distilrubert.pipeline.hub.connection import HubConnection
from distilrubert.pipeline.hub.own_space import check_own_space
from distilrubert.pipeline.hub.publish_errors import token_advice
from distilrubert.pipeline.hub.publish_settings import PublishSettings
from distilrubert.pipeline.hub.remote import RemoteState, read_remote

# Roles in an organisation that do not allow to write. A role that is not known is left for the Hub to judge.
READING_ROLES = frozenset({"read", "no_access"})


def check_target(settings: PublishSettings, connection: HubConnection) -> None:
    """Refuse a repository that cannot be published to, before the work that would be published.

    Raises:
        UserError: as :func:`read_target`, and where the token is not allowed to write to the repository.
    """
    # First, since a Hub hides from an invalid token what exists.
    account = connection.call("reading the account", connection.api.whoami)
    remote = read_target(settings, connection)
    if problem := _missing_permission(account, settings, connection, is_new=remote is None):
        raise UserError(problem)


def read_target(settings: PublishSettings, connection: HubConnection) -> RemoteState | None:
    """The repository that is published to, as it is now; None where it has to be created.

    Raises:
        UserError: if the Hub cannot be reached or refuses, or the settings do not fit the repository.
    """
    remote = read_remote(connection)
    if remote is None:
        _check_new_repository(settings)
    else:
        _check_repository(settings, remote, connection.title)
        if connection.repo_type == "space":
            check_own_space(connection, remote.branches["main"])
    return remote


def parent_of(settings: PublishSettings, remote: RemoteState) -> str:
    """The commit to publish on: a branch that is missing is created from main."""
    return remote.branches[settings.revision if settings.revision in remote.branches else "main"]


def tag_exists(tag: str, remote: RemoteState) -> UserError:
    """The error for a tag that stands elsewhere."""
    return UserError(f"publish.tag: {tag} exists at {remote.tags[tag][:8]} and is not moved; choose another tag")


def _missing_permission(
    account: dict[str, Any], settings: PublishSettings, connection: HubConnection, *, is_new: bool
) -> str | None:
    """Why the token cannot publish, by what the Hub says of it; None where it can, or where the Hub does not say."""
    owner = connection.repo_id.partition("/")[0]
    token = (account.get("auth") or {}).get("accessToken") or {}
    if token.get("role") == "read":
        return f"HF_TOKEN: is a read token; {token_advice(connection.endpoint)}"
    if token.get("role") == "fineGrained":
        # Its scopes decide; it may not see every organisation.
        if _is_granted(token.get("fineGrained") or {}, settings):
            return None
        permission = "permission for pull requests on" if settings.is_proposal else "write access to"
        place = owner if is_new else connection.repo_id
        return f"HF_TOKEN: the token has no {permission} {place}; add it at {connection.endpoint}/settings/tokens"
    if settings.is_proposal:
        return None
    roles = {account.get("name", ""): "admin"} | {item["name"]: _role(item) for item in account.get("orgs") or []}
    role = next((role for name, role in roles.items() if name.casefold() == owner.casefold()), None)
    if role is not None and role not in READING_ROLES:
        return None
    writable = ", ".join(name for name, role in roles.items() if role not in READING_ROLES)
    proposal = "" if is_new else ", or propose the change with --create-pr"
    return f"publish.repo_id: {account.get('name')} cannot write to {owner}, only to {writable}; choose one{proposal}"


def _role(organisation: dict[str, Any]) -> str:
    """The role in an organisation; a resource group may grant more than the organisation as a whole."""
    groups = [group.get("role", "") for group in organisation.get("resourceGroups") or []]
    granted = [role for role in groups if role not in READING_ROLES]
    role = str(organisation.get("roleInOrg", ""))
    return granted[0] if role in READING_ROLES and granted else role


def _is_granted(fine_grained: dict[str, Any], settings: PublishSettings) -> bool:
    """Whether a fine-grained token covers the repository."""
    needed = {"repo.write", "discussion.write"} if settings.is_proposal else {"repo.write"}
    granted = set(_permissions(fine_grained, str(settings.repo_id)))
    return bool(needed & granted)


def _permissions(fine_grained: dict[str, Any], repo_id: str) -> Iterator[str]:
    yield from fine_grained.get("global", [])
    names = {repo_id.casefold(), repo_id.partition("/")[0].casefold()}
    for scope in fine_grained.get("scoped", []):
        if scope.get("entity", {}).get("name", "").casefold() in names:
            yield from scope.get("permissions", [])


def _check_new_repository(settings: PublishSettings) -> None:
    if settings.create_pr:
        raise UserError(
            f"{settings.repo_id}: does not exist or is hidden from this token, so it cannot get a pull request; check "
            "the name, or leave out --create-pr to create the repository"
        )
    if settings.revision.startswith("refs/pr/"):
        raise UserError(f"publish.revision: {settings.repo_id} does not exist, so it has no {settings.revision}")


def _check_repository(settings: PublishSettings, remote: RemoteState, title: str) -> None:
    if settings.private not in (None, remote.private):
        is_now, wanted = ("private", "public") if remote.private else ("public", "private")
        raise UserError(
            f"publish.private: {title} exists and is {is_now}; make it {wanted} in its settings on the Hub, "
            f"or leave out --{wanted}"
        )
    missing = settings.revision not in remote.branches
    if missing and settings.revision in remote.tags:
        raise UserError(
            f"publish.revision: {settings.revision} is a tag, and tags cannot change; give the name of a branch"
        )
    if missing and settings.is_proposal:
        raise UserError(
            f"publish.revision: {settings.repo_id} has no {settings.revision}; it has {', '.join(remote.branches)}"
        )
    # A repeat that changes nothing may find the tag that it has made; no push ends at an older commit.
    if settings.tag is not None and remote.tags.get(settings.tag, parent := parent_of(settings, remote)) != parent:
        raise tag_exists(settings.tag, remote)
