"""What publishing a folder would change, before anything is changed."""

import dataclasses
import re
from pathlib import Path
from typing import Any, Literal

from huggingface_hub.hf_api import RepoFile

from distilrubert.common.errors import printable
from distilrubert.common.formats import CHECKPOINT, FORMATS, SHARED_FILES
from distilrubert.model_card.card_view import PICTURES
from distilrubert.model_card.inputs import REPORTS
from distilrubert.model_card.space.demo_page import MODEL_FOLDER
from distilrubert.pipeline.hub.check_card import CARD
from distilrubert.pipeline.hub.connection import HubConnection
from distilrubert.pipeline.hub.files import HUB_FILES, FileDigest, differing_files, local_files
from distilrubert.pipeline.hub.publish_settings import PublishSettings
from distilrubert.pipeline.hub.remote import RemoteState, open_pull_requests, read_tree
from distilrubert.pipeline.hub.target import parent_of, read_target, tag_exists
from distilrubert.pipeline.terminal import format_size

Action = Literal["add", "replace", "delete", "keep"]
SIGNS: dict[Action, str] = {"add": "+", "replace": "~", "delete": "-"}


@dataclasses.dataclass(frozen=True)
class PlannedFile:
    """One file and what publishing does to it.

    Attributes:
        path: in the repository.
        action: whether it is added, replaced, deleted or kept.
        size: in bytes; of the repository's file where it is deleted.
        digest: of its new content, None where it is deleted.
    """

    path: str
    action: Action
    size: int
    digest: FileDigest | None


@dataclasses.dataclass(frozen=True)
class PushPlan:
    """What publishing would change.

    Attributes:
        folder: what is published.
        settings: where to and how.
        endpoint: URL of the Hub.
        repo_type: model or space.
        parent: the commit to publish on; None where the repository has to be created.
        creates_branch: whether the branch has to be created, from `parent`.
        creates_tag: whether a tag has to be created.
        pull_request: number of the open pull request that proposes the same already, if any.
        files: all files, sorted by path.
    """

    folder: Path
    settings: PublishSettings
    endpoint: str
    repo_type: str
    parent: str | None
    creates_branch: bool
    creates_tag: bool
    pull_request: int | None
    files: tuple[PlannedFile, ...]

    @property
    def repo_id(self) -> str:
        """The repository, OWNER/NAME."""
        assert self.settings.repo_id is not None, "a plan is made for a target"
        return self.settings.repo_id

    @property
    def title(self) -> str:
        """The repository as a person reads it."""
        return f"Space {self.repo_id}" if self.repo_type == "space" else self.repo_id

    @property
    def creates_repository(self) -> bool:
        """Whether the repository has to be created."""
        return self.parent is None

    @property
    def changes(self) -> list[PlannedFile]:
        """The files that the commit changes."""
        return [file for file in self.files if file.action != "keep"]

    @property
    def needs_commit(self) -> bool:
        """Whether there are changes that no open pull request proposes yet."""
        return bool(self.changes) and self.pull_request is None

    @property
    def is_empty(self) -> bool:
        """Whether publishing would change nothing."""
        return not (self.needs_commit or self.creates_repository or self.creates_branch or self.creates_tag)

    @property
    def upload_size(self) -> int:
        """Bytes of all files that are added or replaced."""
        return sum(file.size for file in self.files if file.action in ("add", "replace"))

    @property
    def digests(self) -> dict[str, FileDigest]:
        """The content of the repository after publishing, by path."""
        return {file.path: file.digest for file in self.files if file.digest is not None}

    def to_dict(self) -> dict[str, Any]:
        """The form for machines (`--no-push --json`)."""
        return {
            "repo_id": self.repo_id,
            "repo_type": self.repo_type,
            "endpoint": self.endpoint,
            "revision": self.settings.revision,
            "parent": self.parent,
            "folder": str(self.folder),
            "creates_repository": self.creates_repository,
            "creates_branch": self.creates_branch,
            "creates_tag": self.creates_tag,
            "pull_request": self.pull_request,
            "is_empty": self.is_empty,
            "upload_bytes": self.upload_size,
            "files": [{"path": file.path, "action": file.action, "bytes": file.size} for file in self.files],
        }


# What a run makes with the weights, and what belongs to another model once they are replaced: exports, files of the
# tokenizer, reports, and the shards into which transformers splits large weights.
WEIGHTS = CHECKPOINT.path
MADE_WITH_WEIGHTS = frozenset({
    *(path for entry in FORMATS.values() for path in entry.paths),
    *SHARED_FILES,
    *(f"reports/{name}.json" for name in REPORTS),
    *(f"assets/{name}" for name in PICTURES),
    "model.safetensors.index.json",
})  # fmt: skip
WEIGHTS_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")


