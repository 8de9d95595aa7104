"""The tokenised corpus on disk: Arrow streams that are mapped into memory, and a manifest."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from distilrubert.modeling.errors import UserError
from distilrubert.modeling.persistence import read_json

SPLITS = ("train", "validation")
MANIFEST = "manifest.json"
COUNTS = "token_counts.npy"


SCHEMA = pa.schema({"input_ids": pa.list_(pa.int32())})
BATCH_ROWS = 10_000


class TokenizedText(Sequence[NDArray[np.int32]]):
    """Sequences of ids, `[CLS]` and `[SEP]` included, read from mapped memory when they are asked for.

    The file is an Arrow stream with one column `input_ids`, as `datasets.Dataset.from_file` also reads it. It may go
    to worker processes by fork or by pickle: only its name travels.

    Attributes:
        path: the file.
        lengths: ids of each sequence, int32 (N,).

    Raises:
        OSError, pyarrow.ArrowException: if there is no such file, or it is none of ours.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        # Arrow keeps a list column as one array of values with offsets: views of both, without a copy.
        columns = [batch.column("input_ids") for batch in pa.ipc.open_stream(pa.memory_map(str(self.path)))]
        self._values = [column.values.to_numpy(zero_copy_only=True) for column in columns]
        self._offsets = [column.offsets.to_numpy(zero_copy_only=True) for column in columns]
        self._first = np.cumsum([0, *map(len, columns)])
        lengths = [np.diff(offsets) for offsets in self._offsets]
        self.lengths = np.concatenate([np.empty(0, dtype=np.int32), *lengths], dtype=np.int32)

    def __len__(self) -> int:
        return len(self.lengths)

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

    def __reduce__(self) -> tuple[type["TokenizedText"], tuple[Path]]:
        return TokenizedText, (self.path,)


def write_sequences(path: Path, batches: Iterable[pa.RecordBatch]) -> None:
    """Write batches of `SCHEMA` to a file for `TokenizedText`, one at a time."""
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, SCHEMA) as stream:
        for batch in batches:
            stream.write_batch(batch)


def read_sequences(path: Path) -> Iterator[pa.RecordBatch]:
    """Read back what `write_sequences` wrote, by copying: mapped pages would add up in the process's memory."""
    with pa.OSFile(str(path), "rb") as file, pa.ipc.open_stream(file) as stream:
        yield from stream


@dataclass(frozen=True)
class Corpus:
    """Tokenised text, split into a part to train on and a part held out.

    Attributes:
        train: sequences to train on.
        validation: sequences of other texts.
        manifest: what the corpus was made of; see `build_corpus`.
        token_counts: how often each id stands in `train`, int64 (V,).
    """

    train: TokenizedText
    validation: TokenizedText
    manifest: dict[str, Any]
    token_counts: NDArray[np.int64]


def load_corpus(folder: str | os.PathLike[str]) -> Corpus:
    """Open a corpus that `build_corpus` made.

    Raises:
        UserError: if the folder holds none.
    """
    folder = Path(folder)
    manifest = read_json(folder / MANIFEST)
    try:
        parts = [TokenizedText(folder / f"{split}.arrow") for split in SPLITS]
        token_counts = np.load(folder / COUNTS, allow_pickle=False)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"{folder}: no complete corpus: {error}") from error
    return Corpus(parts[0], parts[1], manifest, token_counts)
