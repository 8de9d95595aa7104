"""The shards of a corpus under construction, each complete or absent, so that an interrupted build goes on.

And what the corpus is made of: the plan, by which a build knows its shards again, and the counts of manifest.json.
"""

import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, astuple, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from distilrubert.common.errors import UserError
from distilrubert.common.persistence import read_json, write_json
from distilrubert.distill.corpus.corpus_settings import CorpusSettings
from distilrubert.distill.corpus.sources import TextOrigin
from distilrubert.distill.corpus.store import COUNTS
from distilrubert.distill.corpus.tokenisation import tokenizer_sha256

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
        return Counts(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


@dataclass
class Shard:
    """Consecutive texts of one source, and, once it is complete, their tokens in a folder.

    Attributes:
        folder: where the tokens are.
        start: where it begins.
        end: where the next one begins.
        counts: what was counted in it.
        identities: of the origins that it comes from, in order.
        finished: manifest entries of the origins that ended in it.
    """

    folder: Path
    start: SourcePosition
    end: SourcePosition
    counts: Counts = field(default_factory=Counts)
    identities: list[dict[str, Any]] = field(default_factory=list)
    finished: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The complete shard in a folder; UserError if there is none."""
        record = read_json(folder / RECORD)
        places = {name: SourcePosition(**record[name]) for name in ("start", "end")}
        return cls(**record | places | {"folder": folder, "counts": Counts(**record["counts"])})

    def write(self, folder: Path) -> None:
        """Write the record that belongs to the tokens in `folder` and completes the shard."""
        write_json(folder / RECORD, {key: value for key, value in asdict(self).items() if key != "folder"})

    def keys(self) -> NDArray[np.uint64]:
        """The identity keys of the texts that no earlier shard has, (N,)."""
        return np.asarray(np.load(self.folder / "keys.npy", allow_pickle=False))

    def token_counts(self, column: str) -> NDArray[np.int64]:
        """How often each id occurs in a column of its training sequences, (V,)."""
        return np.asarray(np.load(self.folder / COUNTS[column], allow_pickle=False))


def read_texts(
    sources: list[list[TextOrigin]], workplace: Path, done: Sequence[Shard], characters: int
) -> Iterator[tuple[Shard, list[str]]]:
    """Yield the texts behind the shards that are done, about `characters` characters at a time; without empty ones."""
    number, start = len(done), done[-1].end if done else SourcePosition()

    def begin(position: SourcePosition, *identities: dict[str, Any]) -> tuple[Shard, list[str], int]:
        return Shard(workplace / f"shard-{number:06d}", position, position, identities=list(identities)), [], 0

    for source in range(start.source, len(sources)):
        shard, texts, size = begin(start)
        for origin in range(start.origin, len(sources[source])):
            reading = sources[source][origin]
            shard.identities.append(reading.identity)
            skipped = start.record if origin == start.origin else 0
            for record, text in enumerate(islice(reading.records(), skipped, None), start=skipped + 1):
                shard.counts.texts += 1
                if stripped := (text or "").strip():
                    texts.append(stripped)
                    size += len(stripped)
                if size >= characters:
                    shard.end = SourcePosition(source, origin, record)
                    yield shard, texts
                    number += 1
                    shard, texts, size = begin(shard.end, reading.identity)
            shard.finished.append(reading.describe())
        shard.end = start = SourcePosition(source + 1)
        yield shard, texts
        number += 1


def complete_shards(workplace: Path) -> list[Shard]:
    """The shards that have their record, in order."""
    return [Shard.read(folder) for folder in sorted(workplace.glob("shard-*")) if (folder / RECORD).is_file()]


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


def plan_of(
    settings: CorpusSettings,
    tokenizer: PreTrainedTokenizerFast,
    seed: int,
    student_tokenizer: PreTrainedTokenizerFast | None,
    prompts: Sequence[str],
) -> dict[str, Any]:
    """Everything but the text that decides what the corpus becomes."""
    plan = {
        "seed": seed,
        "settings": settings.model_dump(mode="json", exclude={"processes"}),
        "tokenizer": _identity_of(tokenizer),
    }
    if student_tokenizer:
        plan["student_tokenizer"] = _identity_of(student_tokenizer)
    return plan | ({"prompts": list(prompts)} if prompts else {})


def without_paths(plan: dict[str, Any]) -> dict[str, Any]:
    """The plan without the paths in it, so that a build goes on after its project has been moved."""
    tokenizers = {
        key: {name: value for name, value in plan[key].items() if name != "name"}
        for key in ("tokenizer", "student_tokenizer")
        if key in plan
    }
    sources = [source | {"path": None} for source in plan["settings"]["sources"]]
    return plan | tokenizers | {"settings": plan["settings"] | {"sources": sources}}


def counted(shards: list[Shard], sources: int) -> dict[str, Any]:
    """The counts of each source and of all, as manifest.json has them.

    Args:
        shards: all shards of the corpus.
        sources: number of sources.
    """
    by_source = [[shard for shard in shards if shard.start.source == source] for source in range(sources)]
    entries = [
        {"origins": [origin for shard in shards_of for origin in shard.finished], **_totals(shards_of)}
        for shards_of in by_source
    ]
    return {"sources": entries, "total": _totals(shards)}


def refuse_empty(settings: CorpusSettings, total: dict[str, Any]) -> None:
    """Raise a UserError if there is nothing to train on, or nothing held out that should be."""
    if not total["train_sequences"]:
        left = any(total[reason] for reason in ("duplicates", "left_out", "too_short", "validation_sequences"))
        if settings.sentences and total["texts"] > total["empty"] and not left:
            raise UserError(
                f"corpus: no text to train on: {total['texts']} texts read, and no sentence in them; "
                "corpus.sentences leaves out what has no letter"
            )
        raise UserError(
            f"corpus: no text to train on: {total['texts']} texts read, {total['empty']} of them empty, "
            f"{total['duplicates']} duplicates, {total['left_out']} left out by a weight; {total['too_short']} "
            f"sequences shorter than minimum_length {settings.minimum_length}, {total['validation_sequences']} held "
            f"out by validation {settings.validation}"
        )
    if settings.validation and not total["validation_sequences"]:
        raise UserError(
            f"corpus.validation: {settings.validation} of {total['texts']} texts holds out none; raise it, or set 0"
        )


def _identity_of(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        "name": tokenizer.name_or_path,
        "sha256": tokenizer_sha256(tokenizer),
        "vocabulary_size": len(tokenizer),
    }


def _totals(shards: list[Shard]) -> dict[str, Any]:
    counts = sum((shard.counts for shard in shards), Counts())
    tokens = counts.train_tokens + counts.validation_tokens - 2 * (counts.train_sequences + counts.validation_sequences)
    return {**asdict(counts), "unknown_share": counts.unknown_tokens / tokens if tokens else 0.0}
