"""Carrying out a plan: one commit on the revision that was planned against, or none."""

import dataclasses
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete

from distilrubert.common.errors import UserError
from distilrubert.common.hub_address import repository_url
from distilrubert.common.hub_failures import status_of
from distilrubert.common.quiet_hub import quiet_hub
from distilrubert.pipeline.hub.connection import HubConnection, RetryPolicy, connect
from distilrubert.pipeline.hub.plan import PushPlan, find_same_pull_request, is_carried_out, plan_push
from distilrubert.pipeline.hub.publish_errors import CONFLICT_STATUSES, TRANSIENT_STATUSES
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
        committed: whether this publish made the commit.
        created: what it created besides: "repository", "branch NAME", "tag NAME".
        pull_request: its number, None where the branch itself was published to.
        tag: the tag of the commit, if any.
    """

    repo_id: str
    revision: str
    url: str
    committed: bool
    created: tuple[str, ...] = ()
    pull_request: int | None = None
    tag: str | None = None

    @property
    def changed(self) -> bool:
        """Whether this publish changed anything on the Hub."""
        return self.committed or bool(self.created)

    def to_dict(self) -> dict[str, Any]:
        """The form for machines (`--json`)."""
        return dataclasses.asdict(self) | {"changed": self.changed}


def push_folder(
    folder: Path,
    settings: PublishSettings,
    endpoint: str | None = None,
    retry: RetryPolicy | None = None,
    *,
    download: bool = True,
) -> Publication:
    """Publish a folder and read it back: plan, push, verify; the arguments are those of :func:`verify_folder`.

    Raises:
        UserError: if the folder, the settings, the token or the Hub do not allow it; the repository is then as it was,
            or holds the complete new commit and only reading it back has failed.
    """
    connection = connect(settings, endpoint, retry)
    plan = plan_push(folder, settings, connection)
    publication = push(plan, connection)
    verify_push(plan.digests, connection, publication.revision, download=download)
    return publication


def push(plan: PushPlan, connection: HubConnection) -> Publication:
    """Carry out a plan. The repository shows the old files or all the new ones, never a mixture.

    Large files go first, several at once, by the client's own LFS or Xet path, which skips what the Hub has. A repeat
    after an interruption therefore sends only what is missing.

    Raises:
        UserError: if someone else published since the plan was made, or the Hub cannot be reached or refuses.
    """
    settings, created = plan.settings, []
    if plan.creates_repository:
        plan = create_repository(plan, connection)
        created.append("repository")
    if plan.creates_branch:
        _create_branch(plan, connection)
        created.append(f"branch {settings.revision}")
    number, commit = plan.pull_request, plan.parent
    if plan.needs_commit:
        number, commit = _commit(plan, connection)
    elif number is not None:
        commit = open_pull_requests(connection).get(number, commit)
    assert commit is not None, "a repository has a first commit"
    if plan.creates_tag:
        assert settings.tag is not None, "a tag is planned where the settings name one"
        _create_tag(settings.tag, commit, connection)
        created.append(f"tag {settings.tag}")
    return Publication(
        plan.repo_id, commit, _url(plan, number), plan.needs_commit, tuple(created), number, tag=settings.tag
    )


def render_publication(publication: Publication) -> str:
    """The result for a person."""
    if not publication.changed:
        done = "Nothing changed"
    elif not publication.committed:
        done = f"Created {' and '.join(publication.created)}"
    elif publication.pull_request is not None:
        done = f"Opened pull request {publication.pull_request}"
    else:
        done = "Published"
    tag = f", tagged {publication.tag}" if publication.tag else ""
    return f"{done}: {publication.url}\nRevision {publication.revision}{tag}"


def create_repository(plan: PushPlan, connection: HubConnection) -> PushPlan:
    """Make the repository of a plan; the plan on its first commit.

    Raises:
        UserError: if the Hub cannot be reached or refuses, or someone else has just made it.
    """
    settings = plan.settings
    connection.call(
        "creating the repository",
        lambda: connection.api.create_repo(
            plan.repo_id,
            repo_type=connection.repo_type,
            space_sdk="static" if connection.repo_type == "space" else None,
            private=settings.private,
            resource_group_id=settings.resource_group_id,
            exist_ok=True,
        ),
    )
    remote = _existing(connection)
    if settings.private and not remote.private:
        raise UserError(f"{plan.title}: someone else has just created it, and it is public; nothing was published")
    parent = remote.branches["main"]
    # A new repository has one commit, with files of the Hub's own.
    if len(read_history(connection, parent)) > 1:
        raise _conflict(plan)
    return dataclasses.replace(plan, parent=parent)


def _create_branch(plan: PushPlan, connection: HubConnection) -> None:
    connection.call(
        "creating the branch",
        lambda: connection.api.create_branch(
            plan.repo_id,
            repo_type=connection.repo_type,
            branch=plan.settings.revision,
            revision=plan.parent,
            exist_ok=True,
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
            plan.repo_id,
            additions,
            repo_type=connection.repo_type,
            revision=settings.revision,
            create_pr=settings.create_pr,
            free_memory=False,
        )

    def commit() -> tuple[int | None, str]:
        try:
            made = api.create_commit(
                plan.repo_id,
                [*additions, *deletions],
                repo_type=connection.repo_type,
                commit_message=settings.commit_message or f"Publish {plan.repo_id.partition('/')[2]}",
                revision=settings.revision,
                create_pr=settings.create_pr,
                parent_commit=plan.parent,
            )
            return (None if made.pr_num is None else int(made.pr_num)), made.oid
        except Exception as error:
            failure = error
        # After the except clause, so that an error of these requests is not taken for a consequence of the first one.
        found = _find_made_commit(plan, connection, failure)
        if found is None:
            raise failure
        return found

    with quiet_hub():
        connection.call("uploading", upload)
        return connection.call("committing", commit)


def _find_made_commit(plan: PushPlan, connection: HubConnection, failure: Exception) -> tuple[int | None, str] | None:
    """The pull request and commit that a failed request has made nonetheless, None where it has made none.

    The answer to a commit can be lost although the commit was made; a repeat then finds its parent outdated.

    Raises:
        UserError: if someone else's commit was in the way.
    """
    status = status_of(failure)
    if status is not None and status not in CONFLICT_STATUSES | TRANSIENT_STATUSES:
        return None
    was_made = isinstance(failure, ValueError) and str(failure).startswith(UNREADABLE_ANSWER)
    if plan.settings.create_pr:
        found: tuple[int | None, str] | None = find_same_pull_request(plan, connection)
    else:
        commit = _commit_after_parent(plan, connection, was_made=was_made)
        found = None if commit is None else (None, commit)
    if found is not None:
        return found
    if status in CONFLICT_STATUSES:
        raise _conflict(plan)
    if was_made:
        raise UserError(
            f"{plan.title}: the files were published, but they differ from the folder, which changed meanwhile; look "
            f"at {_url(plan, None)}, then publish again"
        )
    return None


def _commit_after_parent(plan: PushPlan, connection: HubConnection, *, was_made: bool) -> str | None:
    """The commit on the planned parent, unless it is somebody else's."""
    history = read_history(connection, plan.settings.revision)
    if plan.parent not in history[1:]:
        return None
    commit = history[history.index(plan.parent) - 1]
    return commit if was_made or is_carried_out(plan, read_tree(connection, commit)) else None


def _existing(connection: HubConnection) -> RemoteState:
    remote = read_remote(connection)
    if remote is None:
        raise UserError(f"{connection.title}: does not exist any more, or is hidden from this token")
    return remote


def _conflict(plan: PushPlan) -> UserError:
    return UserError(
        f"{plan.title}: someone else published to {plan.settings.revision} meanwhile, and nothing was overwritten; "
        "publish again to compare with the files that are there now"
    )


def _create_tag(tag: str, commit: str, connection: HubConnection) -> None:
    connection.call(
        "creating the tag",
        lambda: connection.api.create_tag(
            connection.repo_id, repo_type=connection.repo_type, tag=tag, revision=commit, exist_ok=True
        ),
    )
    found = _existing(connection).tags.get(tag)
    if found != commit:
        raise UserError(f"publish.tag: someone else has just set {tag} to {found}; choose another tag")


def _url(plan: PushPlan, pull_request: int | None) -> str:
    if pull_request is not None:
        return f"{plan.endpoint}/{plan.repo_id}/discussions/{pull_request}"
    return repository_url(plan.repo_id, plan.settings.revision, endpoint=plan.endpoint, repo_type=plan.repo_type)
