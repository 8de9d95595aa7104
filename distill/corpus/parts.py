"""Work on a text that is shared out: a part is a range of the text, and what is made of it has a folder of its own."""

import abc
import logging
import shutil
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from distilrubert.common.errors import UserError
from distilrubert.common.persistence import read_json, write_json
from distilrubert.common.quiet_datasets import quiet_datasets
from distilrubert.distill.corpus.shards import RECORD, Shard, SourcePosition, complete_shards
from distilrubert.distill.corpus.sources import TextOrigin

logger = logging.getLogger(__name__)

# What all parts of a corpus have in common.
PLAN = "plan.json"


class PartTakenError(UserError):
    """A part is refused because another process is working on it."""


@dataclass(frozen=True)
class Part:
    """One of the contiguous ranges that the text of a corpus is cut into.

    Attributes:
        number: its number, from 1.
        count: how many parts there are.
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise UserError(f"part {self}: parts are numbered from 1 to {max(self.count, 1)}")

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


@dataclass(frozen=True)
class PartFolder:
    """A part and the folder of its shards.

    Attributes:
        part: which part.
        path: its folder.
        start: where it begins in the text.
        end: where the next part begins.
    """

    part: Part
    path: Path
    start: SourcePosition
    end: SourcePosition

    def shards(self, sources: list[list[TextOrigin]]) -> list[Shard]:
        """Its finished shards, in order, up to the first whose files have changed."""
        shards: list[Shard] = []
        for shard in complete_shards(self.path):
            if not _follows(shard, shards[-1].end if shards else self.start, self.end, sources):
                break
            shards.append(shard)
        return shards

    def resume(self, sources: list[list[TextOrigin]]) -> list[Shard]:
        """:meth:`shards`; all others are removed, incomplete ones too."""
        shards = self.shards(sources)
        kept = {shard.folder for shard in shards}
        for folder in set(self.path.glob("*shard-*")) - kept:
            # The record goes first: without it no later build takes the rest for a shard.
            (folder / RECORD).unlink(missing_ok=True)
            shutil.rmtree(folder)
        if shards:
            logger.info("%s: %d shards of an interrupted build are reused", self.path, len(shards))
        return shards

    def is_complete(self, sources: list[list[TextOrigin]]) -> bool:
        """Whether its shards reach its end."""
        shards = self.shards(sources)
        return (shards[-1].end if shards else self.start) == self.end

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out of this part.

        Raises:
            PartTakenError: if another process is working on it.
            UserError: if its folder cannot be written.
        """
        try:
            with _lock(self.path.with_suffix(".lock")):
                yield
        except Timeout:
            raise PartTakenError(f"part {self.part}: another process is working on it") from None


class SharedWork(abc.ABC):
    """Work that one process does, or several in parts; these have nothing but a folder in common."""

    @property
    @abc.abstractmethod
    def workplace(self) -> Path:
        """Where the parts are until they are put together."""

    @property
    @abc.abstractmethod
    def is_finished(self) -> bool:
        """Whether they have been put together."""

    @abc.abstractmethod
    def sources(self) -> list[list[TextOrigin]]:
        """The text.

        Raises:
            UserError: if it cannot be read.
        """

    @abc.abstractmethod
    def plan(self) -> dict[str, Any]:
        """What decides the result besides the text."""

    @abc.abstractmethod
    def is_complete(self, folder: PartFolder, sources: list[list[TextOrigin]]) -> bool:
        """Whether nothing is missing of a part."""

    @abc.abstractmethod
    def complete(self, folder: PartFolder, sources: list[list[TextOrigin]]) -> None:
        """Do what is missing of a part, which nobody else is working on."""

    def build_part(self, part: Part) -> bool:
        """Do one of the parts, to be put together later; a finished one is left as it is. Whether all parts are done.

        Raises:
            UserError: if another process is working on the part, parts of other settings or another number of them are
                there, or a source cannot be read.
        """
        with quiet_datasets():
            sources = self.sources()
            folders = self._folders(sources, part.count)
            self._complete(folders[part.number - 1], sources)
            return all(self.is_complete(folder, sources) for folder in folders)

    def build_free_parts(self, own: Part) -> bool:
        """Do a part, then each other one that nobody has done or is working on; whether all parts are done.

        Raises:
            UserError: as :meth:`build_part`, but where the part itself is taken.
        """
        if self.is_finished:
            # Faster processes have done everything while this one was starting.
            return True
        with quiet_datasets():
            sources = self.sources()
            folders = self._folders(sources, own.count)
            for folder in folders[own.number - 1 :] + folders[: own.number - 1]:
                if not self.is_complete(folder, sources):
                    with suppress(PartTakenError):
                        self._complete(folder, sources)
            return all(self.is_complete(folder, sources) for folder in folders)

    def _folders(self, sources: list[list[TextOrigin]], count: int | None) -> list[PartFolder]:
        """All parts, of which there are so many, or as many as there were."""
        return part_folders(self.workplace, sources, agree_on_plan(self.workplace, self.plan(), count))

    def _complete(self, folder: PartFolder, sources: list[list[TextOrigin]]) -> None:
        with folder.locked():
            self.complete(folder, sources)


