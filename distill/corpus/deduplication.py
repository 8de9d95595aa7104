"""Which texts are duplicates of earlier ones, in little memory."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def text_keys(texts: Sequence[str], seed: int) -> NDArray[np.uint64]:
    """Three independent 64-bit hashes of each text, (N, 3): identity, place in the split, share of a weight.

    They depend on the text and the seed only, not on the order of the texts or the machine. Among a hundred million
    different texts, two have the same identity with a probability of 3 in 10,000; the second would be dropped.
    """
    salt = seed.to_bytes(8, "little")
    digests = (hashlib.blake2b(text.encode(), digest_size=24, salt=salt).digest() for text in texts)
    return np.frombuffer(b"".join(digests), dtype="<u8").reshape(-1, 3)


def as_fraction(keys: NDArray[np.uint64]) -> NDArray[np.float64]:
    """The hashes as numbers, uniform on [0, 1)."""
    return (keys >> np.uint64(11)).astype(np.float64) * 2.0**-53


class SeenKeys:
    """A set of 64-bit keys to which many are added at a time: 8 bytes a key, 16 for moments while it grows.

    The keys are sorted runs, each more than twice as long as the next, as in a log-structured merge tree. A Python set
    takes about 70 bytes a key.
    """

    def __init__(self) -> None:
        self._runs: list[NDArray[np.uint64]] = []

    def add(self, keys: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Add keys and return which of them are new; among equal keys only the first is."""
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
