"""The parts of a corpus under construction, each complete or absent, so that an interrupted build goes on."""

import dataclasses
import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilrubert.common.persistence import read_json, write_json
from distilrubert.distill.corpus.sources import TextOrigin
from distilrubert.distill.corpus.store import COUNTS

logger = logging.getLogger(__name__)

# What completes a part, and what all parts of a build have in common.
RECORD, PLAN = "part.json", "plan.json"


@dataclass(frozen=True)
class Position:
    """A place in the sources: so many records of this origin (file) of this source are behind."""

    source: int = 0
    origin: int = 0
    record: int = 0


@dataclass
class Counts:
    """What was counted while texts became sequences.

    Attributes:
        texts: records read.
        empty: records without text.
        duplicates: texts that an earlier text equals, white space around it aside.
        left_out: texts that a weight below 1 left out.
        split: texts longer than a sequence.
        too_short: sequences below the least length, dropped.
        train_sequences: sequences of the training part, repeated ones (weights above 1) as often as they stand there.
        train_tokens: their ids, [CLS] and [SEP] included.
        validation_sequences: sequences of the validation part.
        validation_tokens: their ids.
        unknown_tokens: ids in both that are [UNK].
    """

    texts: int = 0
    empty: int = 0
    duplicates: int = 0
    left_out: int = 0
    split: int = 0
    too_short: int = 0
    train_sequences: int = 0
    train_tokens: int = 0
    validation_sequences: int = 0
    validation_tokens: int = 0
    unknown_tokens: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(a + b for a, b in zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)))


@dataclass
class Block:
    """Consecutive texts of one source.

    Attributes:
        start: where it begins.
        end: where the next one begins.
        texts: those that are not empty.
        texts_read: all records, the empty ones included.
        identities: of the origins it comes from, in order.
        finished: manifest entries of the origins that ended in it.
    """

    start: Position
    end: Position
    texts: list[str] = field(default_factory=list)
    texts_read: int = 0
    identities: list[dict[str, Any]] = field(default_factory=list)
    finished: list[dict[str, Any]] = field(default_factory=list)


def read_blocks(sources: list[list[TextOrigin]], start: Position, characters: int) -> Iterator[Block]:
    """Yield the texts from `start` on, about so many characters at a time."""
    for source in range(start.source, len(sources)):
        block = Block(start, start)
        size = 0
        for origin in range(start.origin, len(sources[source])):
            reading = sources[source][origin]
            block.identities.append(reading.identity)
            skipped = start.record if origin == start.origin else 0
            record = skipped
            for record, text in enumerate(islice(reading.records(), skipped, None), start=skipped + 1):
                block.texts_read += 1
                if stripped := (text or "").strip():
                    block.texts.append(stripped)
                    size += len(stripped)
                if size >= characters:
                    block.end = Position(source, origin, record)
                    yield block
                    block, size = Block(block.end, block.end, identities=[reading.identity]), 0
            block.finished.append(reading.describe())
        block.end = start = Position(source + 1)
        yield block


@dataclass(frozen=True)
class Part:
    """A finished block: tokenised text in a folder of its own."""

    folder: Path
    start: Position
    end: Position
    counts: Counts
    finished: list[dict[str, Any]]
    identities: list[dict[str, Any]]

    def keys(self) -> NDArray[np.uint64]:
        """Identities of the texts that are new in it."""
        return np.asarray(np.load(self.folder / "keys.npy", allow_pickle=False))

    def token_counts(self, column: str) -> NDArray[np.int64]:
        """How often each id stands in a column of its training sequences, (V,)."""
        return np.asarray(np.load(self.folder / COUNTS[column], allow_pickle=False))


def write_part(folder: Path, block: Block, counts: Counts) -> None:
    """Write the record that belongs to the tokens in `folder`: with it the part is complete."""
    record = {
        "start": dataclasses.asdict(block.start),
        "end": dataclasses.asdict(block.end),
        "counts": dataclasses.asdict(counts),
        "finished": block.finished,
        "identities": block.identities,
    }
    write_json(folder / RECORD, record)


def read_part(folder: Path) -> Part:
    """Read what `write_part` wrote.

    Raises:
        UserError: if the part is not complete.
    """
    record = read_json(folder / RECORD)
    start, end = Position(**record["start"]), Position(**record["end"])
    return Part(folder, start, end, Counts(**record["counts"]), record["finished"], record["identities"])


def complete_parts(workplace: Path) -> list[Part]:
    """The parts that have their record, in order."""
    return [read_part(folder) for folder in sorted(workplace.glob("part-*")) if (folder / RECORD).is_file()]


def remove_parts(workplace: Path) -> None:
    """Remove everything that a build has left; where that is interrupted, nothing takes the rest for parts."""
    if workplace.is_dir():
        (workplace / PLAN).unlink(missing_ok=True)
        shutil.rmtree(workplace, ignore_errors=True)


def resume_parts(workplace: Path, plan: dict[str, Any], sources: list[list[TextOrigin]]) -> list[Part]:
    """The parts that an interrupted build of the same plan left, as far as the files they come from are unchanged.

    Other parts are removed, and half-written ones.
    """
    parts: list[Part] = []
    if (workplace / PLAN).is_file() and read_json(workplace / PLAN) == plan:
        for part in complete_parts(workplace):
            if not _follows(part, parts[-1].end if parts else Position(), sources):
                break
            parts.append(part)
    kept = {part.folder for part in parts}
    for folder in set(workplace.glob("*part-*")) - kept:
        # First of all: without its record no later build takes what is left of it for a part.
        (folder / RECORD).unlink(missing_ok=True)
        shutil.rmtree(folder)
    write_json(workplace / PLAN, plan)
    if parts:
        logger.info("%s: %d parts of an interrupted build are taken over", workplace, len(parts))
    return parts


def _follows(part: Part, start: Position, sources: list[list[TextOrigin]]) -> bool:
    """Whether the part begins at `start` and its origins are still what they were."""
    if part.start != start or start.source >= len(sources):
        return False
    origins = sources[start.source][start.origin :]
    if part.end.source == start.source:
        origins = origins[: len(part.identities)]
    return [origin.identity for origin in origins] == part.identities
