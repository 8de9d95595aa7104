"""Publishing under faults: one fault at one request, then a look at the repository, then a repeat.

`python -m tests.hub.survival` from the root of the project runs them all and prints the table of docs/publishing.md.
"""

import contextlib
import dataclasses
import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub
import torch
from huggingface_hub import constants

from distilrubert.common.errors import UserError
from distilrubert.pipeline.hub.connection import RetryPolicy, connect
from distilrubert.pipeline.hub.plan import plan_push
from distilrubert.pipeline.hub.publish_settings import PublishSettings
from distilrubert.pipeline.hub.push import Publication, push, push_folder

from .faults import Fault
from .routes_write import is_large
from .server import LocalHub
from .storage import Entry, Repository
from .victim import Victim

ONCE = RetryPolicy(attempts=1)
PATIENT = RetryPolicy(attempts=20, first_wait_s=0.05, longest_wait_s=0.2)
LONGEST_PAUSE_S = 0.05
Tree = dict[str, str]


@dataclasses.dataclass(frozen=True)
class Scenario:
    """What is published, and what a visitor may see meanwhile and afterwards.

    Attributes:
        name: for people.
        changes: settings beside the repository.
        is_new: whether there is no repository yet.
        ref: where the new files are in the end.
        kinds: the faults that it goes through.
        verifies: whether it is also read back, which only reads.
    """

    name: str
    changes: dict[str, object]
    is_new: bool
    ref: str
    kinds: tuple[Fault, ...]
    verifies: bool


# Where the Hub does what it was asked to and the client does not learn of it.
UNCLEAR = tuple(fault for fault in Fault if fault.is_done)
SCENARIOS = (
    Scenario("an update that adds, replaces and deletes", {"prune": True}, False, "main", tuple(Fault), True),
    Scenario(
        "a new repository with a branch and a tag", {"revision": "next", "tag": "v1"}, True, "next", UNCLEAR, False
    ),
    Scenario("a pull request", {"create_pr": True}, False, "refs/pr/1", UNCLEAR, False),
)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of the publish that met the fault."""

    index: int
    published: bool
    changed_before_repeat: bool


def push_once(folder: Path, settings: PublishSettings, endpoint: str, retry: RetryPolicy) -> Publication:
    """Publish without reading back."""
    connection = connect(settings, endpoint, retry)
    return push(plan_push(folder, settings, connection), connection)


class Trial:
    """One repository on a Hub, brought into its old state again for every fault."""

    def __init__(
        self, hub: LocalHub, model_folder: Path, work: Path, scenario: Scenario, victim: Victim | None
    ) -> None:
        self.hub, self.scenario, self.victim = hub, scenario, victim
        self._model_folder, self._work = model_folder, work
        hub.multipart_threshold, hub.part_size, hub.page_size = 400, 300, 6

    def run(self, fault: Fault, index: int, retry: RetryPolicy = ONCE, path: str = "") -> Outcome | None:
        """Publish with that fault, check, publish again, check. None where the publish has fewer requests."""
        folder, settings, old = self._prepare()
        with self._publishing_as_me():
            plan = self.hub.fail(fault, index, path=path)
            if fault.kills:
                assert self.victim is not None
                plan.victim = self.victim.prepare(folder, settings, self.hub.endpoint, self.hub.tokens["me"])
                status = self.victim.publish()
                assert status in (0, -9), status
                published = status == 0
            else:
                published = self._publish(folder, settings, retry)
            if not plan.fired:
                return None
            self.hub.wait_until_up()
            self.hub.heal()
            new = self._tree_of(folder)
            self._check_all_or_nothing(settings, old, new)
            changed = self._holds(settings, new)
            assert changed or not published
            again = push_once(folder, settings, self.hub.endpoint, PATIENT)
            assert self._tree(settings, again.revision) == new
            self._check_end(settings, old, new)
        return Outcome(index, published, changed)

    def _prepare(self) -> tuple[Path, PublishSettings, Tree]:
        """A folder of new files, large ones of their own for each case, and a repository with the old ones."""
        case = len(self.hub.storage.repositories)
        while f"me/case-{case}" in self.hub.storage.repositories:
            case += 1
        repo_id = f"me/case-{case}"
        folder = self._work / f"case-{case}"
        shutil.copytree(self._model_folder, folder)
        old: Tree = {}
        if not self.scenario.is_new:
            repository = self.hub.storage.create(repo_id, "me")
            files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
            tree = repository.tree() | {path: self.hub.storage.store(file) for path, file in files.items()}
            tree |= {"README.md": Entry(b"---\nlicense: mit\n---\nold"), "removed.txt": Entry(b"old")}
            repository.commit("main", tree, repository.branches["main"], "old", "me")
            old = self._tree(PublishSettings(repo_id=repo_id), "main")
        (folder / "in-one-piece.bin").write_bytes(os.urandom(200))
        (folder / "in-two-parts.bin").write_bytes(os.urandom(500))
        settings = PublishSettings(repo_id=repo_id, **self.scenario.changes)  # type: ignore[arg-type]
        return folder, settings, old

    def _publish(self, folder: Path, settings: PublishSettings, retry: RetryPolicy) -> bool:
        publish = push_folder if self.scenario.verifies else push_once
        try:
            publish(folder, settings, self.hub.endpoint, retry)
        except UserError:
            return False
        return True

    @contextlib.contextmanager
    def _publishing_as_me(self) -> Iterator[None]:
        before = os.environ.get("HF_TOKEN")
        os.environ["HF_TOKEN"] = self.hub.tokens["me"]
        try:
            yield
        finally:
            del os.environ["HF_TOKEN"]
            if before is not None:
                os.environ["HF_TOKEN"] = before

    def _repository(self, settings: PublishSettings) -> Repository | None:
        return self.hub.storage.repositories.get(str(settings.repo_id))

    def _tree(self, settings: PublishSettings, revision: str) -> Tree:
        repository = self._repository(settings)
        assert repository is not None
        return {path: entry.etag for path, entry in repository.tree(revision).items() if path != ".gitattributes"}

    def _tree_of(self, folder: Path) -> Tree:
        def etag(path: Path) -> str:
            content = path.read_bytes()
            if not is_large(path.name, len(content)):
                return Entry(content).etag
            return hashlib.sha256(content).hexdigest()

        tree = {path.relative_to(folder).as_posix(): etag(path) for path in folder.rglob("*") if path.is_file()}
        keeps_old = not self.scenario.is_new and not self.scenario.changes.get("prune")
        return tree | ({"removed.txt": Entry(b"old").etag} if keeps_old else {})

    def _holds(self, settings: PublishSettings, tree: Tree) -> bool:
        repository = self._repository(settings)
        return (
            repository is not None
            and self.scenario.ref in repository.branches
            and self._tree(settings, self.scenario.ref) == tree
        )

    def _check_all_or_nothing(self, settings: PublishSettings, old: Tree, new: Tree) -> None:
        """Whatever a visitor can name holds exactly the old files or exactly the new ones."""
        repository = self._repository(settings)
        if repository is None:
            assert self.scenario.is_new
            return
        for revision in (*repository.branches, *repository.tags, *repository.commits):
            assert self._tree(settings, revision) in ({}, old, new), revision

    def _check_end(self, settings: PublishSettings, old: Tree, new: Tree) -> None:
        self._check_all_or_nothing(settings, old, new)
        assert self._holds(settings, new)
        repository = self._repository(settings)
        assert repository is not None
        assert len(repository.pull_requests) == (1 if settings.create_pr else 0)
        assert len(repository.history(self.scenario.ref)) == (2 if self.scenario.is_new else 3), "one commit, not two"
        if self.scenario.ref != "main":
            assert self._tree(settings, "main") == old
        if settings.tag is not None:
            assert repository.tags[settings.tag] == repository.branches[self.scenario.ref]


@contextlib.contextmanager
def hurried() -> Iterator[None]:
    """Shorten all pauses: the client's own back-off begins at a whole second, and it meets hundreds of faults here."""
    sleep = time.sleep
    time.sleep = lambda seconds: sleep(min(seconds, LONGEST_PAUSE_S))
    try:
        yield
    finally:
        time.sleep = sleep


