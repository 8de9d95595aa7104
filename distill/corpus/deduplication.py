"""Which texts are duplicates of earlier ones, in little memory."""

import hashlib
import shutil
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# Keys that are sorted in memory at a time.
KEYS_AT_ONCE = 4_000_000
_PLACED = np.dtype([("key", "<u8"), ("place", "<i8")])


def text_keys(texts: Sequence[str], seed: int) -> NDArray[np.uint64]:
    """Three independent 64-bit hashes of each text, (N, 3): identity, place in the split, share of a weight.

    They depend on the text and the seed only, not on the order of the texts or the machine. Among a hundred million
    different texts, two have the same identity with a probability of 3 in 10,000; the second would be dropped.
    """
    salt = seed.to_bytes(8, "little")
    digests = [hashlib.blake2b(text.encode(), digest_size=24, salt=salt).digest() for text in texts]
    return np.frombuffer(b"".join(digests), dtype="<u8").reshape(-1, 3)


def as_fraction(keys: NDArray[np.uint64]) -> NDArray[np.float64]:
    """The hashes as numbers, uniform on [0, 1)."""
    return (keys >> np.uint64(11)).astype(np.float64) * 2.0**-53


class SeenKeys:
    """A set of 64-bit keys to which many are added at a time: 8 bytes a key, 16 for moments while it grows.

    The keys are sorted runs, each more than twice as long as the next, as in a log-structured merge tree. A Python set
    takes about 70 bytes a key.

    Args:
        limit: most keys; before there are more, all are forgotten.
    """

    def __init__(self, limit: int | None = None) -> None:
        self._limit = limit
        self._runs: list[NDArray[np.uint64]] = []

    def add(self, keys: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Add keys and return which of them are new; among equal keys only the first is."""
        if self._limit and sum(map(len, self._runs)) + len(keys) > self._limit:
            self._runs = []
        unique, first = np.unique(keys, return_index=True)
        fresh = np.ones(len(unique), dtype=bool)
        for run in self._runs:
            place = np.minimum(np.searchsorted(run, unique), len(run) - 1)
            fresh &= run[place] != unique
        self._push(unique[fresh])
        new = np.zeros(len(keys), dtype=bool)
        new[first[fresh]] = True
        return new

    def _push(self, run: NDArray[np.uint64]) -> None:
        if not len(run):
            return
        self._runs.append(run)
        while len(self._runs) > 1 and len(self._runs[-2]) <= 2 * len(self._runs[-1]):
            merged = np.concatenate((self._runs.pop(-2), self._runs.pop()))
            merged.sort(kind="stable")
            self._runs.append(merged)


def repeated(keys: Iterable[NDArray[np.uint64]], count: int, scratch: Path) -> list[NDArray[np.int64]]:
    """For each array, the places in it of the keys that are in an earlier place of it, or in an earlier array.

    The keys go to files by their first bits, and each file is sorted by itself. So the memory is about 60 bytes for
    each of `KEYS_AT_ONCE` keys and 8 bytes for each that is repeated.

    Args:
        keys: hashes.
        count: how many there are.
        scratch: a folder for the files, which is made and removed.
    """
    bits = max(-(-count // KEYS_AT_ONCE) - 1, 0).bit_length()
    scratch.mkdir()
    ends, found = [0], [np.empty(0, dtype=np.int64)]
    with ExitStack() as stack:
        files = [stack.enter_context((scratch / f"{number:06d}").open("wb")) for number in range(2**bits)]
        for array in keys:
            placed = np.empty(len(array), dtype=_PLACED)
            placed["key"], placed["place"] = array, np.arange(ends[-1], ends[-1] + len(array))
            # Shifting by all 64 bits is not defined.
            file_of = array >> np.uint64(64 - bits) if bits else np.zeros(len(array), dtype=np.uint64)
            order = np.argsort(file_of, kind="stable")
            cuts = np.searchsorted(file_of[order], np.arange(1, 2**bits, dtype=np.uint64))
            for file, part in zip(files, np.split(placed[order], cuts), strict=True):
                part.tofile(file)
            ends.append(ends[-1] + len(array))
    for number in range(2**bits):
        placed = np.fromfile(scratch / f"{number:06d}", dtype=_PLACED)
        in_order = placed[np.argsort(placed["key"], kind="stable")]
        found.append(in_order["place"][1:][in_order["key"][1:] == in_order["key"][:-1]])
    shutil.rmtree(scratch)
    places = np.sort(np.concatenate(found))
    parts = np.split(places, np.searchsorted(places, ends[1:]))[:-1]
    return [part - start for part, start in zip(parts, ends, strict=False)]
