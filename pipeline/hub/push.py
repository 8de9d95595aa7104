"""Carrying out a plan: one commit on the revision that was planned against, or none."""

import dataclasses
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete

from distilrubert.common.errors import UserError
from distilrubert.common.hub_failures import status_of
from distilrubert.pipeline.hub.connection import HubConnection, RetryPolicy, connect, quiet_unless_terminal
from distilrubert.pipeline.hub.files import HUB_FILES
from distilrubert.pipeline.hub.hub_errors import CONFLICT_STATUSES, TRANSIENT_STATUSES
from distilrubert.pipeline.hub.plan import PushPlan, find_pull_request, is_carried_out, plan_push
from distilrubert.pipeline.hub.publish_settings import PublishSettings
from distilrubert.pipeline.hub.remote import RemoteState, open_pull_requests, read_history, read_remote, read_tree
from distilrubert.pipeline.hub.verify import verify_push

# How the ValueError begins that the client 0.36 raises after a commit at an endpoint that is not HF_ENDPOINT: it cannot
# read the URL of the commit in the answer.
UNREADABLE_ANSWER = "Unable to retrieve user and repo ID"


@dataclasses.dataclass(frozen=True)
class Publication:
    """What is published now.

    Attributes:
        repo_id: the repository, OWNER/NAME.
        revision: the commit that holds the published files.
        url: where a person looks at it: the repository, its branch, or the pull request.
        changed: whether this publish made a commit.
        pull_request: its number, None where the branch itself was published to.
        tag: the tag of the commit, if any.
    """

    repo_id: str
    revision: str
    url: str
    changed: bool
    pull_request: int | None = None
    tag: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The form for machines (`--json`)."""
        return dataclasses.asdict(self)


def push_folder(
    folder: Path, settings: PublishSettings, endpoint: str | None = None, retry: RetryPolicy | None = None
) -> Publication:
    """Publish a folder and read it back: plan, push, verify.

    Args:
        folder: what to publish.
        settings: where to and how.
        endpoint: URL of the Hub; None takes HF_ENDPOINT, or the public Hub.
        retry: how patient to be.

    Raises:
        UserError: if the folder, the settings, the token or the Hub do not allow it; the repository is then as it was,
            or holds the complete new commit and only reading it back has failed.
    """
    connection = connect(settings, endpoint, retry)
    plan = plan_push(folder, settings, connection)
    publication = push(plan, connection)
    verify_push(plan.digests, connection, publication.revision)
    return publication


def push(plan: PushPlan, connection: HubConnection) -> Publication:
    """Carry out a plan. The repository shows the old files or all the new ones, never a mixture.

    Large files go first, several at once, by the client's own LFS or Xet path, which skips what the Hub has. A repeat
    after an interruption therefore sends only what is missing.

    Raises:
        UserError: if someone else published since the plan was made, or the Hub cannot be reached or refuses.
    """
    if plan.creates_repository:
        plan = _create_repository(plan, connection)
    if plan.creates_branch:
        _create_branch(plan, connection)
    number, commit = plan.pull_request, plan.parent
    if plan.needs_commit:
        number, commit = _commit(plan, connection)
    elif number is not None:
        commit = open_pull_requests(connection).get(number, commit)
    assert commit is not None, "a repository has a first commit"
    if plan.settings.tag is not None:
        _create_tag(plan.settings.tag, commit, connection)
    return Publication(
        plan.repo_id, commit, _url(plan, number), changed=plan.needs_commit, pull_request=number, tag=plan.settings.tag
    )


def render_publication(publication: Publication) -> str:
    """The result for a person."""
    if not publication.changed:
        done = "Nothing changed"
    elif publication.pull_request is not None:
        done = f"Opened pull request {publication.pull_request}"
    else:
        done = "Published"
    tag = f", tagged {publication.tag}" if publication.tag else ""
    return f"{done}: {publication.url}\nRevision {publication.revision}{tag}"


def _create_repository(plan: PushPlan, connection: HubConnection) -> PushPlan:
    settings = plan.settings
    connection.call(
        "making the repository",
        lambda: connection.api.create_repo(plan.repo_id, private=settings.private, exist_ok=True),
    )
    remote = _existing(connection)
    if settings.private and not remote.private:
        raise UserError(f"{plan.repo_id}: was made by someone else meanwhile, and is public; nothing was published")
    parent = remote.branches["main"]
    if read_tree(connection, parent).keys() - HUB_FILES:
        raise _conflict(plan)
    return dataclasses.replace(plan, parent=parent, creates_repository=False)


def _create_branch(plan: PushPlan, connection: HubConnection) -> None:
    connection.call(
        "making the branch",
        lambda: connection.api.create_branch(
            plan.repo_id, branch=plan.settings.revision, revision=plan.parent, exist_ok=True
        ),
    )


def _commit(plan: PushPlan, connection: HubConnection) -> tuple[int | None, str]:
    """Upload and commit; the number of the pull request, if any, and the commit."""
    api, settings = connection.api, plan.settings
    additions = [
        CommitOperationAdd(file.path, str(plan.folder / file.path))
        for file in plan.changes
        if file.action in ("add", "replace")
    ]
    deletions = [CommitOperationDelete(file.path) for file in plan.changes if file.action == "delete"]

    def upload() -> None:
        api.preupload_lfs_files(
            plan.repo_id, additions, revision=settings.revision, create_pr=settings.create_pr, free_memory=False
        )

    def commit() -> tuple[int | None, str]:
        try:
            made = api.create_commit(
                plan.repo_id,
                [*additions, *deletions],
                commit_message=f"Publish {plan.repo_id.partition('/')[2]}",
                revision=settings.revision,
                create_pr=settings.create_pr,
                parent_commit=plan.parent,
            )
        except Exception as error:
            return _settle(plan, connection, error)
        return (None if made.pr_num is None else int(made.pr_num)), made.oid

    with quiet_unless_terminal():
        connection.call("uploading", upload)
        return connection.call("committing", commit)


def _settle(plan: PushPlan, connection: HubConnection, error: Exception) -> tuple[int | None, str]:
    """After a commit without a clear answer, find out whether it was made; the error again where it was not.

    The answer to a commit can be lost although the commit was made; then a repeat finds its parent outdated.
    """
    status = status_of(error)
    if status is not None and status not in CONFLICT_STATUSES | TRANSIENT_STATUSES:
        raise error
    was_made = isinstance(error, ValueError) and str(error).startswith(UNREADABLE_ANSWER)
    find = _find_pull_request if plan.settings.create_pr else _find_commit
    found = find(plan, connection, was_made=was_made)
    if found is not None:
        return found
    if status in CONFLICT_STATUSES:
        raise _conflict(plan)
    raise error


def _find_commit(plan: PushPlan, connection: HubConnection, *, was_made: bool) -> tuple[None, str] | None:
    """The commit that was made on the planned parent, unless it is somebody else's."""
    history = read_history(connection, plan.settings.revision)
    if plan.parent not in history[1:]:
        return None
    commit = history[history.index(plan.parent) - 1]
    if was_made or is_carried_out(plan, read_tree(connection, commit)):
        return None, commit
    return None


