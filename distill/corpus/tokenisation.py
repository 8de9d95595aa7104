"""Texts to sequences of ids: special tokens in a text are plain characters, long texts are split between words."""

import hashlib
import json
from array import array
from collections.abc import Iterator
from itertools import accumulate, chain, compress

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer
from transformers import PreTrainedTokenizerFast

from distilrubert.common.errors import UserError
from distilrubert.distill.corpus.word_cache import WordCache, is_separable
from distilrubert.modeling.tokenizer_kinds import plain_state

# The tokenizer takes about 150 bytes for each token of what it is given at once, so a book goes in by fragments.
FRAGMENT_CHARACTERS = 20_000
FRAGMENTS_AT_ONCE = 256
# Characters for each token of a sequence from which a text is taken to be longer than a sequence.
LONG_CHARACTERS = 5


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
        # To take a large tokenizer apart, and to make one, takes as long as some megabytes of text.
        state = plain_state(tokenizer)
        self._words = WordCache(state) if is_separable(state) else None
        self._backend = None if self._words else Tokenizer.from_str(json.dumps(state))

    def encode(self, texts: list[str]) -> list[list[NDArray[np.int32]]]:
        """The sequences of each text, at least one; a text without tokens has one of [CLS] and [SEP]."""
        table = self(texts)
        column = table["input_ids"].combine_chunks()
        rows = np.split(column.values.to_numpy(), column.offsets.to_numpy()[1:-1])
        ends = np.cumsum(np.bincount(table["index"].to_numpy(), minlength=len(texts)))
        return [rows[start:end] for start, end in zip([0, *ends], ends, strict=False)]

    def __call__(self, texts: list[str]) -> pa.Table:
        """`encode` as a table: one row a sequence, `input_ids` and the `index` of its text."""
        counts_N = np.zeros(len(texts), dtype=np.int64)
        # A text of many characters is long in all likelihood: the slower call tells where its words begin, too.
        longest = LONG_CHARACTERS * self._limit
        is_fast_N = np.array([self._words is not None or len(text) <= longest for text in texts], dtype=bool)
        fast, counts_N[is_fast_N] = self._fast([*compress(texts, is_fast_N.tolist())])
        parts, starts = {}, {}
        for i in np.flatnonzero(~is_fast_N):
            parts[i], starts[i] = self._with_word_starts(texts[i])
            counts_N[i] = len(parts[i])
        ends_N = np.cumsum(counts_N)
        tokens_T = np.empty(counts_N.sum(), dtype=np.int32)
        tokens_T[np.repeat(is_fast_N, counts_N)] = fast
        cuts, rows_N = [ends_N], np.ones(len(texts), dtype=np.int64)
        for i, part in parts.items():
            tokens_T[ends_N[i] - counts_N[i] : ends_N[i]] = part
        for i in np.flatnonzero(counts_N > self._limit):
            if self._words:
                is_start = self._words.begin_words(tokens_T[ends_N[i] - counts_N[i] : ends_N[i]])
            else:
                is_start = starts[i] if i in starts else self._with_word_starts(texts[i])[1]
            ends = _split_ends(is_start, self._limit)[:-1]
            cuts.append(ends_N[i] - counts_N[i] + np.array(ends, dtype=np.int64))
            rows_N[i] += len(ends)
        edges = np.sort(np.concatenate(([0], *cuts)))
        index = np.repeat(np.arange(len(texts)), rows_N)
        return pa.table({"input_ids": self._framed(tokens_T, edges[1:] - edges[:-1]), "index": index})

    def _framed(self, tokens_T: NDArray[np.int32], lengths: NDArray[np.int64]) -> pa.ListArray:
        """The tokens cut to sequences of these lengths, each between [CLS] and [SEP]."""
        offsets = np.concatenate(([0], np.cumsum(lengths + 2)))
        values = np.empty(offsets[-1], dtype=np.int32)
        is_token = np.ones(len(values), dtype=bool)
        for edges, token in ((offsets[:-1], self._cls), (offsets[1:] - 1, self._sep)):
            values[edges] = token
            is_token[edges] = False
        values[is_token] = tokens_T
        return pa.ListArray.from_arrays(offsets.astype(np.int32), values)

    def _fast(self, texts: list[str]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """The tokens of all texts, and how many each has."""
        flat, text_of = texts, np.arange(len(texts))
        if max(map(len, texts), default=0) > FRAGMENT_CHARACTERS:
            fragments = [[*fragments_of_text(text)] for text in texts]
            flat, text_of = [*chain.from_iterable(fragments)], np.repeat(text_of, [*map(len, fragments)])
        counts: list[int] = []
        # The fastest way out of a list of Python's integers.
        tokens = array("i")
        for batch in _batches(flat):
            if self._words:
                found = self._words.encode(batch)
                tokens.frombytes(b"".join(found))
                counts += [len(each) // tokens.itemsize for each in found]
            else:
                for encoding in self._encoded(batch, "encode_batch_fast"):
                    ids = encoding.ids
                    tokens.fromlist(ids)
                    counts.append(len(ids))
        return np.array(tokens, dtype=np.int32), np.bincount(text_of, counts, len(texts)).astype(np.int64)

    def _with_word_starts(self, text: str) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """The tokens of a text, and whether each begins a word."""
        encodings = [
            encoding
            for batch in _batches([*fragments_of_text(text)])
            for encoding in self._encoded(batch, "encode_batch")
        ]
        ids = np.concatenate([np.array(encoding.ids, dtype=np.int32) for encoding in encodings])
        return ids, np.concatenate([np.diff(np.array(each.word_ids), prepend=-1) != 0 for each in encodings])

    def _encoded(self, fragments: list[str], method: str) -> list[Encoding]:
        assert self._backend is not None
        # Set at each call: a pickled tokenizer forgets it.
        self._backend.encode_special_tokens = True
        encodings: list[Encoding] = getattr(self._backend, method)(fragments, add_special_tokens=False)
        return encodings


def _batches(fragments: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(fragments), FRAGMENTS_AT_ONCE):
        yield fragments[start : start + FRAGMENTS_AT_ONCE]


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


def tokenizer_sha256(tokenizer: PreTrainedTokenizerFast) -> str:
    """A hash of everything that decides how the tokenizer encodes; truncation and padding of its last use do not."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["truncation"] = state["padding"] = None
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()
