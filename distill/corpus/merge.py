"""The shards of all parts put together: duplicates among parts are dropped, a large corpus is shuffled.

Legend: N sequences of a split, V tokens of a vocabulary.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from distilrubert.common.bars import progress_bar
from distilrubert.common.persistence import write_json
from distilrubert.distill.corpus.corpus_settings import CorpusSettings
from distilrubert.distill.corpus.deduplication import repeated
from distilrubert.distill.corpus.shards import (
    HELD_OUT,
    LEFT_OUT,
    SPLIT,
    Counts,
    Form,
    Shard,
    counted,
    refuse_empty,
)
from distilrubert.distill.corpus.store import (
    COUNTS,
    MANIFEST,
    SPLITS,
    WINDOW,
    in_batches,
    read_sequences,
    write_split,
)


def merge(shards: Sequence[Shard], form: Form, settings: CorpusSettings, plan: dict[str, Any], folder: Path) -> None:
    """Write the files of a corpus from the shards of all its parts, which stay as they are.

    A text that an earlier shard has is dropped, as a build in one part would have dropped it, and nothing that was
    counted of it remains. A training split of more than `WINDOW` sequences is shuffled: each sequence goes to one of
    ceil(N / WINDOW) windows, which the seed and its number in the order of the text decide, and the windows are written
    one after the other. So text that lay together is spread over the whole, and a reader that shuffles within a window
    reads the disk in order.

    Args:
        shards: of all parts, in the order of the text.
        form: what the sequences are made of.
        settings: of the corpus.
        plan: what manifest.json says of how it was made.
        folder: where the files go.

    Raises:
        UserError: if a split has no text.
    """
    scratch = folder / "scratch"
    sizes = [len(np.load(shard.folder / "texts.npy", mmap_mode="r")) for shard in shards]
    merged = _Merge(form, shards, repeated((shard.texts()["key"] for shard in shards), sum(sizes), scratch))
    rows = {split: merged.count(split) for split in SPLITS}
    for split in SPLITS:
        batches = merged.batches(split)
        if split == "train" and rows[split] > WINDOW:
            batches = _shuffled(batches, -(-rows[split] // WINDOW), plan["seed"], scratch)
        write_split(folder, split, _shown(batches, f"writing {split}", rows[split]), rows[split], form.schema)
    for column, counts_V in merged.token_counts().items():
        np.save(folder / COUNTS[column], counts_V)
    manifest = plan | counted(merged.shards, len(settings.sources))
    refuse_empty(settings, manifest["total"])
    write_json(folder / MANIFEST, manifest)


def _shown(batches: Iterable[pa.RecordBatch], title: str, sequences: int) -> Iterator[pa.RecordBatch]:
    """The same batches, with a bar that counts their sequences."""
    with progress_bar(title, sequences, unit="sequence") as bar:
        for batch in batches:
            yield batch
            bar.update(len(batch))


class _Merge:
    """The shards without the texts that earlier shards have.

    Attributes:
        shards: with their counts; those of sequences are right once :meth:`batches` of both splits were read.
    """

    def __init__(self, form: Form, shards: Sequence[Shard], dropped: Sequence[NDArray[np.int64]]) -> None:
        self._form = form
        self._dropped = dropped
        self._lost = {column: np.zeros(size, dtype=np.int64) for column, size in form.sizes.items()}
        self.shards = list(shards)
        for shard, places in zip(shards, dropped, strict=True):
            texts = shard.texts()[places]
            shard.counts -= Counts(
                duplicates=-len(texts),
                left_out=int(np.sum(texts["flags"] & LEFT_OUT > 0)),
                split=int(np.sum(texts["flags"] & SPLIT > 0)),
                too_short=int(texts["short"].sum()),
            )

    def count(self, split: str) -> int:
        """How many sequences of a split remain."""
        return sum(int(_rows_of(shard, split)[_others(shard, places)].sum()) for shard, places in self._each())

    def batches(self, split: str) -> Iterator[pa.RecordBatch]:
        """The sequences of a split that remain, in the order of the text."""
        for shard, places in self._each():
            batches = read_sequences(shard.folder / f"{split}.arrow")
            if not len(places):
                yield from batches
                continue
            is_kept = np.repeat(_others(shard, places), _rows_of(shard, split))
            for batch in batches:
                kept, is_kept = np.split(is_kept, [len(batch)])
                lost = batch.filter(pa.array(~kept))
                ids = self._form.count_ids(lost)
                shard.counts -= self._form.counted(split, len(lost), ids["input_ids"])
                if split == "train":
                    for column, counts_V in ids.items():
                        self._lost[column] += counts_V
                yield batch.filter(pa.array(kept))

    def token_counts(self) -> dict[str, NDArray[np.int64]]:
        """How often each id occurs in each column of the training split, (V,)."""
        return {
            column: sum((shard.token_counts(column) for shard in self.shards), -lost_V)
            for column, lost_V in self._lost.items()
        }

    def _each(self) -> Iterable[tuple[Shard, NDArray[np.int64]]]:
        return zip(self.shards, self._dropped, strict=True)


def _rows_of(shard: Shard, split: str) -> NDArray[np.int64]:
    """How many sequences of a split each text of a shard gave."""
    texts = shard.texts()
    is_in = ((texts["flags"] & HELD_OUT) > 0) == (split == "validation")
    return np.where(is_in, texts["rows"], 0).astype(np.int64)


def _others(shard: Shard, places: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which texts of a shard are not at these places."""
    is_kept = np.ones(len(shard.texts()), dtype=bool)
    is_kept[places] = False
    return is_kept


def _shuffled(batches: Iterable[pa.RecordBatch], windows: int, seed: int, scratch: Path) -> Iterator[pa.RecordBatch]:
    """The same sequences, window by window; `scratch` holds them until they are read."""
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, windows])))
    scratch.mkdir()
    files: list[pa.OSFile] = []
    streams: list[pa.RecordBatchStreamWriter] = []
    paths = [scratch / f"{window:06d}.arrow" for window in range(windows)]
    try:
        for batch in in_batches(batches):
            if not streams:
                files = [pa.OSFile(str(path), "wb") for path in paths]
                streams = [pa.ipc.new_stream(file, batch.schema) for file in files]
            window_of = np.floor(generator.random(len(batch)) * windows).astype(np.int64)
            for window, stream in enumerate(streams):
                stream.write_batch(batch.take(pa.array(np.flatnonzero(window_of == window))))
    finally:
        for stream, file in zip(streams, files, strict=True):
            stream.close()
            file.close()
    for path in paths:
        yield from read_sequences(path)
        path.unlink()
    scratch.rmdir()
