"""Commits in the place of branches and tags: what a run reads from the Hub stays the same until it is updated.

``commits.json`` in the run directory says which commit each revision was when the run began; ``recipe.yaml`` there
names the commits themselves.
"""

import dataclasses
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from huggingface_hub import HfApi, snapshot_download

from distilrubert.common.configuration import Section
from distilrubert.common.hub_address import COMMIT
from distilrubert.common.persistence import read_json, write_json
from distilrubert.evaluation.tasks.task import TaskDefinition, load_task, load_tasks
from distilrubert.modeling.downloads import TIMEOUT_S
from distilrubert.pipeline.recipe import Recipe
from distilrubert.pipeline.run import Run

S = TypeVar("S", bound=Section)
logger = logging.getLogger(__name__)


class Reference(NamedTuple):
    """A revision of a ``model`` or ``dataset`` on the Hub that a recipe names."""

    kind: str
    repo_id: str
    revision: str

    @property
    def key(self) -> str:
        """How it is named in commits.json."""
        return f"{self.kind} {self.repo_id}@{self.revision}"


def with_commits(run: Run, *, update: bool = False) -> Run:
    """The run with a commit for each revision: the recorded one, or else that of the Hub or of its local cache.

    What cannot be resolved keeps its name: the checks before the work say what is wrong with it.

    The run's folder is only read. With `update` the recorded commits are asked for anew.
    """
    if not run.launch.leads:
        return run
    known = {} if update else _recorded(run)
    found = {reference.key: known.get(reference.key) or _commit_of(reference) for reference in _references(run.recipe)}
    commits = {key: commit for key, commit in found.items() if commit}
    return dataclasses.replace(run, recipe=_pinned(run.recipe, commits), commits=commits)


def follow_commits(run: Run) -> Run:
    """The run with the commits that the leading process has recorded."""
    commits = _recorded(run)
    return dataclasses.replace(run, recipe=_pinned(run.recipe, commits), commits=commits)


def write_commits(run: Run) -> None:
    """Record the commits of a run; those of revisions that it does not name stay."""
    known = _recorded(run)
    if (merged := {**known, **run.commits}) != known:
        write_json(_file(run), merged)


def pinned_tasks(run: Run) -> tuple[list[TaskDefinition], list[TaskDefinition]]:
    """The tasks to fine-tune on and those to probe only, each data set of the Hub at its commit."""
    evaluation = run.recipe.evaluation
    tasks = [_pinned_task(task, run.commits) for task in load_tasks([*evaluation.tasks, *evaluation.probed_tasks])]
    return tasks[: len(evaluation.tasks)], tasks[len(evaluation.tasks) :]


def pinned_task(run: Run) -> TaskDefinition:
    """The task that the recipe makes a student for, its data set of the Hub at its commit."""
    assert run.recipe.task is not None
    return _pinned_task(load_task(run.recipe.task.name), run.commits)


def commit_of(run: Run, model: str) -> str:
    """The commit of a model that a recipe names by its Hub id alone; ``main`` where it is not known."""
    return run.commits.get(Reference("model", model, "main").key, "main")


def _references(recipe: Recipe) -> Iterator[Reference]:
    """The revisions on the Hub that a recipe names, but for those that are commits."""
    found = []
    if recipe.teacher.model and not Path(recipe.teacher.model).exists():
        found.append(Reference("model", recipe.teacher.model, recipe.teacher.revision))
    for source in recipe.corpus.sources:
        if source.dataset:
            found.append(Reference("dataset", source.dataset, source.revision or "main"))
    named = [recipe.task.name] if recipe.task else []
    for model in (recipe.task.teacher if recipe.task else None, recipe.student.start_from):
        if model and not Path(model).exists():
            found.append(Reference("model", model, "main"))
    for task in [*load_tasks([*recipe.evaluation.tasks, *recipe.evaluation.probed_tasks]), *map(load_task, named)]:
        if task.dataset:
            found.append(Reference("dataset", task.dataset.id, task.dataset.revision))
    return (reference for reference in dict.fromkeys(found) if not COMMIT.fullmatch(reference.revision))


def _commit_of(reference: Reference) -> str | None:
    try:
        info = HfApi().repo_info(
            reference.repo_id, revision=reference.revision, repo_type=reference.kind, timeout=TIMEOUT_S
        )
        return info.sha
    # Its errors have no common base, and what is wrong is said by whoever reads the model or the data set.
    except Exception:
        return _cached_commit_of(reference)


def _cached_commit_of(reference: Reference) -> str | None:
    try:
        folder = snapshot_download(
            reference.repo_id, revision=reference.revision, repo_type=reference.kind, local_files_only=True
        )
    except Exception:
        return None
    logger.info("%s: the Hub cannot be asked; the commit in the local cache is taken", reference.repo_id)
    return Path(folder).name


def _pinned(recipe: Recipe, commits: Mapping[str, str]) -> Recipe:
    def commit(kind: str, repo_id: str | None, revision: str | None) -> str | None:
        return commits.get(Reference(kind, repo_id or "", revision or "main").key, revision)

    teacher = _changed(recipe.teacher, revision=commit("model", recipe.teacher.model, recipe.teacher.revision))
    sources = [
        _changed(source, revision=commit("dataset", source.dataset, source.revision))
        for source in recipe.corpus.sources
    ]
    return _changed(recipe, teacher=teacher, corpus=_changed(recipe.corpus, sources=sources))


def _pinned_task(task: TaskDefinition, commits: Mapping[str, str]) -> TaskDefinition:
    if task.dataset is None:
        return task
    commit = commits.get(Reference("dataset", task.dataset.id, task.dataset.revision).key, task.dataset.revision)
    return _changed(task, dataset=_changed(task.dataset, revision=commit))


def _changed(section: S, **values: Any) -> S:
    return section.model_copy(update=values)


def _recorded(run: Run) -> dict[str, str]:
    return dict(read_json(_file(run))) if _file(run).exists() else {}


def _file(run: Run) -> Path:
    return run.folder / "commits.json"
