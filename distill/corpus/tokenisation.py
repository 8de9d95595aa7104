"""Texts to sequences of ids: special tokens in a text are plain characters, long texts are split between words."""

import functools
import hashlib
import json
import os
import signal
from collections.abc import Callable, Iterator
from itertools import accumulate, chain

import multiprocess  # with which `datasets` starts its processes
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tokenizers import Encoding
from transformers import PreTrainedTokenizerFast

from distilrubert.common.errors import UserError
from distilrubert.common.processes import end_with
from distilrubert.modeling.tokenizer_kinds import plain_tokenizer

# The tokenizer takes about 150 bytes for each token of what it is given at once, so a book goes in by fragments.
FRAGMENT_CHARACTERS = 20_000
FRAGMENTS_AT_ONCE = 256


def check_max_length(max_length: int, allowed: int) -> None:
    """Raise a UserError if sequences may become longer than the tokenizer, and so the model, allows."""
    if max_length > allowed:
        raise UserError(f"corpus.max_length: {max_length} is more than the tokenizer's {allowed} tokens")


def list_column(lists: list[NDArray[np.int32]]) -> pa.ListArray:
    """A column of lists of int32."""
    offsets = np.array([0, *accumulate(map(len, lists))], dtype=np.int32)
    return pa.ListArray.from_arrays(offsets, np.concatenate([np.empty(0, dtype=np.int32), *lists]))


class SequenceEncoder:
    """Turns texts into sequences `[CLS] … [SEP]` of at most `max_length` ids.

    A "[MASK]" or "[SEP]" in a text is encoded as plain characters. A text that is too long is split between two words,
    as late as possible; it is split inside a word only if that word alone is longer than a sequence.

    Args:
        tokenizer: a fast tokenizer with [CLS] and [SEP]; it is copied and not changed.
        max_length: most ids of a sequence, with [CLS] and [SEP].

    Raises:
        UserError: if the tokenizer has no [CLS] or [SEP], or is for shorter sequences.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, max_length: int) -> None:
        if tokenizer.cls_token_id is None or tokenizer.sep_token_id is None:
            raise UserError("the tokenizer has no [CLS] or no [SEP] token, which begin and end a sequence")
        check_max_length(max_length, tokenizer.model_max_length)
        self._cls, self._sep = int(tokenizer.cls_token_id), int(tokenizer.sep_token_id)
        self._limit = max_length - 2
        self._backend = plain_tokenizer(tokenizer)

    def encode(self, texts: list[str]) -> list[list[NDArray[np.int32]]]:
        """The sequences of each text, at least one; a text without tokens has one of [CLS] and [SEP]."""
        fragments = [list(fragments_of_text(text)) for text in texts]
        encodings = self._encodings([*chain.from_iterable(fragments)], self._backend.encode_batch_fast)
        ids = (np.array(encoding.ids, dtype=np.int32) for encoding in encodings)
        return [self._sequences(text, np.concatenate([next(ids) for _ in text])) for text in fragments]

    def __call__(self, batch: pa.Table, rank: int | None = None) -> pa.Table:
        """`encode` for `Dataset.map(batched=True, with_rank=True)` in Arrow format.

        Takes columns `text` and `index`; gives one row a sequence, `input_ids` and the `index` of its text.
        """
        if rank is not None:
            set_up_worker()
        sequences = self.encode(batch["text"].to_pylist())
        index = np.repeat(batch["index"].to_numpy(), [len(text) for text in sequences])
        return pa.table({"input_ids": list_column(list(chain.from_iterable(sequences))), "index": index})

    def _word_starts(self, fragments: list[str]) -> NDArray[np.bool_]:
        """Whether each token of a text begins a word."""
        encodings = self._encodings(fragments, self._backend.encode_batch)
        return np.concatenate([np.diff(np.array(encoding.word_ids), prepend=-1) != 0 for encoding in encodings])

    def _encodings(self, fragments: list[str], encode_batch: Callable[..., list[Encoding]]) -> Iterator[Encoding]:
        # Set at each call: a pickled tokenizer forgets it.
        self._backend.encode_special_tokens = True
        for start in range(0, len(fragments), FRAGMENTS_AT_ONCE):
            yield from encode_batch(fragments[start : start + FRAGMENTS_AT_ONCE], add_special_tokens=False)

    def _sequences(self, fragments: list[str], tokens: NDArray[np.int32]) -> list[NDArray[np.int32]]:
        ends = [len(tokens)]
        if len(tokens) > self._limit:
            ends = _split_ends(self._word_starts(fragments), self._limit)
        return [
            np.concatenate(([self._cls], tokens[start:end], [self._sep]), dtype=np.int32)
            for start, end in zip([0, *ends], ends, strict=False)
        ]


def _split_ends(starts: NDArray[np.bool_], limit: int) -> list[int]:
    """Where each sequence of a text of `len(starts)` tokens ends, so that none has more than `limit` tokens."""
    latest_start = np.maximum.accumulate(np.where(starts, np.arange(len(starts)), 0))
    ends = [0]
    while len(starts) - ends[-1] > limit:
        furthest = ends[-1] + limit
        boundary = int(latest_start[furthest])
        ends.append(boundary if boundary > ends[-1] else furthest)
    return [*ends[1:], len(starts)]


def fragments_of_text(text: str) -> Iterator[str]:
    """Cut a very long text at white space, where tokenizers separate words."""
    start = 0
    while len(text) - start > FRAGMENT_CHARACTERS:
        end = start + FRAGMENT_CHARACTERS
        space = max(text.rfind(" ", start, end), text.rfind("\n", start, end))
        end = space if space > start else end
        yield text[start:end]
        start = end
    yield text[start:]


@functools.cache
def set_up_worker() -> None:
    """Set signals and threads of one of several tokenising processes."""
    # One thread a process; without this the tokenizer warns about the fork.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    # Ctrl-C reaches all processes; the main one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    end_with(multiprocess.parent_process())


def tokenizer_sha256(tokenizer: PreTrainedTokenizerFast) -> str:
    """A hash of everything that decides how the tokenizer encodes; truncation and padding of its last use do not."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["truncation"] = state["padding"] = None
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()