def _find_pull_request(plan: PushPlan, connection: HubConnection, *, was_made: bool) -> tuple[int, str] | None:
    commits = open_pull_requests(connection)
    number = next(iter(commits)) if was_made else find_pull_request(plan, connection)
    return None if number is None else (number, commits[number])


def _existing(connection: HubConnection) -> RemoteState:
    remote = read_remote(connection)
    if remote is None:
        raise UserError(f"{connection.repo_id}: is gone or hidden from this token; check it at {connection.endpoint}")
    return remote


def _conflict(plan: PushPlan) -> UserError:
    return UserError(
        f"{plan.repo_id}: someone else published to {plan.settings.revision} meanwhile, and nothing of theirs was "
        "overwritten; look at it, then publish again to compare with what is there now"
    )


def _create_tag(tag: str, commit: str, connection: HubConnection) -> None:
    connection.call(
        "making the tag",
        lambda: connection.api.create_tag(connection.repo_id, tag=tag, revision=commit, exist_ok=True),
    )
    found = _existing(connection).tags.get(tag)
    if found != commit:
        raise UserError(f"publish.tag: {tag} was set to another commit meanwhile ({found}); choose another tag")


def _url(plan: PushPlan, number: int | None) -> str:
    base = f"{plan.endpoint}/{plan.repo_id}"
    if number is not None:
        return f"{base}/discussions/{number}"
    return base if plan.settings.revision == "main" else f"{base}/tree/{plan.settings.revision}"
