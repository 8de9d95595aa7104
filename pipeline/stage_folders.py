"""The folders of finished and begun stages in a run directory: ``stages/<name>-<fingerprint>/``.

The fingerprint is a hash of the stage's inputs, so results of different settings lie beside each other and none is
overwritten. ``stage.json`` in a folder records the inputs and, written last, that the stage is complete and which
files it made. ``stages/current.json`` says which folders belong to the latest settings; ``student``, ``reports`` and
the other names in the run directory are relative links to those of them that are complete.
"""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from distilrubert.common.errors import UserError
from distilrubert.common.persistence import read_json, sha256_of, write_json
from distilrubert.common.recorded_inputs import agrees

REPORTS = "reports"
_RECORD = "stage.json"


@dataclasses.dataclass(frozen=True)
class StageFolder:
    """One folder and what its ``stage.json`` says.

    Attributes:
        path: the folder.
        stage: name of the stage.
        inputs: what the stage was made from, as plain JSON values.
        files: paths of the files that it made, relative to the folder, with their SHA-256; None until it is complete.
        seconds: how long it took, from its last start.
    """

    path: Path
    stage: str
    inputs: dict[str, Any]
    files: dict[str, str] | None = None
    seconds: float = 0.0

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """The folder at `path`; None where no stage has begun in it.

        Raises:
            UserError: if its stage.json is not of this form.
        """
        if not (path / _RECORD).exists():
            return None
        values = read_json(path / _RECORD)
        try:
            return cls(path, values["stage"], values["inputs"], values["files"], values["seconds"])
        except (KeyError, TypeError):
            raise UserError(f"{path / _RECORD}: not a stage.json; remove {path}, and the stage is done again") from None

    def write(self) -> None:
        """Write stage.json."""
        values = {"stage": self.stage, "files": self.files, "seconds": self.seconds, "inputs": self.inputs}
        write_json(self.path / _RECORD, values)

    @property
    def is_complete(self) -> bool:
        """Whether the stage came to its end."""
        return self.files is not None

    def missing(self) -> str | None:
        """The first of its files that is no longer there."""
        return next((file for file in self.files or () if not (self.path / file).is_file()), None)

    def results(self, *, with_reports: bool) -> str:
        """A hash of the files that it made, for the inputs of stages that read them; reports hold times and dates."""
        files = {name: digest for name, digest in (self.files or {}).items() if with_reports or not is_report(name)}
        return fingerprint(files)

    def remove_scratch(self) -> None:
        """Remove what only served to go on with the stage after an interruption: what has a hidden name."""
        for path in self.path.glob(".*/"):
            shutil.rmtree(path, ignore_errors=True)

    def links(self) -> dict[str, str]:
        """The names in the run directory that stand for its files, with what each links to."""
        tops = {name if is_report(name) else name.partition("/")[0] for name in self.files or ()}
        return {top: os.path.relpath(self.path / top, (self.path.parents[1] / top).parent) for top in sorted(tops)}


