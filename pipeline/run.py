"""A run directory: one recipe on its way to a model repository, stage by stage.

A stage leaves a stamp: the inputs that it was made from. While the stamp holds and the outputs are there, the
stage is skipped; where an input changed, the stage and all that follow from it are done again. What they had made is
set aside until the run is complete with the new inputs, and taken back where the old ones return before.
"""

import contextlib
import dataclasses
import importlib.metadata
import logging
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from distilrubert.common.contents import recall, remember
from distilrubert.common.errors import UserError
from distilrubert.common.measurements import installed_versions
from distilrubert.common.persistence import write_text
from distilrubert.pipeline.launch import Launch
from distilrubert.pipeline.recipe import Recipe, resolved
from distilrubert.pipeline.stamps import Stamp, Stamps, difference, fingerprint, plain

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Run:
    """A recipe and what works on it.

    Attributes:
        recipe: the recipe.
        folder: where everything made from it goes.
        launch: the processes that work on it.
        shared_scores: where the finished measurements of quality are kept, by their content, if not in the run
            directory: runs that share it measure their common teacher once.
    """

    recipe: Recipe
    folder: Path
    launch: Launch = dataclasses.field(default_factory=Launch)
    shared_scores: Path | None = None

    @property
    def vocabulary(self) -> Path:
        """The tokenizer of a teacher that the recipe trains itself."""
        return self.folder / "vocabulary"

    @property
    def corpus(self) -> Path:
        """The tokenised corpus."""
        return self.folder / "corpus"

    @property
    def teacher(self) -> Path:
        """The teacher that the recipe trains itself."""
        return self.folder / "teacher"

    @property
    def student(self) -> Path:
        """The finished student checkpoint."""
        return self.folder / "student"

    @property
    def reports(self) -> Path:
        """What was measured, one JSON file each."""
        return self.folder / "reports"

    @property
    def scores(self) -> Path:
        """The finished measurements of quality."""
        return self.shared_scores or self.folder / "scores"

    @property
    def hub(self) -> Path:
        """Exactly what is pushed."""
        return self.folder / "hub"


@dataclasses.dataclass(frozen=True)
class Stage:
    """One step of the road.

    Attributes:
        name: short name, as in the stamps and in messages.
        title: what it does, for the progress lines.
        after: names of the stages whose results it reads, where the recipe needs those.
        inputs: everything else that decides its result, as plain JSON values.
        outputs: files and folders that are there when it is done.
        work: files and folders that it may leave besides: those from which an unfinished stage continues, those that
            only some settings ask for.
        perform: does it; called again after an interruption, it continues.
        collective: whether all processes of a launch perform it together, not the leading one alone.
    """

    name: str
    title: str
    after: tuple[str, ...]
    inputs: Callable[[Run], Mapping[str, Any]]
    outputs: Callable[[Run], Sequence[Path]]
    perform: Callable[[Run], None]
    work: Callable[[Run], Sequence[Path]] = lambda _: ()
    collective: bool = False


def bring_up_to_date(run: Run, stages: Sequence[Stage], *, ends_run: bool = True) -> list[str]:
    """Perform every stage whose stamp does not hold, in order.

    Args:
        run: the run directory and its recipe.
        stages: the stages, each behind those it comes after.
        ends_run: whether the last of them completes the run. What was set aside goes then and not before: it may be all
            that there is of what later stages were made from.

    Returns:
        The names of the stages that this process performed.

    Raises:
        UserError: if the folder cannot be written, or another process is working in it.
    """
    if not run.launch.leads:
        return _follow(run, stages)
    with locked(run.folder):
        inputs = inputs_of(run, stages)
        remember(_memory(run))
        for stage in stages:
            _settle(run, stage, inputs[stage.name])
        _write_recipe(run)
        stamps = Stamps(run.folder)
        performed = []
        for stage in stages:
            needed = _is_needed(run, stage, inputs[stage.name])
            if stage.collective:
                run.launch.announce(stage.name, perform=needed)
            if needed:
                started = time.monotonic()
                stage.perform(run)
                stamps.write(stage.name, Stamp(inputs[stage.name], complete=True))
                logger.info("%s: done in %.0f s", stage.name, time.monotonic() - started)
                performed.append(stage.name)
        if performed and ends_run:
            stamps.forget(stage.name for stage in stages)
        return performed