def plan_push(folder: Path, settings: PublishSettings, connection: HubConnection) -> PushPlan:
    """Compare a folder with a repository, by hash. Nothing is changed.

    Raises:
        UserError: if the folder cannot be read, the Hub cannot be reached or refuses, or the settings do not fit
            the repository as it is.
    """
    digests = local_files(folder)
    remote = read_target(settings, connection)
    branches = {"main"} if remote is None else remote.branches.keys()
    parent = None if remote is None else parent_of(settings, remote)
    plan = PushPlan(
        folder,
        settings,
        connection.endpoint,
        connection.repo_type,
        parent,
        creates_branch=settings.revision not in branches,
        creates_tag=False,
        pull_request=None,
        files=_planned_files(
            digests,
            {} if parent is None else read_tree(connection, parent),
            settings,
            is_page=connection.repo_type == "space",
        ),
    )
    if settings.create_pr and plan.changes:
        number, _ = find_same_pull_request(plan, connection) or (None, None)
        plan = dataclasses.replace(plan, pull_request=number)
    return dataclasses.replace(plan, creates_tag=_creates_tag(plan, remote))


def find_same_pull_request(plan: PushPlan, connection: HubConnection) -> tuple[int, str] | None:
    """Number and commit of the open pull request that proposes what the plan would, None where there is none."""
    for number, commit in open_pull_requests(connection).items():
        if is_carried_out(plan, read_tree(connection, commit)):
            return number, commit
    return None


def is_carried_out(plan: PushPlan, tree: dict[str, RepoFile]) -> bool:
    """Whether a tree has the content that the plan leads to."""
    deleted = [file.path for file in plan.files if file.action == "delete"]
    return not differing_files(plan.digests, tree) and not any(path in tree for path in deleted)


def render_plan(plan: PushPlan) -> str:
    """The plan for a person: one line of summary, one line a file that changes."""
    counts = {
        action: sum(file.action == action for file in plan.files) for action in ("add", "replace", "delete", "keep")
    }
    lines = [
        f"{plan.title} at {plan.endpoint}, {plan.settings.revision} ({_origin(plan)}): "
        f"{counts['add']} to add, {counts['replace']} to replace, {counts['delete']} to delete, "
        f"{counts['keep']} unchanged; {format_size(plan.upload_size)}"
    ]
    width = max((len(file.path) for file in plan.changes), default=0)
    lines += [f"  {SIGNS[file.action]} {file.path:<{width}}  {format_size(file.size):>10}" for file in plan.changes]
    if plan.creates_tag:
        lines.append(f"  + tag {plan.settings.tag}")
    if plan.pull_request is not None:
        lines.append(f"Pull request {plan.pull_request} proposes this already.")
    elif plan.is_empty:
        lines.append("Nothing to do: the repository has these files already.")
    return "\n".join(map(printable, lines))


def _origin(plan: PushPlan) -> str:
    if plan.creates_repository:
        visibility = {None: "", True: "private ", False: "public "}[plan.settings.private]
        return f"a new {visibility}repository"
    assert plan.parent is not None
    if plan.settings.create_pr:
        return f"as a pull request against {plan.parent[:8]}"
    return f"{'a new branch from' if plan.creates_branch else 'now'} {plan.parent[:8]}"


def _planned_files(
    digests: dict[str, FileDigest], tree: dict[str, RepoFile], settings: PublishSettings, *, is_page: bool
) -> tuple[PlannedFile, ...]:
    differing = set(differing_files(digests, tree))

    def action(path: str) -> Action:
        if path not in differing:
            return "keep"
        return "replace" if path in tree else "add"

    files = [PlannedFile(path, action(path), digest.size, digest) for path, digest in digests.items()]
    files += [
        PlannedFile(path, "delete", tree[path].size, None)
        for path in tree.keys() - digests.keys() - HUB_FILES
        if settings.prune
        # Another card may leave out what a file of the same weights was named for.
        or (not is_page and {WEIGHTS, CARD} & differing and _is_made_with_weights(path))
        # The copy of a model that a page does not load, as it once was private, is of no use to anybody.
        or (is_page and path.startswith(f"{MODEL_FOLDER}/"))
    ]
    return tuple(sorted(files, key=lambda file: file.path))


def _is_made_with_weights(path: str) -> bool:
    return path in MADE_WITH_WEIGHTS or WEIGHTS_SHARD.fullmatch(path) is not None


def _creates_tag(plan: PushPlan, remote: RemoteState | None) -> bool:
    tag = plan.settings.tag
    if tag is None:
        return False
    if remote is None or tag not in remote.tags:
        return True
    if remote.tags[tag] == plan.parent and not plan.needs_commit:
        return False
    raise tag_exists(tag, remote)