def survive(trial: Trial, fault: Fault, retry: RetryPolicy = ONCE) -> list[Outcome]:
    """Every request index of a publish, one after the other."""
    outcomes: list[Outcome] = []
    with hurried():
        while (outcome := trial.run(fault, len(outcomes), retry)) is not None:
            outcomes.append(outcome)
    return outcomes


def print_table(write: Callable[[str], object]) -> None:
    """All faults of all scenarios as a Markdown table."""
    from .conftest import save_model_folder

    constants.HF_HUB_DISABLE_XET = True
    torch.set_num_threads(1)
    write(
        "| fault | "
        + " | ".join(scenario.name for scenario in SCENARIOS)
        + " |\n|---|"
        + "---|" * len(SCENARIOS)
        + "\n"
    )
    total = 0
    with tempfile.TemporaryDirectory() as scratch, LocalHub(Path(scratch) / "storage") as hub, Victim() as victim:
        model = save_model_folder(Path(scratch) / "model")
        for fault in Fault:
            cells = []
            for scenario in SCENARIOS:
                trial = Trial(hub, model, Path(scratch), scenario, victim)
                outcomes = survive(trial, fault) if fault in scenario.kinds else []
                total += len(outcomes)
                cells.append(f"{len(outcomes)} of {len(outcomes)}" if outcomes else "")
            write(f"| {fault.value} | " + " | ".join(cells) + " |\n")
    write(f"\n{total} faults, {total} survived, huggingface_hub {huggingface_hub.__version__}.\n")


if __name__ == "__main__":
    print_table(sys.stdout.write)
