"""A run directory: one recipe on its way to a model repository, stage by stage.

A stage leaves a stamp: the inputs that it was made from. While the stamp holds and the outputs are there, the
stage is skipped; where an input changed, the stage and all that follow from it are done again.
"""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import logging
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from distilrubert.modeling.errors import UserError
from distilrubert.modeling.persistence import read_json, write_json, write_text
from distilrubert.modeling.reports import installed_versions
from distilrubert.pipeline.launch import Launch
from distilrubert.pipeline.recipe import Recipe, resolved

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
        work: files and folders that only an unfinished stage keeps, so that it can continue.
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


def bring_up_to_date(run: Run, stages: Sequence[Stage]) -> list[str]:
    """Perform every stage whose stamp does not hold, in order.

    Args:
        run: the run directory and its recipe.
        stages: the stages, each behind those it comes after.

    Returns:
        The names of the stages that this process performed.

    Raises:
        UserError: if the folder cannot be written, or another process is working in it.
    """
    if not run.launch.leads:
        return _follow(run, stages)
    with _locked(run.folder):
        _write_recipe(run)
        fingerprints: dict[str, str] = {}
        performed = []
        for stage in stages:
            after = {name: fingerprints[name] for name in stage.after if name in fingerprints}
            inputs = {**_plain(stage.inputs(run)), "after": after}
            fingerprints[stage.name] = _fingerprint(inputs)
            needed = _prepare(run, stage, inputs)
            if stage.collective:
                run.launch.announce(stage.name, perform=needed)
            if needed:
                started = time.monotonic()
                stage.perform(run)
                _stamp(run, stage, inputs, complete=True)
                logger.info("%s: done in %.0f s", stage.name, time.monotonic() - started)
                performed.append(stage.name)
        return performed


def _follow(run: Run, stages: Sequence[Stage]) -> list[str]:
    """Join the leading process in the stages that all perform together."""
    performed = []
    for stage in stages:
        if stage.collective and run.launch.hear(stage.name):
            stage.perform(run)
            performed.append(stage.name)
    return performed


def _prepare(run: Run, stage: Stage, inputs: Mapping[str, Any]) -> bool:
    """Whether the stage has to be performed; if its inputs changed, what it left is cleared away first."""
    stamp = _read_stamp(run, stage)
    outputs = stage.outputs(run)
    if stamp and stamp["inputs"] != inputs:
        logger.info("%s: %s; doing it again", stage.name, _difference(stamp["inputs"], inputs))
        _clear([*outputs, *stage.work(run)])
    elif stamp and stamp["complete"] and all(path.exists() for path in outputs):
        logger.info("%s: up to date", stage.name)
        return False
    elif stamp and not stamp["complete"]:
        logger.info("%s: continuing where it stopped", stage.name)
    logger.info("%s: %s", stage.name, stage.title)
    _stamp(run, stage, inputs, complete=False)
    return True


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The first input that changed, in words."""
    before, after = _flat(old), _flat(new)
    changed = [key for key in sorted(before.keys() | after.keys()) if before.get(key) != after.get(key)]
    own = [key for key in changed if not key.startswith("after.")]
    if not own:
        return f"{changed[0].removeprefix('after.')} changed"
    more = f" and {len(own) - 1} more" if len(own) > 1 else ""
    return f"{own[0]} was {before.get(own[0])!r} and is {after.get(own[0])!r}{more}"


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings and lists as one mapping with dotted keys."""
    if isinstance(values, Mapping):
        items: Iterator[tuple[Any, Any]] = iter(values.items())
    elif isinstance(values, list):
        items = iter(enumerate(values))
    else:
        return {prefix.removesuffix("."): values}
    return {key: value for name, inner in items for key, value in _flat(inner, f"{prefix}{name}.").items()}


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` as they come back from a JSON file."""
    plain: dict[str, Any] = json.loads(json.dumps(values))
    return plain


def _fingerprint(inputs: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def _stamp_path(run: Run, stage: Stage) -> Path:
    return run.folder / "stamps" / f"{stage.name}.json"


def _read_stamp(run: Run, stage: Stage) -> dict[str, Any] | None:
    path = _stamp_path(run, stage)
    if not path.exists():
        return None
    stamp: dict[str, Any] = read_json(path)
    return stamp


def _stamp(run: Run, stage: Stage, inputs: Mapping[str, Any], *, complete: bool) -> None:
    write_json(_stamp_path(run, stage), {"stage": stage.name, "complete": complete, "inputs": inputs})


def _clear(paths: Sequence[Path]) -> None:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _write_recipe(run: Run) -> None:
    """Keep the resolved recipe, which can be run again, headed by the versions that it ran with."""
    path = run.folder / "recipe.yaml"
    values = resolved(run.recipe)
    if path.exists() and yaml.safe_load(path.read_text(encoding="utf-8")) == values:
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
def _locked(folder: Path) -> Iterator[None]:
    """Keep a second process out of the run directory."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        lock.acquire(blocking=False)
    except Timeout:
        raise UserError(f"{folder}: another process is working in this run directory") from None
    except OSError as error:
        raise UserError(f"{folder}: the run directory cannot be written: {error.strerror or error}") from error
    with lock:
        yield
