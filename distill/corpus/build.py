"""Text to a tokenised corpus on disk: read once, in flat memory, on all cores and machines, and restartable."""

import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from distilrubert.common.bars import progress_bar
from distilrubert.common.persistence import atomic_folder, remove_leftovers
from distilrubert.common.processes import available_cores
from distilrubert.common.quiet_datasets import quiet_datasets
from distilrubert.distill.corpus.corpus_settings import CorpusSettings
from distilrubert.distill.corpus.deduplication import SeenKeys, as_fraction, text_keys
from distilrubert.distill.corpus.encoder_pool import Encoder, EncoderPool
from distilrubert.distill.corpus.merge import merge
from distilrubert.distill.corpus.pairs import PairEncoder
from distilrubert.distill.corpus.parts import PartFolder, SharedWork, merge_lock, part_in_work, remove_parts
from distilrubert.distill.corpus.sentence_splitting import prompt_of, sentences_of
from distilrubert.distill.corpus.shards import (
    HELD_OUT,
    LEFT_OUT,
    SPLIT,
    TEXT,
    Block,
    Counts,
    Form,
    Shard,
    plan_of,
    read_blocks,
    without_paths,
)
from distilrubert.distill.corpus.sources import TextOrigin, open_source
from distilrubert.distill.corpus.store import BATCH_ROWS, COUNTS, MANIFEST, Corpus, load_corpus, write_sequences
from distilrubert.distill.corpus.tokenisation import SequenceEncoder

# Text of a shard: little enough for the memory, and for what is done again after an interruption.
SHARD_CHARACTERS = 8_000_000
# Keys that a part remembers to recognise duplicates; those that are further apart are found when parts are merged.
REMEMBERED_KEYS = 16_000_000


@dataclass(frozen=True)
class CorpusBuild(SharedWork):
    """A corpus to be built, by one process or shared out.

    The result depends on settings, tokenizers, seed and text alone, not on parts, processes or interruptions.

    Attributes:
        settings: sources and form of the sequences.
        tokenizer: the teacher's.
        folder: where the corpus goes; an older one is replaced.
        seed: decides which texts are held out, which of them a fractional weight takes, and how a large corpus is
            shuffled.
        student_tokenizer: the student's, if it has a vocabulary of its own.
        prompts: each text gets one of them before it, which a hash of the text decides.
        shard_characters: text of a shard; does not change the result.
        processes: how many tokenise if the settings do not say; None takes as many as there are cores.
    """

    settings: CorpusSettings
    tokenizer: PreTrainedTokenizerFast
    folder: Path
    seed: int
    student_tokenizer: PreTrainedTokenizerFast | None = None
    prompts: Sequence[str] = ()
    shard_characters: int = SHARD_CHARACTERS
    processes: int | None = None

    @property
    def workplace(self) -> Path:
        """Where the parts are until the corpus is complete."""
        return self.folder.with_name(f".{self.folder.name}.shards")

    @property
    def is_finished(self) -> bool:
        return (self.folder / MANIFEST).exists()

    def build(self) -> Corpus:
        """Do what is missing of the parts, and put them together. Without parts, the corpus is one part.

        The parts stay: with them, a corpus that is damaged before anybody has relied on it is soon there again.

        Raises:
            UserError: if a source cannot be read, a split has no text, or another process is working on a part.
        """
        with quiet_datasets():
            sources = self.sources()
            folders = self._folders(sources, None)
            try:
                for folder in folders:
                    self._complete(folder, sources)
                with merge_lock(self.workplace):
                    # A corpus that was nearly put together would take the place of this one on a full disk.
                    remove_leftovers(self.folder)
                    shards = [shard for folder in folders for shard in folder.shards(sources)]
                    with atomic_folder(self.folder) as beside:
                        merge(shards, self._form(), self.settings, self._plan, beside)
            finally:
                # The disk is asked: a signal may have come after a shard appeared and before it was noted.
                is_empty = not any(shard.counts.train_sequences for each in folders for shard in each.shards(sources))
                if is_empty and part_in_work(self.workplace) is None:
                    remove_parts(self.workplace)
        return load_corpus(self.folder)

    def sources(self) -> list[list[TextOrigin]]:
        return [open_source(source) for source in self.settings.sources]

    def plan(self) -> dict[str, Any]:
        return without_paths(self._plan)

    def is_complete(self, folder: PartFolder, sources: list[list[TextOrigin]]) -> bool:
        return folder.is_complete(sources)

    def complete(self, folder: PartFolder, sources: list[list[TextOrigin]]) -> None:
        encoder: Encoder = SequenceEncoder(self.tokenizer, self.settings.max_length)
        if self.student_tokenizer:
            encoder = PairEncoder(self.tokenizer, self.student_tokenizer, self.settings.max_length)
        with EncoderPool(encoder, self.settings.processes or self.processes or available_cores()) as pool:
            _PartBuilder(self, self._form(), folder, pool).build(sources)

    @cached_property
    def _plan(self) -> dict[str, Any]:
        return plan_of(self.settings, self.tokenizer, self.seed, self.student_tokenizer, self.prompts)

    def _form(self) -> Form:
        return Form.of(self.tokenizer, self.student_tokenizer)