def inputs_of(run: Run, stages: Sequence[Stage]) -> dict[str, dict[str, Any]]:
    """What each stage is to be made from, by its name; of the stages before it, the fingerprints.

    Args:
        run: of its folder only what is remembered of the content of files is read.
        stages: the stages, each behind those it comes after.

    Raises:
        UserError: if a file that is needed cannot be read.
    """
    recall(_memory(run))
    inputs: dict[str, dict[str, Any]] = {}
    for stage in stages:
        after = {name: fingerprint(inputs[name]) for name in stage.after if name in inputs}
        inputs[stage.name] = plain({**stage.inputs(run), "after": after})
    return inputs


def _memory(run: Run) -> Path:
    return run.folder / "stamps" / "contents.json"


def is_up_to_date(run: Run, stage: Stage, inputs: Mapping[str, Any]) -> bool:
    """Whether a stage has been completed with these inputs, and its outputs are there."""
    stamp = Stamps(run.folder).read(stage.name)
    return bool(stamp == Stamp(dict(inputs), complete=True) and all(path.exists() for path in stage.outputs(run)))


def _follow(run: Run, stages: Sequence[Stage]) -> list[str]:
    """Join the leading process in the stages that all perform together."""
    performed = []
    for stage in stages:
        if stage.collective and run.launch.hear(stage.name):
            stage.perform(run)
            performed.append(stage.name)
    return performed


def _settle(run: Run, stage: Stage, inputs: Mapping[str, Any]) -> None:
    """Leave nothing in the stage's places but what was made from these inputs, if anything was.

    What was made from others is set aside, not removed: it is all there is until the new result is complete, and it
    comes back where its inputs do.
    """
    stamps, files = Stamps(run.folder), [*stage.outputs(run), *stage.work(run)]
    stamp, aside = stamps.read(stage.name), stamps.aside(stage.name, inputs)
    if stamp and stamp.inputs != inputs:
        what = "taking back what was made so" if aside.exists() else "doing it again"
        logger.info("%s: %s; %s", stage.name, difference(stamp.inputs, inputs), what)
        stamps.set_aside(stage.name, files)
        if (kept := stamps.aside(stage.name, stamp.inputs)).exists():
            logger.info("%s: what there was is kept in %s until the run is complete", stage.name, kept)
    stamps.take_back(stage.name, inputs, files)


def _is_needed(run: Run, stage: Stage, inputs: dict[str, Any]) -> bool:
    """Whether the stage has to be performed; if so, its stamp says that it has begun."""
    if is_up_to_date(run, stage, inputs):
        logger.info("%s: up to date", stage.name)
        return False
    stamps = Stamps(run.folder)
    stamp = stamps.read(stage.name)
    if stamp and not stamp.complete:
        logger.info("%s: continuing where it stopped", stage.name)
    logger.info("%s: %s", stage.name, stage.title)
    stamps.write(stage.name, Stamp(inputs, complete=False))
    return True


def _write_recipe(run: Run) -> None:
    """Keep the resolved recipe, which can be run again, headed by the versions that it ran with."""
    path = run.folder / "recipe.yaml"
    values = resolved(run.recipe)
    with contextlib.suppress(OSError, UnicodeDecodeError, yaml.YAMLError):
        if yaml.safe_load(path.read_text(encoding="utf-8")) == values:
            return
    versions = "".join(f"# {name} {version}\n" for name, version in installed_versions().items())
    text = yaml.safe_dump(values, allow_unicode=True, sort_keys=False)
    write_text(path, f"# distilrubert {revision()}\n{versions}{text}")


def revision() -> str:
    """The version of this package, with the git revision where it runs from a checkout."""
    version = importlib.metadata.version("distilrubert")
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        described = subprocess.run(git, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return version
    return f"{version}, git revision {described}"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a second process out of the run directory; whoever holds it may ask again.

    Raises:
        UserError: if another process is working in it, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock", is_singleton=True)
        lock.acquire(blocking=False)
    except Timeout:
        raise UserError(f"{folder}: another process is working in this run directory") from None
    except OSError as error:
        raise UserError(f"{folder}: the run directory cannot be written: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()
