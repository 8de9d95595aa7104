"""Text to a tokenised corpus on disk: read once, in flat memory, on all cores, and restartable."""

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from distilrubert.common.errors import UserError
from distilrubert.common.persistence import atomic_folder, write_json
from distilrubert.common.processes import sigterm_as_interrupt
from distilrubert.distill.corpus.corpus_settings import CorpusSettings
from distilrubert.distill.corpus.deduplication import SeenKeys, as_fraction, text_keys
from distilrubert.distill.corpus.pairs import PairEncoder
from distilrubert.distill.corpus.parts import (
    Block,
    Counts,
    Part,
    Position,
    complete_parts,
    read_blocks,
    read_part,
    remove_parts,
    resume_parts,
    write_part,
)
from distilrubert.distill.corpus.sources import TextOrigin, open_source, quiet_datasets
from distilrubert.distill.corpus.store import (
    BATCH_ROWS,
    COUNTS,
    MANIFEST,
    PAIR_SCHEMA,
    SCHEMA,
    SPLITS,
    Corpus,
    TokenizedText,
    load_corpus,
    read_sequences,
    write_sequences,
)
from distilrubert.distill.corpus.tokenisation import SequenceEncoder, tokenizer_sha256

__all__ = ["Corpus", "TokenizedText", "build_corpus", "load_corpus", "workplace_of"]

logger = logging.getLogger(__name__)

# Text that each process is given at a time: enough to make its start cheap, little enough for its memory.
BLOCK_CHARACTERS = 4_000_000
# Arrow addresses 2 GiB of text in a column, and a character takes up to four bytes.
MAXIMAL_BLOCK_CHARACTERS = 500_000_000
TEXTS_WORTH_A_PROCESS = 1_000
TOKENS = datasets.List(datasets.Value("int32"))


def build_corpus(
    settings: CorpusSettings,
    tokenizer: PreTrainedTokenizerFast,
    folder: str | os.PathLike[str],
    seed: int,
    block_characters: int = BLOCK_CHARACTERS,
    student_tokenizer: PreTrainedTokenizerFast | None = None,
) -> Corpus:
    """Tokenise the sources into `folder`: train.arrow, validation.arrow, token_counts.npy and manifest.json.

    The folder appears whole or not at all. Until then finished parts are kept in `.<name>.parts` beside it; a build
    that was interrupted goes on from there, reading again only the file it was in, as long as settings, tokenizer and
    the files read are the same. What comes out depends on settings, tokenizer, seed and text alone, not on processes
    or interruptions. Memory: about 50 bytes for each of the `block_characters` of each process, and 8 bytes a text
    (16 for moments) to recognise duplicates.

    With a `student_tokenizer` each sequence is kept in both tokenisations, with the spans of text that they share, and
    `student_token_counts.npy` counts the student's.

    manifest.json holds the seed, the settings, the tokenizer (name, sha256, vocabulary_size), for each source its
    origins (path, bytes, sha256; or what was asked of the Hub) and `Counts`, the `total` of these counts, and
    `unknown_share`: the part of [UNK] in all tokens but [CLS] and [SEP].

    Args:
        settings: sources and form of the sequences.
        tokenizer: the teacher's.
        folder: where the corpus is to be; an older one is replaced.
        seed: decides which texts are held out, and which of them a fractional weight takes.
        block_characters: text that each process is given at a time; has no influence on the result.
        student_tokenizer: the student's, where it has a vocabulary of its own.

    Raises:
        UserError: if a source cannot be read, or there is no text for one of the parts.
    """
    folder = Path(folder)
    workplace = workplace_of(folder)
    plan = _plan(settings, tokenizer, seed)
    if student_tokenizer:
        plan["student_tokenizer"] = _identity_of(student_tokenizer)
    builder = _Builder(settings, tokenizer, seed, workplace, student_tokenizer)
    with quiet_datasets(), sigterm_as_interrupt():
        try:
            sources = [open_source(source) for source in settings.sources]
            builder.parts = resume_parts(workplace, _without_places(plan), sources)
            builder.build(sources, block_characters)
        finally:
            # Asked of the disk: a signal may have come between a part's appearance and its being noted.
            if not any(part.counts.train_sequences for part in complete_parts(workplace)):
                remove_parts(workplace)
        manifest = plan | _counted(builder.parts, len(sources))
        _refuse_empty(settings, manifest["total"])
        with atomic_folder(folder) as beside:
            builder.merge(beside)
            write_json(beside / MANIFEST, manifest)
    remove_parts(workplace)
    return load_corpus(folder)