def build_corpus(
    settings: CorpusSettings,
    tokenizer: PreTrainedTokenizerFast,
    folder: str | os.PathLike[str],
    seed: int,
    shard_characters: int = SHARD_CHARACTERS,
    student_tokenizer: PreTrainedTokenizerFast | None = None,
    prompts: Sequence[str] = (),
) -> Corpus:
    """Tokenise the sources into `folder`: train.arrow, validation.arrow, token_counts.npy and manifest.json.

    The folder appears whole or not at all. Until then finished shards are kept in `.<name>.shards` beside it. A build
    that was interrupted continues from there and reads only the file again in which it stopped, as long as settings,
    tokenizer and the files are the same. Memory: about 100 bytes for each of the `shard_characters`, and at most
    300 MB to recognise duplicates.

    With a `student_tokenizer` each sequence is kept in both tokenisations, with the spans of text that they share, and
    `student_token_counts.npy` counts the student's tokens.

    A training split of more sequences than `store.WINDOW` is in shuffled order, see :func:`.merge.merge`; any other is
    in the order of the text.

    manifest.json holds the seed, the settings, the tokenizer (name, sha256, vocabulary_size), for each source its
    origins (path, bytes, sha256; or what was asked of the Hub) and `Counts`, the `total` of these counts, and
    `unknown_share`: the share of [UNK] in all tokens but [CLS] and [SEP].

    Args and errors are those of :class:`CorpusBuild` and its :meth:`~CorpusBuild.build`.
    """
    build = CorpusBuild(settings, tokenizer, Path(folder), seed, student_tokenizer, prompts, shard_characters)
    corpus = build.build()
    remove_parts(build.workplace)
    return corpus


@dataclass
class _Batch:
    """Texts of a block that are no duplicates, in the hands of the pool.

    Attributes:
        shard: the shard that they belong to.
        texts: what a shard keeps of each.
        taken: the places of those that are tokenised.
        copies: how often each of these is in the training split.
        tokens: the table of these.
        is_last: whether the shard ends with them.
    """

    shard: Shard
    texts: NDArray[np.void]
    taken: NDArray[np.int64]
    copies: NDArray[np.int64]
    tokens: Future[pa.Table]
    is_last: bool


