"""The tokenised corpus on disk: Arrow files that are mapped into memory, and a manifest."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import datasets
import numpy as np
from numpy.typing import NDArray

from distilrubert.modeling.errors import UserError
from distilrubert.modeling.persistence import read_json

MANIFEST = "manifest.json"
COUNTS = "token_counts.npy"


class TokenizedText(Sequence[NDArray[np.int32]]):
    """Sequences of ids, `[CLS]` and `[SEP]` included, read from mapped memory when they are asked for.

    It may go to worker processes by fork or by pickle: only the folder's name travels.

    Attributes:
        folder: where the Arrow files are.
        lengths: ids of each sequence, int32 (N,).
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        column = datasets.load_from_disk(str(self.folder), keep_in_memory=False).data.column("input_ids")
        # Arrow keeps a list column as one array of values with offsets: views of both, without a copy.
        chunks = [chunk for chunk in column.chunks if len(chunk)]
        self._values = [chunk.values.to_numpy(zero_copy_only=True) for chunk in chunks]
        self._offsets = [chunk.offsets.to_numpy(zero_copy_only=True) for chunk in chunks]
        self._first = np.cumsum([0, *map(len, chunks)])
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
        return TokenizedText, (self.folder,)

    def values(self) -> Iterator[NDArray[np.int32]]:
        """The ids of all sequences one after another, some thousands of sequences at a time."""
        for values, offsets in zip(self._values, self._offsets, strict=True):
            yield values[offsets[0] : offsets[-1]]


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
        parts = [TokenizedText(folder / part) for part in ("train", "validation")]
        token_counts = np.load(folder / COUNTS, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: no complete corpus: {error}") from error
    return Corpus(parts[0], parts[1], manifest, token_counts)
