"""The tokenised corpus on disk: Arrow streams that are mapped into memory, and a manifest."""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from distilrubert.common.errors import UserError
from distilrubert.common.persistence import read_json

SPLITS = ("train", "validation")
MANIFEST = "manifest.json"
# Counts of the ids in a column of the training split.
COUNTS = {"input_ids": "token_counts.npy", "student_ids": "student_token_counts.npy"}

SCHEMA = pa.schema({"input_ids": pa.list_(pa.int32())})
# The same examples in two vocabularies, and for each token the span of text that it belongs to.
PAIR_SCHEMA = pa.schema({name: pa.list_(pa.int32()) for name in ("input_ids", "spans", "student_ids", "student_spans")})
BATCH_ROWS = 10_000
# Most sequences that a training split may have without being shuffled on disk, and that a window of a larger one has.
WINDOW = 10_000_000
# What is put after the name of a split in the name of the file that has the lengths of a column.
LENGTHS = {
    **dict.fromkeys(("input_ids", "spans"), "lengths"),
    **dict.fromkeys(("student_ids", "student_spans"), "student_lengths"),
}
# Those of the longer side of each example in two vocabularies.
PAIR_LENGTHS = "pair_lengths"


class TokenizedText(Sequence[NDArray[np.int32]]):
    """Sequences of ids, `[CLS]` and `[SEP]` included, read from mapped memory on access.

    The file is an Arrow stream with a column `input_ids`, which `datasets.Dataset.from_file` reads too. An object can
    be sent to worker processes by fork or by pickle: only the name of the file is sent.

    Args:
        path: the file.
        column: the column of lists to read.

    Attributes:
        path: the file.

    Raises:
        OSError, pyarrow.ArrowException: if there is no such file, or it is not such a stream.
    """

    def __init__(self, path: str | os.PathLike[str], column: str = "input_ids") -> None:
        self.path = Path(path)
        self._column = column
        # Arrow keeps a list column as one array of values with offsets: views of both, without a copy.
        columns = [batch.column(column) for batch in pa.ipc.open_stream(pa.memory_map(str(self.path)))]
        self._values = [column.values.to_numpy(zero_copy_only=True) for column in columns]
        self._offsets = [column.offsets.to_numpy(zero_copy_only=True) for column in columns]
        self._first = np.cumsum([0, *map(len, columns)])

    @functools.cached_property
    def lengths(self) -> NDArray[np.int32]:
        """Number of ids of each sequence, (N,); mapped from a file beside the sequences where there is one."""
        if (mapped := _mapped_lengths(self.path, LENGTHS[self._column])) is not None:
            return mapped
        lengths = [np.diff(offsets) for offsets in self._offsets]
        return np.concatenate([np.empty(0, dtype=np.int32), *lengths], dtype=np.int32)

    def __len__(self) -> int:
        return int(self._first[-1])

    @overload
    def __getitem__(self, index: int) -> NDArray[np.int32]: ...
    @overload
    def __getitem__(self, index: slice) -> list[NDArray[np.int32]]: ...
    def __getitem__(self, index: int | slice) -> NDArray[np.int32] | list[NDArray[np.int32]]:
        """The ids of a sequence, read-only."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"sequence {index} of {len(self)}")
        index %= len(self)
        chunk = int(self._first.searchsorted(index, side="right")) - 1
        row = index - self._first[chunk]
        offsets = self._offsets[chunk]
        ids: NDArray[np.int32] = self._values[chunk][offsets[row] : offsets[row + 1]]
        return ids

    def __reduce__(self) -> tuple[type["TokenizedText"], tuple[Path, str]]:
        return TokenizedText, (self.path, self._column)


def write_sequences(path: Path, batches: Iterable[pa.RecordBatch], schema: pa.Schema = SCHEMA) -> None:
    """Write batches of `schema` to a file for `TokenizedText`, one at a time."""
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as stream:
        for batch in batches:
            stream.write_batch(batch)


def read_sequences(path: Path) -> Iterator[pa.RecordBatch]:
    """Read what `write_sequences` wrote, by copying: mapped pages would add up in the memory of the process."""
    with pa.OSFile(str(path), "rb") as file, pa.ipc.open_stream(file) as stream:
        yield from stream


def in_batches(batches: Iterable[pa.RecordBatch], rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
    """The rows of batches of any size in batches of `rows`, the last one smaller."""
    waiting: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        waiting.append(batch)
        count += len(batch)
        while count >= rows:
            whole = pa.concat_batches(waiting)
            yield _alone(whole.slice(0, rows))
            count -= rows
            waiting = [whole.slice(rows)]
    if count:
        yield _alone(pa.concat_batches(waiting))


def _alone(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The same lists without what lies beside them in memory: Arrow fills up its blocks on disk with that."""
    lists = []
    for column in batch.columns:
        offsets = column.offsets.to_numpy()
        values = column.values.to_numpy()[offsets[0] : offsets[-1]]
        lists.append(pa.ListArray.from_arrays(pa.array(offsets - offsets[0]), pa.array(values)))
    return pa.record_batch(lists, schema=batch.schema)


