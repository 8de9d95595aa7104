"""What the stages of a run directory have made and of what, and what other settings are about to replace.

A stage's files that stand in their places belong to its stamp in ``stamps/``. Where the stage is to be made of other
inputs, they move to ``replaced/<stage>/<fingerprint of the old inputs>/``: one rename each, the stamp last; and back
in the opposite order. So after a kill between any two renames every file is either in its place under its own stamp,
or where the fingerprint says whose it is, and the next run completes the move or takes it back.
"""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from distilrubert.common.errors import UserError
from distilrubert.common.persistence import read_json, write_json


@dataclasses.dataclass(frozen=True)
class Stamp:
    """What a stage left.

    Attributes:
        inputs: what it was made from, as plain JSON values.
        complete: whether it came to its end.
    """

    inputs: dict[str, Any]
    complete: bool


@dataclasses.dataclass(frozen=True)
class Stamps:
    """The stamps of a run directory, and what is set aside in it.

    Attributes:
        folder: the run directory.
    """

    folder: Path

    def read(self, stage: str) -> Stamp | None:
        """The stamp of what stands in its place; None where nothing was begun.

        Raises:
            UserError: if its file is none of ours.
        """
        path = self._path(stage)
        if not path.exists():
            return None
        values = read_json(path)
        if not isinstance(values, dict) or not {"inputs", "complete"} <= values.keys():
            raise UserError(f"{path}: is no stamp of a stage; remove it, and {stage} is done again")
        return Stamp(values["inputs"], values["complete"])

    def write(self, stage: str, stamp: Stamp) -> None:
        """Say what the files that stand in their places are made from."""
        write_json(self._path(stage), {"stage": stage, "complete": stamp.complete, "inputs": stamp.inputs})

    def reopen(self, stage: str) -> None:
        """Have a stage performed again, if it was performed at all."""
        if stamp := self.read(stage):
            self.write(stage, dataclasses.replace(stamp, complete=False))

    def aside(self, stage: str, inputs: Mapping[str, Any]) -> Path:
        """Where the files that a stage has made of these inputs lie while others take their places."""
        return self.folder / "replaced" / stage / fingerprint(inputs)[:16]

    def set_aside(self, stage: str, files: Sequence[Path]) -> None:
        """Move what a stage has made out of the way, with its stamp and the recipe of the run before this one.

        Args:
            stage: its name; it has a stamp.
            files: all files and folders that it may have made.
        """
        stamp = self.read(stage)
        assert stamp is not None
        aside = self.aside(stage, stamp.inputs)
        for file in files:
            _move(file, aside / file.relative_to(self.folder))
        if not aside.exists():
            self._path(stage).unlink()
            return
        recipe = self.folder / "recipe.yaml"
        if recipe.exists():
            shutil.copyfile(recipe, aside / recipe.name)
        _move(self._path(stage), aside / "stamp.json")

    def take_back(self, stage: str, inputs: Mapping[str, Any], files: Sequence[Path]) -> None:
        """Move what was set aside, if anything, into its place again; nothing of other inputs stands there.

        Args:
            stage: its name.
            inputs: what the wanted files were made from.
            files: all files and folders that it may have made.
        """
        aside = self.aside(stage, inputs)
        if not aside.exists():
            return
        _move(aside / "stamp.json", self._path(stage))
        for file in files:
            _move(aside / file.relative_to(self.folder), file)
        shutil.rmtree(aside)

    def forget(self, stages: Iterable[str]) -> None:
        """Remove for good what is set aside of these stages."""
        replaced = self.folder / "replaced"
        for stage in stages:
            # Renamed first: what a kill leaves half removed must not be taken back.
            doomed = replaced / f".{stage}.tmp"
            shutil.rmtree(doomed, ignore_errors=True)
            _move(replaced / stage, doomed)
            shutil.rmtree(doomed, ignore_errors=True)
        if replaced.exists() and not any(replaced.iterdir()):
            replaced.rmdir()

    def check_coherent(self, stages: Iterable[str]) -> None:
        """See that what these stages have left was made from what stands in the places of those before them.

        Args:
            stages: names; of one that has left nothing there is nothing to say.

        Raises:
            UserError: if one did not come to its end, or a stage before it was done again since.
        """
        repair = f"publish.py {self.folder / 'recipe.yaml'} --run-dir {self.folder} brings it up to date"
        for stage in stages:
            stamp = self.read(stage)
            if stamp and not stamp.complete:
                raise UserError(f"{self.folder}: {stage} has not come to its end; {repair}")
            for name, made_from in (stamp.inputs["after"] if stamp else {}).items():
                before = self.read(name)
                if not before or not before.complete or fingerprint(before.inputs) != made_from:
                    raise UserError(f"{self.folder}: {name} was done again since {stage} was made from it; {repair}")

    def _path(self, stage: str) -> Path:
        return self.folder / "stamps" / f"{stage}.json"


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` as they come back from a JSON file."""
    read: dict[str, Any] = json.loads(json.dumps(values))
    return read


def fingerprint(inputs: Mapping[str, Any]) -> str:
    """A hash of the inputs of a stage."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The first input that changed, in words; where none did, the first of the stages before it that did."""
    before, now = _flat(_own(old)), _flat(_own(new))
    said = {
        key: [repr(values[key]) if key in values else "not set" for values in (before, now)] for key in before | now
    }
    changed = [key for key in sorted(said) if said[key][0] != said[key][1]]
    if not changed:
        former, latter = old.get("after", {}), new.get("after", {})
        return f"{min(name for name in former | latter if former.get(name) != latter.get(name))} changed"
    was, is_now = said[changed[0]]
    more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
    return f"{changed[0]} was {was} and is {is_now}{more}"


def _own(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs without the stages before."""
    return {key: value for key, value in inputs.items() if key != "after"}


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings and lists as one mapping with dotted keys; an empty one in another is a value."""
    if isinstance(values, Mapping) and (values or not prefix):
        items: Iterator[tuple[Any, Any]] = iter(values.items())
    elif isinstance(values, list) and values:
        items = iter(enumerate(values))
    else:
        return {prefix.removesuffix("."): values}
    return {key: value for name, inner in items for key, value in _flat(inner, f"{prefix}{name}.").items()}


def _move(source: Path, target: Path) -> None:
    """Rename a file, a folder or a link, if there is one, to where nothing that is still wanted lies.

    Raises:
        UserError: if that is not possible, as from one disk to another.
    """
    # A link to another disk may lead nowhere from the place where it is kept.
    if not (source.exists() or source.is_symlink()):
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_symlink():
            target.unlink()
        elif target.is_dir():
            shutil.rmtree(target)
        source.rename(target)
    except OSError as error:
        raise UserError(f"{source}: cannot be moved to {target}: {error.strerror or error}") from error
