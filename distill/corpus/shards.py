"""The shards of a corpus under construction, each complete or absent, so that an interrupted build goes on.

And what the corpus is made of: the plan, by which a build knows its shards again, and the counts of manifest.json.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, astuple, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from distilrubert.common.errors import UserError
from distilrubert.common.persistence import read_json, write_json
from distilrubert.distill.corpus.corpus_settings import CorpusSettings
from distilrubert.distill.corpus.sources import TextOrigin
from distilrubert.distill.corpus.store import COUNTS, PAIR_SCHEMA, SCHEMA
from distilrubert.distill.corpus.tokenisation import tokenizer_sha256

# The file that completes a shard.
RECORD = "shard.json"
# What is read, hashed and tokenised at a time.
BLOCK_CHARACTERS, BLOCK_TEXTS = 100_000, 1_000
# What a shard keeps of each of its texts: the identity key; its sequences in its split, repeated ones as often; its
# sequences that were too short; and what else was counted of it.
TEXT = np.dtype([("key", "<u8"), ("rows", "<u4"), ("short", "<u4"), ("flags", "u1")])
HELD_OUT, LEFT_OUT, SPLIT = 1, 2, 4


@dataclass(frozen=True, order=True)
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

    def __sub__(self, other: "Counts") -> "Counts":
        return Counts(*(a - b for a, b in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True)
class Form:
    """What the sequences of a corpus are made of.

    Attributes:
        schema: the columns of a split.
        sizes: tokens of the vocabulary of each column of ids.
        unknown_id: the teacher's [UNK].
    """

    schema: pa.Schema
    sizes: dict[str, int]
    unknown_id: int | None

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerFast, student_tokenizer: PreTrainedTokenizerFast | None) -> Self:
        """Of a corpus in one vocabulary or, with the student's, in two."""
        sizes, unknown = {"input_ids": len(tokenizer)}, tokenizer.unk_token_id
        if student_tokenizer is None:
            return cls(SCHEMA, sizes, unknown)
        return cls(PAIR_SCHEMA, {**sizes, "student_ids": len(student_tokenizer)}, unknown)

    def count_ids(self, rows: pa.Table | pa.RecordBatch) -> dict[str, NDArray[np.int64]]:
        """How often each id occurs in each column of ids, (V,)."""
        return {
            column: np.bincount(pc.list_flatten(rows[column]).to_numpy(zero_copy_only=False), minlength=size)
            for column, size in self.sizes.items()
        }

    def counted(self, split: str, rows: int, ids_V: NDArray[np.int64]) -> Counts:
        """The counts of some sequences of a split with these ids of the teacher."""
        tokens, unknown = int(ids_V.sum()), 0 if self.unknown_id is None else int(ids_V[self.unknown_id])
        if split == "train":
            return Counts(train_sequences=rows, train_tokens=tokens, unknown_tokens=unknown)
        return Counts(validation_sequences=rows, validation_tokens=tokens, unknown_tokens=unknown)


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

    def texts(self) -> NDArray[np.void]:
        """Its texts that are no duplicates of earlier ones of its part, in order, as `TEXT`, (N,)."""
        return np.asarray(np.load(self.folder / "texts.npy", allow_pickle=False))

    def token_counts(self, column: str) -> NDArray[np.int64]:
        """How often each id occurs in a column of its training sequences, (V,)."""
        return np.asarray(np.load(self.folder / COUNTS[column], allow_pickle=False))


@dataclass(frozen=True)
class Block:
    """Consecutive texts of a shard.

    Attributes:
        shard: the shard.
        texts: its texts that are not empty.
        is_last: whether the shard ends with them; nothing of it changes after that.
    """

    shard: Shard
    texts: list[str]
    is_last: bool


def read_blocks(
    sources: list[list[TextOrigin]], folder: Path, start: SourcePosition, end: SourcePosition, first: int, size: int
) -> Iterator[Block]:
    """Yield the texts from `start` to `end`, a little at a time.

    Args:
        sources: what is read.
        folder: where the shards will be.
        start: where to begin.
        end: where to stop.
        first: the number of the first shard.
        size: characters of a shard, about; it also ends with its source.
    """
    number = first

    def begin(position: SourcePosition, *identities: dict[str, Any]) -> Shard:
        return Shard(folder / f"shard-{number:06d}", position, position, identities=list(identities))

    for source in range(start.source, len(sources)):
        first_origin, first_record = (start.origin, start.record) if source == start.source else (0, 0)
        # The part may end in the middle of this source, and there in the middle of an origin.
        until = end if end.source == source else SourcePosition(source + 1)
        whole = until.origin if end.source == source else len(sources[source])
        if source > end.source or SourcePosition(source, first_origin, first_record) >= until:
            break
        shard, texts, characters, in_shard = begin(SourcePosition(source, first_origin, first_record)), [], 0, 0
        for origin in range(first_origin, whole + (until.record > 0)):
            reading = sources[source][origin]
            shard.identities.append(reading.identity)
            skipped = first_record if origin == first_origin else 0
            stop = until.record if origin == whole else None
            for record, text in enumerate(reading.records(skipped, stop), start=skipped + 1):
                shard.counts.texts += 1
                if stripped := (text or "").strip():
                    texts.append(stripped)
                    characters += len(stripped)
                else:
                    shard.counts.empty += 1
                is_full = in_shard + characters >= size
                if is_full:
                    shard.end = SourcePosition(source, origin, record)
                if is_full or characters >= BLOCK_CHARACTERS or len(texts) >= BLOCK_TEXTS:
                    yield Block(shard, texts, is_last=is_full)
                    texts, in_shard, characters = [], in_shard + characters, 0
                if is_full:
                    number += 1
                    shard, in_shard = begin(shard.end, reading.identity), 0
            if stop is None:
                shard.finished.append(reading.describe())
        shard.end = until
        yield Block(shard, texts, is_last=True)
        number += 1


def complete_shards(folder: Path) -> list[Shard]:
    """The shards of a part that have their record, in order."""
    return [Shard.read(path) for path in sorted(folder.glob("shard-*")) if (path / RECORD).is_file()]


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