class _PartBuilder:
    """Makes one shard of a part after another: while texts are tokenised, the next are read and the last written."""

    def __init__(self, build: CorpusBuild, form: Form, folder: PartFolder, pool: EncoderPool) -> None:
        self._build, self._form, self._folder, self._pool = build, form, folder, pool
        self._seen = SeenKeys(REMEMBERED_KEYS)
        self._done: list[tuple[_Batch, pa.Table]] = []

    def build(self, sources: list[list[TextOrigin]]) -> None:
        """Read and tokenise what is missing of the part."""
        folder = self._folder
        done = folder.resume(sources)
        for shard in done:
            self._seen.add(shard.texts()["key"])
        start = done[-1].end if done else folder.start
        blocks = read_blocks(sources, folder.path, start, folder.end, len(done), self._build.shard_characters)
        origins = [origin for source in sources for origin in source]
        title = "tokenising" if folder.part.count == 1 else f"tokenising {folder.part}"
        total = sum(origin.size for origin in origins) // folder.part.count
        waiting: deque[_Batch] = deque()
        told = 0.0
        with progress_bar(title, total or None, unit="byte", in_bytes=True) as progress:
            for block in blocks:
                waiting.append(self._begin(block))
                # There may be as many files as blocks.
                if (now := time.monotonic()) - told > 1:
                    progress.update(sum(origin.bytes_read for origin in origins) - progress.n)
                    told = now
                while waiting and (len(waiting) > self._pool.capacity or waiting[0].tokens.done()):
                    self._finish(waiting.popleft())
            while waiting:
                self._finish(waiting.popleft())

    def _begin(self, block: Block) -> _Batch:
        """Leave out duplicates and what the weight leaves out, and give the rest to the pool."""
        settings, seed = self._build.settings, self._build.seed
        shard, texts = block.shard, block.texts
        weight = settings.sources[shard.start.source].weight
        if settings.sentences:
            texts = [*chain.from_iterable(map(sentences_of, texts))]
        keys = text_keys(texts, seed)
        fresh = np.flatnonzero(self._seen.add(keys[:, 0]))
        copies = int(weight) + (as_fraction(keys[fresh, 2]) < weight % 1)
        kept = np.zeros(len(fresh), dtype=TEXT)
        kept["key"] = keys[fresh, 0]
        kept["flags"] |= np.where(as_fraction(keys[fresh, 1]) < settings.validation, HELD_OUT, 0).astype(np.uint8)
        kept["flags"] |= np.where(copies > 0, 0, LEFT_OUT).astype(np.uint8)
        shard.counts.duplicates += len(texts) - len(fresh)
        shard.counts.left_out += int(np.sum(copies == 0))
        taken = np.flatnonzero(copies)
        chosen = fresh[taken].tolist()
        texts = [texts[i] for i in chosen]
        if prompts := self._build.prompts:
            texts = [prompt_of(key, prompts) + text for key, text in zip(keys[chosen, 0], texts, strict=True)]
        tokens = self._pool.submit(texts)
        return _Batch(shard, kept, taken, copies[taken], tokens, block.is_last)

    def _finish(self, batch: _Batch) -> None:
        """Take the tokens of a batch; after the last of a shard, complete the shard."""
        self._done.append((batch, batch.tokens.result()))
        if batch.is_last:
            done, self._done = self._done, []
            with atomic_folder(batch.shard.folder) as folder:
                batch.shard.counts += self._save(done, folder)
                batch.shard.write(folder)

    def _save(self, done: list[tuple[_Batch, pa.Table]], folder: Path) -> Counts:
        """Write what a shard keeps: its texts, the sequences of both splits, and the counts of the training split."""
        starts = np.cumsum([0, *(len(batch.texts) for batch, _ in done)])
        indices = [table["index"].to_numpy() for _, table in done]
        parts = zip(done, indices, starts[:-1], strict=True)
        text_of_R = np.concatenate([start + batch.taken[index] for (batch, _), index, start in parts])
        copies_R = np.concatenate([batch.copies[index] for (batch, _), index in zip(done, indices, strict=True)])
        texts = np.concatenate([batch.texts for batch, _ in done])
        tokens = pa.concat_tables([table for _, table in done]).select(self._form.schema.names).cast(self._form.schema)
        lengths_R = pc.list_value_length(tokens["input_ids"]).to_numpy()
        is_held_out_R = (texts["flags"][text_of_R] & HELD_OUT) > 0
        is_short_R = lengths_R < self._build.settings.minimum_length
        rows_R = np.where(is_short_R, 0, np.where(is_held_out_R, 1, copies_R))
        texts["rows"] = np.bincount(text_of_R, rows_R, len(texts))
        texts["short"] = np.bincount(text_of_R, is_short_R, len(texts))
        is_split = np.bincount(text_of_R, minlength=len(texts)) > 1
        texts["flags"] |= np.where(is_split, SPLIT, 0).astype(np.uint8)
        np.save(folder / "texts.npy", texts)
        counts = Counts(split=int(is_split.sum()), too_short=int(is_short_R.sum()))
        for split, is_in_R in (("train", ~is_held_out_R), ("validation", is_held_out_R)):
            taken_N = np.repeat(np.arange(len(rows_R)), np.where(is_in_R, rows_R, 0))
            ids = self._form.count_ids(tokens.slice(0, 0))
            write_sequences(folder / f"{split}.arrow", self._taken(tokens, taken_N, ids), self._form.schema)
            counts += self._form.counted(split, len(taken_N), ids["input_ids"])
            if split == "train":
                for column, occurrences in ids.items():
                    np.save(folder / COUNTS[column], occurrences)
        return counts

    def _taken(
        self, tokens: pa.Table, taken_N: NDArray[np.int64], ids: dict[str, NDArray[np.int64]]
    ) -> Iterator[pa.RecordBatch]:
        """These rows in batches, as a large weight repeats them; their ids are added to the counts `ids`."""
        for start in range(0, len(taken_N), BATCH_ROWS):
            table = tokens.take(taken_N[start : start + BATCH_ROWS])
            for column, occurrences in self._form.count_ids(table).items():
                ids[column] += occurrences
            yield from table.combine_chunks().to_batches()
