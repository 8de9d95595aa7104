"""The shards of a corpus under construction, each complete or absent, so that an interrupted build goes on."""

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

# The file that completes a shard, and the file that says what all shards of a build have in common.
RECORD, PLAN = "shard.json", "plan.json"


@dataclass(frozen=True)
class SourcePosition:
    """How far reading has come: source, its origin (a file), and the number of records read of that origin."""

    source: int = 0
    origin: int = 0
    record: int = 0


@dataclass
class Counts:
    """What was counted while texts became sequences.

    Attributes:
        texts: records read.
        empty: records without text.
        duplicates: texts that equal an earlier text, surrounding white space aside.
        left_out: texts that a weight below 1 left out.
        split: texts longer than a sequence.
        too_short: sequences below the least length, which are dropped.
        train_sequences: sequences to train on; those with a weight above 1 count as often as they are repeated.
        train_tokens: their tokens, [CLS] and [SEP] included.
        validation_sequences: sequences that are held out.
        validation_tokens: their tokens.
        unknown_tokens: [UNK] tokens in both.
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
class Chunk:
    """Consecutive texts of one source.

    Attributes:
        start: where it begins.
        end: where the next one begins.
        texts: the texts that are not empty.
        texts_read: number of records, empty ones included.
        identities: of the origins that it comes from, in order.
        finished: manifest entries of the origins that ended in it.
    """

    start: SourcePosition
    end: SourcePosition
    texts: list[str] = field(default_factory=list)
    texts_read: int = 0
    identities: list[dict[str, Any]] = field(default_factory=list)
    finished: list[dict[str, Any]] = field(default_factory=list)


def read_chunks(sources: list[list[TextOrigin]], start: SourcePosition, characters: int) -> Iterator[Chunk]:
    """Yield the texts from `start` on, about `characters` characters at a time."""
    for source in range(start.source, len(sources)):
        chunk = Chunk(start, start)
        size = 0
        for origin in range(start.origin, len(sources[source])):
            reading = sources[source][origin]
            chunk.identities.append(reading.identity)
            skipped = start.record if origin == start.origin else 0
            record = skipped
            for record, text in enumerate(islice(reading.records(), skipped, None), start=skipped + 1):
                chunk.texts_read += 1
                if stripped := (text or "").strip():
                    chunk.texts.append(stripped)
                    size += len(stripped)
                if size >= characters:
                    chunk.end = SourcePosition(source, origin, record)
                    yield chunk
                    chunk, size = Chunk(chunk.end, chunk.end, identities=[reading.identity]), 0
            chunk.finished.append(reading.describe())
        chunk.end = start = SourcePosition(source + 1)
        yield chunk


@dataclass(frozen=True)
class Shard:
    """A finished chunk: its tokenised texts in a folder."""

    folder: Path
    start: SourcePosition
    end: SourcePosition
    counts: Counts
    finished: list[dict[str, Any]]
    identities: list[dict[str, Any]]

    def keys(self) -> NDArray[np.uint64]:
        """The identity keys of the texts that no earlier shard has, (N,)."""
        return np.asarray(np.load(self.folder / "keys.npy", allow_pickle=False))

    def token_counts(self, column: str) -> NDArray[np.int64]:
        """How often each id occurs in a column of its training sequences, (V,)."""
        return np.asarray(np.load(self.folder / COUNTS[column], allow_pickle=False))


def write_shard(folder: Path, chunk: Chunk, counts: Counts) -> None:
    """Write the record that belongs to the tokens in `folder` and completes the shard."""
    record = {
        "start": dataclasses.asdict(chunk.start),
        "end": dataclasses.asdict(chunk.end),
        "counts": dataclasses.asdict(counts),
        "finished": chunk.finished,
        "identities": chunk.identities,
    }
    write_json(folder / RECORD, record)


def read_shard(folder: Path) -> Shard:
    """Read what `write_shard` wrote.

    Raises:
        UserError: if the shard is not complete.
    """
    record = read_json(folder / RECORD)
    start, end = SourcePosition(**record["start"]), SourcePosition(**record["end"])
    return Shard(folder, start, end, Counts(**record["counts"]), record["finished"], record["identities"])


def complete_shards(workplace: Path) -> list[Shard]:
    """The shards that have their record, in order."""
    return [read_shard(folder) for folder in sorted(workplace.glob("shard-*")) if (folder / RECORD).is_file()]


def remove_shards(workplace: Path) -> None:
    """Remove everything that a build has left; an interrupted removal leaves nothing that passes for a shard."""
    if workplace.is_dir():
        (workplace / PLAN).unlink(missing_ok=True)
        shutil.rmtree(workplace, ignore_errors=True)


def resume_shards(workplace: Path, plan: dict[str, Any], sources: list[list[TextOrigin]]) -> list[Shard]:
    """The shards that an interrupted build of the same plan left, up to the first whose files have changed.

    All other shards are removed, incomplete ones too.
    """
    shards: list[Shard] = []
    if (workplace / PLAN).is_file() and read_json(workplace / PLAN) == plan:
        for shard in complete_shards(workplace):
            if not _follows(shard, shards[-1].end if shards else SourcePosition(), sources):
                break
            shards.append(shard)
    kept = {shard.folder for shard in shards}
    for folder in set(workplace.glob("*shard-*")) - kept:
        # The record goes first: without it no later build takes the rest for a shard.
        (folder / RECORD).unlink(missing_ok=True)
        shutil.rmtree(folder)
    write_json(workplace / PLAN, plan)
    if shards:
        logger.info("%s: %d shards of an interrupted build are reused", workplace, len(shards))
    return shards


def _follows(shard: Shard, start: SourcePosition, sources: list[list[TextOrigin]]) -> bool:
    """Whether the shard begins at `start` and its origins are unchanged."""
    if shard.start != start or start.source >= len(sources):
        return False
    origins = sources[start.source][start.origin :]
    if shard.end.source == start.source:
        origins = origins[: len(shard.identities)]
    return [origin.identity for origin in origins] == shard.identities
