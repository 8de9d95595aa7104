"""What a repository on the Hub looks like now. Reading raises UserError if the Hub cannot be reached or refuses."""

import dataclasses
import tempfile
from pathlib import Path

from huggingface_hub.errors import RepositoryNotFoundError
from huggingface_hub.hf_api import GitCommitInfo, RepoFile

from distilrubert.common.hub_failures import status_of
from distilrubert.common.quiet_hub import quiet_hub
from distilrubert.pipeline.hub.connection import HubConnection

# How many of the newest open pull requests are compared with the folder.
PULL_REQUESTS_SEARCHED = 20


@dataclasses.dataclass(frozen=True)
class RemoteState:
    """A repository at one moment.

    Attributes:
        private: whether only its owner and members see it.
        branches: commit of each branch, and of each pull request under its ref as in refs/pr/1.
        tags: commit of each tag.
    """

    private: bool
    branches: dict[str, str]
    tags: dict[str, str]


def read_remote(connection: HubConnection) -> RemoteState | None:
    """Read a repository's visibility and refs; None where there is no such repository for this token."""
    api = connection.api

    def request() -> RemoteState | None:
        try:
            info = api.repo_info(connection.repo_id, repo_type=connection.repo_type)
        except RepositoryNotFoundError as error:
            if status_of(error) == 404:
                return None
            raise
        refs = api.list_repo_refs(connection.repo_id, repo_type=connection.repo_type, include_pull_requests=True)
        branches = {ref.name: ref.target_commit for ref in refs.branches}
        branches |= {ref.ref: ref.target_commit for ref in refs.pull_requests or []}
        return RemoteState(bool(info.private), branches, {ref.name: ref.target_commit for ref in refs.tags})

    return connection.call("reading the repository", request)


def read_tree(connection: HubConnection, commit: str) -> dict[str, RepoFile]:
    """The files of a commit by path."""

    def request() -> dict[str, RepoFile]:
        entries = connection.api.list_repo_tree(
            connection.repo_id, repo_type=connection.repo_type, recursive=True, revision=commit
        )
        return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}

    return connection.call("reading the list of files", request)


def read_commits(connection: HubConnection, revision: str) -> list[GitCommitInfo]:
    """The commits of a revision, newest first."""
    return connection.call(
        "reading the history",
        lambda: connection.api.list_repo_commits(connection.repo_id, repo_type=connection.repo_type, revision=revision),
    )


def read_history(connection: HubConnection, revision: str) -> list[str]:
    """The ids of the commits of a revision, newest first."""
    return [commit.commit_id for commit in read_commits(connection, revision)]


def read_text(connection: HubConnection, commit: str, path: str) -> str:
    """A small text file of a commit."""

    def request() -> str:
        with tempfile.TemporaryDirectory() as folder, quiet_hub():
            file = connection.api.hf_hub_download(
                connection.repo_id, path, repo_type=connection.repo_type, revision=commit, cache_dir=folder
            )
            return Path(file).read_text(encoding="utf-8", errors="replace")

    return connection.call(f"reading {path}", request)


def open_pull_requests(connection: HubConnection) -> dict[int, str]:
    """The commits of the newest open pull requests by number, newest first."""
    api = connection.api

    def request() -> dict[int, str]:
        refs = api.list_repo_refs(connection.repo_id, include_pull_requests=True)
        commits = {ref.ref: ref.target_commit for ref in refs.pull_requests or []}
        found = api.get_repo_discussions(connection.repo_id, discussion_type="pull_request", discussion_status="open")
        numbers = sorted((discussion.num for discussion in found), reverse=True)[:PULL_REQUESTS_SEARCHED]
        return {number: commits[f"refs/pr/{number}"] for number in numbers if f"refs/pr/{number}" in commits}

    return connection.call("reading the pull requests", request)
