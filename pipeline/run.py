"""A run directory: everything that is made from one recipe.

``recipe.yaml`` is the resolved recipe, ``stages/`` holds what the stages made, ``scores/`` the finished measurements of
quality. The other names are links to the current results, see :mod:`.stage_folders`.
"""

import contextlib
import dataclasses
import importlib.metadata
import logging
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml
from filelock import FileLock, Timeout

from distilrubert.common.errors import UserError
from distilrubert.common.persistence import write_text
from distilrubert.pipeline.launch import Launch
from distilrubert.pipeline.recipe import Recipe

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Run:
    """A recipe and where it is worked on.

    Attributes:
        recipe: the recipe, each revision on the Hub resolved to a commit.
        folder: the run directory.
        launch: the processes that work on it.
        shared_scores: where the finished measurements of quality are kept, by their content, if not in the run
            directory: runs that share it measure their common teacher once.
        commits: the commit of each model and data set on the Hub, see :mod:`.commits`.
        endpoint: URL of the Hub that the result goes to; None takes HF_ENDPOINT, or the public Hub.
    """

    recipe: Recipe
    folder: Path
    launch: Launch = dataclasses.field(default_factory=Launch)
    shared_scores: Path | None = None
    commits: Mapping[str, str] = dataclasses.field(default_factory=dict)
    endpoint: str | None = None

    @property
    def vocabulary(self) -> Path:
        """The tokenizer of a teacher that the recipe trains itself."""
        return self.folder / "vocabulary"

    @property
    def student_vocabulary(self) -> Path:
        """The student's own tokenizer."""
        return self.folder / "student-vocabulary"

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
    def task_teacher(self) -> Path:
        """The teacher that the recipe fine-tunes on its task."""
        return self.folder / "task-teacher"

    @property
    def task_start(self) -> Path:
        """What the student of a task starts from, where that is made of layers of the teacher."""
        return self.folder / "task-start"

    @property
    def task_alone(self) -> Path:
        """The student of a task that is fine-tuned without a teacher."""
        return self.folder / "task-alone"

    @property
    def task_student(self) -> Path:
        """The student of a task."""
        return self.folder / "task-student"

    @property
    def exported(self) -> Path:
        """The student in every file format."""
        return self.folder / "exported"

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


def write_recipe(run: Run) -> None:
    """Keep the resolved recipe, which can be run again, with the versions that it ran with as comments."""
    from distilrubert.common.measurements import installed_versions

    path = run.folder / "recipe.yaml"
    values = run.recipe.model_dump(mode="json")
    with contextlib.suppress(OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError):
        before = yaml.safe_load(path.read_text(encoding="utf-8"))
        if before == values:
            return
        if before.get("name") != run.recipe.name:
            logger.warning("%s: holds the run of %s; what both recipes share is reused", run.folder, before.get("name"))
    versions = "".join(f"# {name} {version}\n" for name, version in installed_versions().items())
    text = yaml.safe_dump(values, allow_unicode=True, sort_keys=False)
    write_text(path, f"# distilrubert {revision()}\n{versions}{text}")


def revision() -> str:
    """The version of this package, with the git revision where the package is a checkout."""
    version = importlib.metadata.version("distilrubert")
    package = Path(__file__).parents[1]
    # An installed package may lie inside a repository of the user's, whose revision says nothing of it.
    if not (package / ".git").exists():
        return version
    git = ["git", "-C", str(package), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        described = subprocess.run(git, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return version
    return f"{version}, git revision {described}"


LOCK = ".lock"


@contextlib.contextmanager
def locked(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Keep other processes out of a folder; the process that holds the lock may ask again.

    Args:
        folder: a run directory, or another folder in which one process works at a time.
        wait: whether to wait for another process that is working in it.

    Raises:
        UserError: if another process is working in it, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK, is_singleton=True)
        lock.acquire(blocking=wait)
    except Timeout:
        raise UserError(f"{folder}: another process is working in this folder") from None
    except OSError as error:
        raise UserError(f"{folder}: the folder cannot be written: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()
