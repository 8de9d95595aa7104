"""Text to a tokenised corpus on disk: read once, in flat memory, on all cores, and restartable."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from distilrubert.common.errors import UserError
from distilrubert.common.persistence import atomic_folder, write_json
from distilrubert.common.processes import available_cores, stop_signals_as_interrupt
from distilrubert.common.quiet_datasets import quiet_datasets
from distilrubert.distill.corpus.corpus_settings import CorpusSettings
from distilrubert.distill.corpus.deduplication import SeenKeys, as_fraction, text_keys
from distilrubert.distill.corpus.pairs import PairEncoder
from distilrubert.distill.corpus.sentence_splitting import prompt_of, sentences_of
from distilrubert.distill.corpus.shards import (
    Counts,
    Shard,
    complete_shards,
    counted,
    plan_of,
    read_texts,
    refuse_empty,
    remove_shards,
    resume_shards,
    without_paths,
)
from distilrubert.distill.corpus.sources import TextOrigin, open_source
from distilrubert.distill.corpus.store import (
    BATCH_ROWS,
    COUNTS,
    MANIFEST,
    PAIR_SCHEMA,
    SCHEMA,
    SPLITS,
    Corpus,
    load_corpus,
    read_sequences,
    write_sequences,
)
from distilrubert.distill.corpus.tokenisation import SequenceEncoder

# Text that each process is given at a time: enough to make its start cheap, little enough for its memory.
CHUNK_CHARACTERS = 4_000_000
# Arrow addresses 2 GiB of text in a column, and a character takes up to four bytes.
MAXIMAL_CHUNK_CHARACTERS = 500_000_000
TEXTS_WORTH_A_PROCESS = 1_000
TOKENS = datasets.List(datasets.Value("int32"))


def build_corpus(
    settings: CorpusSettings,
    tokenizer: PreTrainedTokenizerFast,
    folder: str | os.PathLike[str],
    seed: int,
    chunk_characters: int = CHUNK_CHARACTERS,
    student_tokenizer: PreTrainedTokenizerFast | None = None,
    prompts: Sequence[str] = (),
) -> Corpus:
    """Tokenise the sources into `folder`: train.arrow, validation.arrow, token_counts.npy and manifest.json.

    The folder appears whole or not at all. Until then finished shards are kept in `.<name>.shards` beside it. A build
    that was interrupted continues from there and reads only the file again in which it stopped, as long as settings,
    tokenizer and the files are the same. The result depends on settings, tokenizer, seed and text alone, not on
    processes or interruptions. Memory: about 50 bytes for each of the `chunk_characters` of each process, and 8 bytes
    a text (16 for moments) to recognise duplicates.

    With a `student_tokenizer` each sequence is kept in both tokenisations, with the spans of text that they share, and
    `student_token_counts.npy` counts the student's tokens.

    manifest.json holds the seed, the settings, the tokenizer (name, sha256, vocabulary_size), for each source its
    origins (path, bytes, sha256; or what was asked of the Hub) and `Counts`, the `total` of these counts, and
    `unknown_share`: the share of [UNK] in all tokens but [CLS] and [SEP].

    Args:
        settings: sources and form of the sequences.
        tokenizer: the teacher's.
        folder: where the corpus goes; an older one is replaced.
        seed: decides which texts are held out, and which of them a fractional weight takes.
        chunk_characters: text that each process is given at a time; does not change the result.
        student_tokenizer: the student's, if it has a vocabulary of its own.
        prompts: each text gets one of them before it, which a hash of the text decides.

    Raises:
        UserError: if a source cannot be read, or a split has no text.
    """
    folder = Path(folder)
    workplace = workplace_of(folder)
    plan = plan_of(settings, tokenizer, seed, student_tokenizer, prompts)
    builder = _Builder(settings, tokenizer, seed, workplace, student_tokenizer, prompts)
    with quiet_datasets(), stop_signals_as_interrupt():
        try:
            sources = [open_source(source) for source in settings.sources]
            builder.shards = resume_shards(workplace, without_paths(plan), sources)
            builder.build(sources, chunk_characters)
        finally:
            # The disk is asked: a signal may have come after a shard appeared and before it was noted.
            if not any(shard.counts.train_sequences for shard in complete_shards(workplace)):
                remove_shards(workplace)
        manifest = plan | counted(builder.shards, len(sources))
        refuse_empty(settings, manifest["total"])
        with atomic_folder(folder) as beside:
            builder.merge(beside)
            write_json(beside / MANIFEST, manifest)
    remove_shards(workplace)
    return load_corpus(folder)


def workplace_of(folder: Path) -> Path:
    """Where the finished shards of a corpus are until it is complete."""
    return folder.with_name(f".{folder.name}.shards")


class _Builder:
    """Makes one shard after another."""

    def __init__(
        self,
        settings: CorpusSettings,
        tokenizer: PreTrainedTokenizerFast,
        seed: int,
        workplace: Path,
        student_tokenizer: PreTrainedTokenizerFast | None,
        prompts: Sequence[str],
    ) -> None:
        self._prompts = prompts
        self.shards: list[Shard] = []
        self._settings = settings
        self._encoder: SequenceEncoder | PairEncoder = SequenceEncoder(tokenizer, settings.max_length)
        self._schema, self._sizes = SCHEMA, {"input_ids": len(tokenizer)}
        if student_tokenizer:
            self._encoder = PairEncoder(tokenizer, student_tokenizer, settings.max_length)
            self._schema, self._sizes = PAIR_SCHEMA, {**self._sizes, "student_ids": len(student_tokenizer)}
        self._unknown_id = tokenizer.unk_token_id
        self._seed = seed
        self._workplace = workplace
        self._processes = settings.processes or available_cores()
        self._seen = SeenKeys()

    def build(self, sources: list[list[TextOrigin]], chunk_characters: int) -> None:
        for shard in self.shards:
            self._seen.add(shard.keys())
        characters = min(chunk_characters * self._processes, MAXIMAL_CHUNK_CHARACTERS)
        origins = [origin for source in sources for origin in source]
        total = sum(origin.size for origin in origins)
        with tqdm(total=total or None, desc="tokenise", unit="B", unit_scale=True, disable=None) as progress:
            for shard, texts in read_texts(sources, self._workplace, self.shards, characters):
                self._complete(shard, texts)
                self.shards.append(shard)
                progress.update(sum(origin.bytes_read for origin in origins) - progress.n)

    def _complete(self, shard: Shard, texts: list[str]) -> None:
        weight = self._settings.sources[shard.start.source].weight
        shard.counts.empty = shard.counts.texts - len(texts)
        if self._settings.sentences:
            texts = [*chain.from_iterable(map(sentences_of, texts))]
        keys = text_keys(texts, self._seed)
        fresh = self._seen.add(keys[:, 0])
        copies = int(weight) + (as_fraction(keys[:, 2]) < weight % 1)
        taken = fresh & (copies > 0)
        shard.counts.duplicates = int(np.sum(~fresh))
        shard.counts.left_out = int(np.sum(fresh & ~taken))
        held_out = as_fraction(keys[taken, 1]) < self._settings.validation
        with atomic_folder(shard.folder) as folder:
            np.save(folder / "keys.npy", keys[fresh, 0])
            prompted = [prompt_of(keys[i, 0], self._prompts) + texts[i] for i in np.flatnonzero(taken)]
            tokens = self._tokenise(prompted, folder / "scratch")
            shard.counts += self._save(tokens, copies[taken], held_out, folder)
            shutil.rmtree(folder / "scratch", ignore_errors=True)
            shard.write(folder)

    def _tokenise(self, texts: list[str], scratch: Path) -> pa.Table:
        """The columns of the schema and the `index` of each row's text, in the order of the texts."""
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
        """Write the sequences of a shard to the files of both splits, and their token counts."""
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
            occurrences = {
                column: np.bincount(pc.list_flatten(table[column]).to_numpy(), minlength=size)
                for column, size in self._sizes.items()
            }
            ids[split] = occurrences["input_ids"]
            if split == "train":
                for column, counts in occurrences.items():
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
        """Put the shards together into the files of the corpus."""
        for split in SPLITS:
            files = (shard.folder / f"{split}.arrow" for shard in self.shards)
            batches = (batch for file in files for batch in read_sequences(file))
            write_sequences(folder / f"{split}.arrow", batches, self._schema)
        for column in self._sizes:
            np.save(folder / COUNTS[column], sum(shard.token_counts(column) for shard in self.shards))


@contextmanager
def _plain_errors(processes: int) -> Iterator[None]:
    """Turn the library's errors for Ctrl-C and for a process that is gone into ours."""
    try:
        yield
    except Exception as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        # The first is raised for a worker, the others for the process that passes messages between them.
        if "abruptly died" in str(error) or isinstance(error, ConnectionError | EOFError):
            raise UserError(
                f"corpus: one of {processes} tokenising processes was killed, perhaps for lack of memory; set "
                "corpus.processes to fewer. Finished work is kept"
            ) from error
        raise