def workplace_of(folder: Path) -> Path:
    """Where the finished parts of a corpus lie until all are there."""
    return folder.with_name(f".{folder.name}.parts")


class _Builder:
    """Makes one part after another."""

    def __init__(
        self,
        settings: CorpusSettings,
        tokenizer: PreTrainedTokenizerFast,
        seed: int,
        workplace: Path,
        student_tokenizer: PreTrainedTokenizerFast | None,
    ) -> None:
        self.parts: list[Part] = []
        self._settings = settings
        self._encoder: SequenceEncoder | PairEncoder
        if student_tokenizer:
            self._encoder = PairEncoder(tokenizer, student_tokenizer, settings.max_length)
            self._schema = PAIR_SCHEMA
        else:
            self._encoder = SequenceEncoder(tokenizer, settings.max_length)
            self._schema = SCHEMA
        self._sizes = {"input_ids": len(tokenizer)}
        if student_tokenizer:
            self._sizes["student_ids"] = len(student_tokenizer)
        self._unknown_id = tokenizer.unk_token_id
        self._seed = seed
        self._workplace = workplace
        self._processes = settings.processes or _available_cores()
        self._seen = SeenKeys()

    def build(self, sources: list[list[TextOrigin]], block_characters: int) -> None:
        for part in self.parts:
            self._seen.add(part.keys())
        start = self.parts[-1].end if self.parts else Position()
        characters = min(block_characters * self._processes, MAXIMAL_BLOCK_CHARACTERS)
        origins = [origin for source in sources for origin in source]
        total = sum(origin.size for origin in origins)
        with tqdm(total=total or None, desc="tokenise", unit="B", unit_scale=True, disable=None) as progress:
            for block in read_blocks(sources, start, characters):
                self.parts.append(self._part(block))
                progress.update(sum(origin.bytes_read for origin in origins) - progress.n)

    def _part(self, block: Block) -> Part:
        weight = self._settings.sources[block.start.source].weight
        keys = text_keys(block.texts, self._seed)
        fresh = self._seen.add(keys[:, 0])
        copies = int(weight) + (as_fraction(keys[:, 2]) < weight % 1)
        taken = fresh & (copies > 0)
        counts = Counts(
            texts=block.texts_read,
            empty=block.texts_read - len(block.texts),
            duplicates=int(np.sum(~fresh)),
            left_out=int(np.sum(fresh & ~taken)),
        )
        held_out = as_fraction(keys[taken, 1]) < self._settings.validation
        with atomic_folder(self._workplace / f"part-{len(self.parts):06d}") as folder:
            np.save(folder / "keys.npy", keys[fresh, 0])
            tokens = self._tokenise([block.texts[i] for i in np.flatnonzero(taken)], folder / "scratch")
            counts += self._save(tokens, copies[taken], held_out, folder)
            shutil.rmtree(folder / "scratch", ignore_errors=True)
            write_part(folder, block, counts)
        return read_part(self._workplace / f"part-{len(self.parts):06d}")

    def _tokenise(self, texts: list[str], scratch: Path) -> pa.Table:
        """Rows of the schema's columns and the `index` of their text, in the order of the texts."""
        features = datasets.Features(dict.fromkeys(self._schema.names, TOKENS) | {"index": datasets.Value("int64")})
        if not texts:
            return features.arrow_schema.empty_table()
        processes = min(self._processes, 1 + len(texts) // TEXTS_WORTH_A_PROCESS)
        rows = datasets.Dataset.from_dict({"text": texts, "index": np.arange(len(texts))}).with_format("arrow")
        with _plain_errors(processes):
            tokens = rows.map(
                self._encoder,
                batched=True,
                with_rank=True,
                num_proc=processes if processes > 1 else None,
                features=features,
                cache_file_name=str(scratch / "tokens.arrow"),
                load_from_cache_file=False,
                new_fingerprint="tokens",
            )
        return tokens.data.table

    def _save(self, tokens: pa.Table, copies: NDArray[np.int64], held_out: NDArray[np.bool_], folder: Path) -> Counts:
        """Write the sequences of a part to its files of either split, and their token counts."""
        index = tokens["index"].to_numpy()
        lengths = pc.list_value_length(tokens["input_ids"]).to_numpy()
        kept = lengths >= self._settings.minimum_length
        chosen = {
            "train": np.repeat(np.arange(len(lengths)), np.where(kept & ~held_out[index], copies[index], 0)),
            "validation": np.flatnonzero(kept & held_out[index]),
        }
        ids = {}
        for split, rows in chosen.items():
            table = tokens.select(self._schema.names).take(rows).cast(self._schema)
            write_sequences(folder / f"{split}.arrow", table.to_batches(BATCH_ROWS), self._schema)
            counted = {
                column: np.bincount(pc.list_flatten(table[column]).to_numpy(), minlength=size)
                for column, size in self._sizes.items()
            }
            ids[split] = counted["input_ids"]
            if split == "train":
                for column, counts in counted.items():
                    np.save(folder / COUNTS[column], counts)
        return Counts(
            split=int(np.sum(np.bincount(index) > 1)),
            too_short=int(np.sum(~kept)),
            train_sequences=len(chosen["train"]),
            train_tokens=int(ids["train"].sum()),
            validation_sequences=len(chosen["validation"]),
            validation_tokens=int(ids["validation"].sum()),
            unknown_tokens=int(sum(counts[self._unknown_id] for counts in ids.values())),
        )

    def merge(self, folder: Path) -> None:
        """Put the parts together into the corpus's files."""
        for split in SPLITS:
            files = (part.folder / f"{split}.arrow" for part in self.parts)
            batches = (batch for file in files for batch in read_sequences(file))
            write_sequences(folder / f"{split}.arrow", batches, self._schema)
        for column in self._sizes:
            np.save(folder / COUNTS[column], sum(part.token_counts(column) for part in self.parts))


def _available_cores() -> int:
    # Those of this process, where the system (Linux) says which they are.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _plain_errors(processes: int) -> Iterator[None]:
    """Say in plain words what the library tells by errors of its own: Ctrl-C, and a process that is gone."""
    try:
        yield
    except Exception as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        # Of a worker, and of the process that the others speak through.
        if "abruptly died" in str(error) or isinstance(error, ConnectionError | EOFError):
            raise UserError(
                f"corpus: one of {processes} processes that tokenise was ended from outside, perhaps for want of "
                "memory; corpus.processes takes fewer. What is finished is kept"
            ) from error
        raise


def _plan(settings: CorpusSettings, tokenizer: PreTrainedTokenizerFast, seed: int) -> dict[str, Any]:
    """All that decides what becomes of a text."""
    return {
        "seed": seed,
        "settings": settings.model_dump(mode="json", exclude={"processes"}),
        "tokenizer": _identity_of(tokenizer),
    }


def _without_places(plan: dict[str, Any]) -> dict[str, Any]:
    """The plan without the paths in it, so that a build goes on where its project has been moved."""
    tokenizers = {
        key: {name: value for name, value in plan[key].items() if name != "name"}
        for key in ("tokenizer", "student_tokenizer")
        if key in plan
    }
    sources = [source | {"path": None} for source in plan["settings"]["sources"]]
    return plan | tokenizers | {"settings": plan["settings"] | {"sources": sources}}


def _identity_of(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        "name": tokenizer.name_or_path,
        "sha256": tokenizer_sha256(tokenizer),
        "vocabulary_size": len(tokenizer),
    }


def _counted(parts: list[Part], sources: int) -> dict[str, Any]:
    by_source = [[part for part in parts if part.start.source == source] for source in range(sources)]
    entries = [{"origins": [origin for part in own for origin in part.finished], **_figures(own)} for own in by_source]
    return {"sources": entries, "total": _figures(parts)}


def _figures(parts: list[Part]) -> dict[str, Any]:
    counts = sum((part.counts for part in parts), Counts())
    tokens = counts.train_tokens + counts.validation_tokens - 2 * (counts.train_sequences + counts.validation_sequences)
    return {**asdict(counts), "unknown_share": counts.unknown_tokens / tokens if tokens else 0.0}


def _refuse_empty(settings: CorpusSettings, total: dict[str, Any]) -> None:
    if not total["train_sequences"]:
        raise UserError(
            f"corpus: no text to train on: {total['texts']} texts read, {total['empty']} of them empty, "
            f"{total['duplicates']} repeated, {total['left_out']} left out by a weight; {total['too_short']} sequences "
            f"shorter than minimum_length {settings.minimum_length}, {total['validation_sequences']} held out by "
            f"validation {settings.validation}"
        )
    if settings.validation and not total["validation_sequences"]:
        raise UserError(
            f"corpus.validation: {settings.validation} of {total['texts']} texts holds out none; raise it, or set 0"
        )