@dataclasses.dataclass(frozen=True)
class StageFolders:
    """All stage folders of a run directory.

    Attributes:
        run_folder: the run directory.
    """

    run_folder: Path

    @property
    def folder(self) -> Path:
        """Where they lie."""
        return self.run_folder / "stages"

    def all(self, stage: str | None = None) -> list[StageFolder]:
        """Those of one stage or of all, the newest first."""
        found = [StageFolder.read(path) for path in self.folder.glob("*/")]
        of_stage = [folder for folder in found if folder and stage in (None, folder.stage)]
        return sorted(of_stage, key=lambda folder: -(folder.path / _RECORD).stat().st_mtime_ns)

    def find(self, stage: str, inputs: Mapping[str, Any]) -> StageFolder | None:
        """The folder of a stage with these inputs; a complete one where there are several."""
        found = [folder for folder in self.all(stage) if agrees(folder.inputs, inputs)]
        return min(found, key=lambda folder: not folder.is_complete, default=None)

    def begin(self, stage: str, inputs: Mapping[str, Any]) -> StageFolder:
        """The folder in which to perform a stage: the one where it was begun, or a new one."""
        if found := self.find(stage, inputs):
            folder = dataclasses.replace(found, files=None)
        else:
            path = self.folder / f"{stage}-{fingerprint(inputs)[:12]}"
            if StageFolder.read(path) is None:
                # What `clean` was removing when it was stopped.
                shutil.rmtree(path, ignore_errors=True)
            folder = StageFolder(path, stage, dict(inputs))
        folder.write()
        return folder

    def finish(self, folder: StageFolder, outputs: Sequence[str], seconds: float) -> StageFolder:
        """Record that a stage is complete, with the files and folders that it made in its folder."""
        files = {name: sha256_of(folder.path / name) for name in _files_in(folder.path, outputs)}
        finished = dataclasses.replace(folder, files=files, seconds=round(seconds, 1))
        finished.write()
        return finished

    def current(self) -> list[StageFolder]:
        """Those that belong to the latest settings, as :meth:`point_to` was told."""
        path = self.folder / "current.json"
        names = read_json(path) if path.exists() else []
        return [folder for name in names if (folder := StageFolder.read(self.folder / name))]

    def point_to(self, current: Sequence[StageFolder], kept: Sequence[StageFolder] = ()) -> None:
        """Make these the current ones, and let the links lead to those of them that are complete.

        Args:
            current: at most one of each stage.
            kept: others that belong to the latest settings as far as is known, and get no links.

        Raises:
            UserError: if something else stands in the place of a link.
        """
        named = [*current, *kept]
        if named != self.current():
            write_json(self.folder / "current.json", [folder.path.name for folder in named])
        wanted = {name: target for folder in current for name, target in folder.links().items()}
        for path in [*self.run_folder.iterdir(), *self.run_folder.glob(f"{REPORTS}/*")]:
            name = path.relative_to(self.run_folder).as_posix()
            if name not in wanted and path.is_symlink() and "stages" in path.readlink().parts[:2]:
                path.unlink()
        for name, target in wanted.items():
            _link(self.run_folder / name, target)

    def remove(self, folder: StageFolder) -> None:
        """Remove a folder for good; without its stage.json it is no stage's any more, however far this comes."""
        (folder.path / _RECORD).unlink()
        shutil.rmtree(folder.path, ignore_errors=True)


def fingerprint(values: Mapping[str, Any]) -> str:
    """A hash of plain JSON values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def is_report(name: str) -> bool:
    """Whether a stage's file is one of its reports."""
    return name.startswith(f"{REPORTS}/")


def size_of(paths: Iterable[Path]) -> int:
    """Bytes on disk of files and folders; a file with several links counts once."""
    found: dict[tuple[int, int], int] = {}
    for path in paths:
        # Unlike rglob, this goes on where a folder vanishes.
        below = (Path(folder, name) for folder, *names in os.walk(path) for name in itertools.chain(*names))
        for file in itertools.chain([path], below):
            with contextlib.suppress(FileNotFoundError):
                status = file.lstat()
                found[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(found.values())


def _files_in(folder: Path, outputs: Sequence[str]) -> list[str]:
    found = []
    for output in outputs:
        path = folder / output
        assert path.exists(), f"{path} was not made"
        found += [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sorted(file.relative_to(folder).as_posix() for file in found)


def _link(path: Path, target: str) -> None:
    if path.is_symlink() and path.readlink() == Path(target):
        return
    if path.exists() and not path.is_symlink():
        raise UserError(
            f"{path}: stands where a link to {target} belongs (an earlier version of the program made it, or a copy "
            "without links); move it away, or choose another --run-dir"
        )
    path.parent.mkdir(exist_ok=True)
    beside = path.with_name(f".{path.name}.tmp")
    beside.unlink(missing_ok=True)
    beside.symlink_to(target)
    beside.replace(path)