def write_split(folder: Path, split: str, batches: Iterable[pa.RecordBatch], count: int, schema: pa.Schema) -> None:
    """Write a split and beside it, as NumPy files, the lengths of its sequences.

    Args:
        folder: where to.
        split: its name.
        batches: its `count` sequences, in batches of any size.
        count: how many there are.
        schema: the columns.
    """
    kinds = dict.fromkeys(LENGTHS[column] for column in schema.names)
    names = [*kinds, *([PAIR_LENGTHS] if len(kinds) > 1 else [])]
    with contextlib.ExitStack() as stack:
        files = {name: stack.enter_context((folder / f"{split}_{name}.npy").open("wb")) for name in names}
        for file in files.values():
            header = {"descr": "<i4", "fortran_order": False, "shape": (count,)}
            np.lib.format.write_array_header_1_0(file, header)

        def measured() -> Iterator[pa.RecordBatch]:
            for batch in in_batches(batches):
                lengths = {
                    LENGTHS[column]: np.diff(batch[column].offsets.to_numpy()).astype("<i4") for column in schema.names
                }
                if PAIR_LENGTHS in files:
                    lengths[PAIR_LENGTHS] = np.maximum(*lengths.values())
                for name, file in files.items():
                    file.write(lengths[name].tobytes())
                yield batch

        write_sequences(folder / f"{split}.arrow", measured(), schema)


def _mapped_lengths(path: Path, name: str) -> NDArray[np.int32] | None:
    """The lengths beside a split; None where it was written without."""
    file = path.with_name(f"{path.stem}_{name}.npy")
    return np.load(file, mmap_mode="r", allow_pickle=False) if file.is_file() else None


@dataclasses.dataclass(frozen=True)
class Side:
    """One tokenisation of an example.

    Attributes:
        ids_L: with [CLS] and [SEP].
        spans_L: the span of each token, counted from 0 in the order of the text; [CLS] is span 0, [SEP] the last.
    """

    ids_L: NDArray[np.int32]
    spans_L: NDArray[np.int32]


@dataclasses.dataclass(frozen=True)
class Pair:
    """An example in both tokenisations; a span may have tokens on one side only."""

    teacher: Side
    student: Side


class PairedText(Sequence[Pair]):
    """Examples in two tokenisations, read from mapped memory on access.

    Attributes:
        teacher: the sequences of the teacher.
        student: the sequences of the student.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.teacher, self._spans, self.student, self._student_spans = (
            TokenizedText(path, column) for column in PAIR_SCHEMA.names
        )

    @functools.cached_property
    def lengths(self) -> NDArray[np.int32]:
        """Number of tokens of the longer side of each example, (N,)."""
        if (mapped := _mapped_lengths(self.teacher.path, PAIR_LENGTHS)) is not None:
            return mapped
        return np.maximum(self.teacher.lengths, self.student.lengths)

    def __len__(self) -> int:
        return len(self.teacher)

    @overload
    def __getitem__(self, index: int) -> Pair: ...
    @overload
    def __getitem__(self, index: slice) -> list[Pair]: ...
    def __getitem__(self, index: int | slice) -> Pair | list[Pair]:
        """An example; its arrays are read-only."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return Pair(
            Side(self.teacher[index], self._spans[index]), Side(self.student[index], self._student_spans[index])
        )

    def __reduce__(self) -> tuple[type["PairedText"], tuple[Path]]:
        return PairedText, (self.teacher.path,)


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Tokenised text in two splits: one to train on, one held out.

    Attributes:
        train: sequences to train on.
        validation: sequences of other texts.
        manifest: what the corpus was made of; see `build_corpus`.
        token_counts: how often each id occurs in `train`, int64 (V,).
        pairs: the same splits in two vocabularies if the student has a trained one, else None.
    """

    train: TokenizedText | PairedText
    validation: TokenizedText | PairedText
    manifest: dict[str, Any]
    token_counts: NDArray[np.int64]
    pairs: "PairedCorpus | None" = None


@dataclasses.dataclass(frozen=True)
class PairedCorpus:
    """The splits of a corpus in two vocabularies.

    Attributes:
        train: examples to train on.
        validation: examples of other texts.
        token_counts: how often each id of the student occurs in `train`, int64 (V,).
    """

    train: PairedText
    validation: PairedText
    token_counts: NDArray[np.int64]


def load_corpus(folder: str | os.PathLike[str]) -> Corpus:
    """Open a corpus that `build_corpus` made.

    Raises:
        UserError: if the folder holds no complete corpus.
    """
    folder = Path(folder)
    manifest = read_json(folder / MANIFEST)
    try:
        splits = [TokenizedText(folder / f"{split}.arrow") for split in SPLITS]
        token_counts = np.load(folder / COUNTS["input_ids"], allow_pickle=False)
        pairs = None
        if "student_tokenizer" in manifest:
            train, validation = (PairedText(folder / f"{split}.arrow") for split in SPLITS)
            pairs = PairedCorpus(train, validation, np.load(folder / COUNTS["student_ids"], allow_pickle=False))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"{folder}: no complete corpus: {error}") from error
    return Corpus(splits[0], splits[1], manifest, token_counts, pairs)
