"""Reading a publication back: the same bytes, and a model that loads."""

import dataclasses
import tempfile
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from distilrubert.common.errors import UserError, printable
from distilrubert.common.hub_address import repository_url
from distilrubert.common.quiet_hub import quiet_hub
from distilrubert.pipeline.hub.connection import HubConnection, RetryPolicy, connect
from distilrubert.pipeline.hub.files import HUB_FILES, FileDigest, differing_files, local_files
from distilrubert.pipeline.hub.model_loading import LOADED_FILES, loading_problems
from distilrubert.pipeline.hub.plan import plan_push
from distilrubert.pipeline.hub.publish_settings import PublishSettings
from distilrubert.pipeline.hub.remote import read_remote, read_tree

LISTED_FILES = 5


@dataclasses.dataclass(frozen=True)
class Verification:
    """What was read back.

    Attributes:
        repo_id: the repository, OWNER/NAME.
        revision: the commit that was read.
        url: where a person looks at it.
        files: how many files hold exactly the bytes of the folder.
        others: files that the repository holds beside them.
        loads: whether the model was loaded from an empty cache; None where it was not downloaded.
    """

    repo_id: str
    revision: str
    url: str
    files: int
    others: tuple[str, ...]
    loads: bool | None

    def to_dict(self) -> dict[str, Any]:
        """The form for machines (`--json`)."""
        return dataclasses.asdict(self)


def verify_push(
    digests: Mapping[str, FileDigest], connection: HubConnection, revision: str, *, download: bool = True
) -> Verification:
    """Compare a revision with what was to be published, then load the model from an empty cache at that revision.

    Args:
        digests: what it must hold, by path: `plan.digests`, or `local_files(folder)`.
        connection: to the repository.
        revision: a commit, branch, tag, or refs/pr/N.
        download: whether to download and load the model; the comparison reads the list of files alone.

    Raises:
        UserError: naming the files that are missing or differ, or why the model does not load.
    """
    commit = _commit_of(connection, revision)
    tree = read_tree(connection, commit)
    differing = differing_files(digests, tree)
    if differing:
        listed = ", ".join(differing[:LISTED_FILES]) + (", …" if len(differing) > LISTED_FILES else "")
        raise UserError(
            f"{connection.title}: at {commit} {len(differing)} of {len(digests)} files differ from the folder "
            f"({listed}); publish the folder as it is now"
        )
    files = [path for path in tree if any(fnmatch(path, pattern) for pattern in LOADED_FILES)]
    loads = _load_from_empty_cache(connection, commit, files) if download and "config.json" in digests else None
    others = tuple(sorted(tree.keys() - digests.keys() - HUB_FILES))
    url = repository_url(connection.repo_id, commit, endpoint=connection.endpoint, repo_type=connection.repo_type)
    return Verification(connection.repo_id, commit, url, len(digests), others, loads)


def verify_folder(
    folder: Path,
    settings: PublishSettings,
    endpoint: str | None = None,
    retry: RetryPolicy | None = None,
    *,
    download: bool = True,
) -> Verification:
    """Compare a folder with what is published under its settings (`publish --verify-only`). Nothing is changed.

    This is the tag that the settings name, or the open pull request that proposes the folder, or else the revision.
    The endpoint is HF_ENDPOINT's or the public Hub's where it is None. Without `download` the model is not loaded.

    Raises:
        UserError: as :func:`verify_push`, and where the folder, the settings or the token are not usable, or no open
            pull request proposes what the folder holds.
    """
    connection = connect(settings, endpoint, retry)
    revision = _published_to(folder, settings, connection)
    return verify_push(local_files(folder), connection, revision, download=download)


def render_verification(verification: Verification) -> str:
    """The result for a person."""
    loaded = {True: ", and the model loads from an empty cache", False: "", None: ""}[verification.loads]
    others = f" It also holds: {', '.join(verification.others)}." if verification.others else ""
    return printable(
        f"Verified: all {verification.files} files of {verification.repo_id} at {verification.revision[:8]} are those "
        f"of the folder{loaded}.{others}"
    )


def _published_to(folder: Path, settings: PublishSettings, connection: HubConnection) -> str:
    if settings.tag or not settings.create_pr:
        return settings.tag or settings.revision
    plan = plan_push(folder, settings, connection)
    if plan.pull_request is not None:
        return f"refs/pr/{plan.pull_request}"
    if plan.needs_commit:
        raise UserError(f"{connection.repo_id}: no open pull request proposes what {folder} holds")
    return settings.revision


def _commit_of(connection: HubConnection, revision: str) -> str:
    remote = read_remote(connection)
    if remote is None:
        raise UserError(f"{connection.title}: not found at {connection.endpoint}, or hidden from this token")
    refs = remote.tags | remote.branches
    if revision in refs:
        return refs[revision]
    if len(revision) == 40:
        return revision
    raise UserError(f"{connection.title}: has no revision {revision}; it has {', '.join(refs)}")


def _load_from_empty_cache(connection: HubConnection, commit: str, files: list[str]) -> bool:
    with tempfile.TemporaryDirectory(prefix="distilrubert-verify-") as cache:
        folder = Path(cache, "model")

        # One by one: where the Hub cannot be reached, `snapshot_download` returns the files that it has so far.
        def download() -> None:
            for file in files:
                connection.api.hf_hub_download(connection.repo_id, file, revision=commit, local_dir=folder)

        with quiet_hub():
            connection.call("downloading the model", download)
        problems = loading_problems(folder)
    if problems:
        raise UserError(f"{connection.repo_id}: at {commit} the model does not load: {'; '.join(problems)}")
    return True