@contextmanager
def merge_lock(workplace: Path) -> Iterator[None]:
    """Keep other processes from putting the parts together.

    Raises:
        UserError: if another process is at it.
    """
    try:
        with _lock(workplace / "merge.lock"):
            yield
    except Timeout:
        raise UserError(f"{workplace}: another process is putting the parts together") from None


def part_folders(workplace: Path, sources: list[list[TextOrigin]], count: int) -> list[PartFolder]:
    """All parts, of about the same number of bytes each.

    A part begins with a file, or with a row group of a Parquet file, or with a row of a data set of the Hub. So some
    parts are empty where there are fewer of these than parts.
    """
    bounds = _bounds(sources, count)
    return [
        PartFolder(Part(number, count), workplace / f"part-{number:05d}", *bounds[number - 1 : number + 1])
        for number in range(1, count + 1)
    ]


def agree_on_plan(workplace: Path, plan: dict[str, Any], count: int | None) -> int:
    """Record what all parts have in common, or compare with what is recorded; the number of parts.

    Args:
        workplace: the folder of the parts.
        plan: what decides the corpus besides the text.
        count: the number of parts; None takes the recorded one, and begins anew as one part where the plan is another.

    Raises:
        UserError: if parts of another plan or another number of them are there, or the folder cannot be written.
    """
    with _lock(workplace / "plan.lock", timeout_s=60):
        path = workplace / PLAN
        recorded = read_json(path) if path.is_file() else {}
        if recorded.get("plan") == plan and count in (None, recorded["parts"]):
            return int(recorded["parts"])
        if count is not None and recorded:
            other = f"{recorded['parts']}, not {count}" if recorded.get("plan") == plan else "parts of other settings"
            raise UserError(
                f"{workplace}: the corpus is in parts already, {other}; finish them with the command that made them, "
                "or remove this folder"
            )
        if recorded and (part := part_in_work(workplace)):
            raise UserError(f"{part}: another process is working on this part, with other settings")
        path.unlink(missing_ok=True)
        for folder in workplace.glob("part-*/"):
            shutil.rmtree(folder, ignore_errors=True)
        write_json(path, {"parts": count or 1, "plan": plan})
        return count or 1


def part_in_work(workplace: Path) -> Path | None:
    """The folder of a part that a process is working on; None if there is no such process."""
    for path in sorted(workplace.glob("part-*.lock")):
        try:
            with _lock(path):
                pass
        except Timeout:
            return path.with_suffix("")
    return None


def remove_parts(workplace: Path) -> None:
    """Remove everything that a build has left; an interrupted removal leaves nothing that passes for a part."""
    if workplace.is_dir():
        (workplace / PLAN).unlink(missing_ok=True)
        shutil.rmtree(workplace, ignore_errors=True)


@contextmanager
def _lock(path: Path, timeout_s: float = 0) -> Iterator[None]:
    lock = FileLock(path, timeout=timeout_s)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise
    except OSError as error:
        raise UserError(f"{path.parent}: cannot be written: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()


def _bounds(sources: list[list[TextOrigin]], count: int) -> list[SourcePosition]:
    """Where each part begins, and the end of the last."""
    origins = [(s, o, origin) for s, source in enumerate(sources) for o, origin in enumerate(source)]
    before = [*accumulate((origin.size for _, _, origin in origins), initial=0)]
    end = SourcePosition(len(sources))
    bounds = [SourcePosition()]
    for number in range(1, count):
        place = before[-1] * number // count
        index = bisect_right(before, place) - 1
        if index >= len(origins):
            bounds.append(end)
            continue
        source, number_in_source, origin = origins[index]
        record = origin.cut_at((place - before[index]) / origin.size)
        if record is not None:
            bounds.append(SourcePosition(source, number_in_source, record))
        elif number_in_source + 1 < len(sources[source]):
            bounds.append(SourcePosition(source, number_in_source + 1))
        else:
            bounds.append(SourcePosition(source + 1))
    return [*bounds, end]


def _follows(shard: Shard, start: SourcePosition, end: SourcePosition, sources: Sequence[Sequence[TextOrigin]]) -> bool:
    """Whether the shard begins at `start`, comes no further than `end`, and its origins are unchanged."""
    if shard.start != start or shard.end > end or start.source >= len(sources):
        return False
    origins = sources[start.source][start.origin :]
    if shard.end.source == start.source:
        origins = origins[: len(shard.identities)]
    return [origin.identity for origin in origins] == shard.identities
