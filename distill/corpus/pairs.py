"""Sequences in two vocabularies: the teacher's tokens, the student's tokens, and the spans of text that they share.

Axes: L tokens of one side of an example.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate, chain

import numpy as np
import pyarrow as pa
from tokenizers import Encoding
from transformers import PreTrainedTokenizerFast

from distilrubert.distill.corpus.store import Pair, Side
from distilrubert.distill.corpus.tokenisation import (
    check_max_length,
    fragments_of_text,
    list_column,
)
from distilrubert.modeling.alignment import Offsets, align
from distilrubert.modeling.tokenizer_kinds import plain_tokenizer


class PairEncoder:
    """Turns texts into sequences in both tokenisations, each of at most `max_length` ids.

    A text that is too long on either side is split on both sides at the same character, between two words, as late as
    possible; it is split inside a word only if that word alone is longer than a sequence. A span that alone is longer
    (a word of a hundred letters that is one [UNK] for the teacher) is left out.

    Args:
        teacher: the teacher's fast tokenizer; it is copied.
        student: the student's fast tokenizer; it is copied.
        max_length: most ids of a sequence, with [CLS] and [SEP].

    Raises:
        UserError: if one of them is for shorter sequences.
    """

    def __init__(self, teacher: PreTrainedTokenizerFast, student: PreTrainedTokenizerFast, max_length: int) -> None:
        for tokenizer in (teacher, student):
            check_max_length(max_length, tokenizer.model_max_length)
        self._limit = max_length - 2
        self._edges = [(tokenizer.cls_token_id, tokenizer.sep_token_id) for tokenizer in (teacher, student)]
        self._backends = [plain_tokenizer(tokenizer) for tokenizer in (teacher, student)]

    def encode(self, texts: list[str]) -> list[list[Pair]]:
        """The examples of each text; an empty text has one, of [CLS] and [SEP] alone."""
        fragments = [list(fragments_of_text(text)) for text in texts]
        flat = [fragment for text in fragments for fragment in text]
        encodings = []
        for backend in self._backends:
            # Set at each call: a pickled tokenizer forgets it.
            backend.encode_special_tokens = True
            encodings.append(backend.encode_batch(flat, add_special_tokens=False))
        spans = [each.astype(np.int32) for each in align(*(Offsets.of(side, flat) for side in encodings))]
        ids = [np.fromiter((token for encoding in side for token in encoding.ids), np.int32) for side in encodings]
        ends = [list(accumulate(map(len, side), initial=0)) for side in encodings]
        result, first = [], 0
        for text in fragments:
            last = first + len(text)
            cuts = [slice(end[first], end[last]) for end in ends]
            sides = [
                Side(tokens[cut], places[cut].astype(np.int32))
                for tokens, places, cut in zip(ids, spans, cuts, strict=True)
            ]
            words = [side[first:last] for side in encodings]
            result.append([self._pair(sides, *span) for span in _ranges(sides, words, self._limit)])
            first = last
        return result

    def __call__(self, texts: list[str]) -> pa.Table:
        """`encode` as a table: one row an example, the columns of `PAIR_SCHEMA` and the `index` of its text."""
        encoded = self.encode(texts)
        pairs = list(chain.from_iterable(encoded))
        columns = {
            "input_ids": [pair.teacher.ids_L for pair in pairs],
            "spans": [pair.teacher.spans_L for pair in pairs],
            "student_ids": [pair.student.ids_L for pair in pairs],
            "student_spans": [pair.student.spans_L for pair in pairs],
        }
        index = np.repeat(np.arange(len(texts)), [len(text) for text in encoded])
        return pa.table({name: list_column(lists) for name, lists in columns.items()} | {"index": index})

    def _pair(self, sides: Sequence[Side], first: int, last: int) -> Pair:
        """The example that holds the spans from `first` up to but not including `last`."""
        framed = []
        # Bounds of another type would make searchsorted copy all spans of a long text for each of its examples.
        bounds = np.array([first, last], dtype=np.int32)
        for side, edges in zip(sides, self._edges, strict=True):
            cut = slice(*np.searchsorted(side.spans_L, bounds))
            framed.append(
                Side(
                    np.concatenate(([edges[0]], side.ids_L[cut], [edges[1]]), dtype=np.int32),
                    np.concatenate(([0], side.spans_L[cut] - first + 1, [last - first + 1]), dtype=np.int32),
                )
            )
        return Pair(*framed)


def _ranges(sides: Sequence[Side], encodings: Sequence[Sequence[Encoding]], limit: int) -> Iterator[tuple[int, int]]:
    """The first span of each example of a text, and the one after its last."""
    spans = [side.spans_L for side in sides if len(side.spans_L)]
    begin, end = min((each[0] for each in spans), default=0), max((each[-1] + 1 for each in spans), default=0)
    if all(len(side.ids_L) <= limit for side in sides):
        yield int(begin), int(end)
        return
    # The number of tokens before each span, on either side.
    before = [np.searchsorted(side.spans_L, np.arange(begin, end + 1)) for side in sides]
    starts = np.zeros(end - begin, dtype=bool)
    for side, words in zip(sides, encodings, strict=True):
        is_start = np.concatenate([np.diff(np.array(each.word_ids, dtype=np.int64), prepend=-1) != 0 for each in words])
        is_first = np.diff(side.spans_L, prepend=-1) != 0
        starts[side.spans_L[is_start & is_first] - begin] = True
    latest_start = np.maximum.accumulate(np.where(starts, np.arange(end - begin), 0))
    place = 0
    while place < end - begin:
        furthest = min(int(np.searchsorted(tokens, tokens[place] + limit, side="right")) - 1 for tokens in before)
        if furthest == end - begin:
            stop = furthest
        else:
            stop = int(latest_start[furthest]) if latest_start[furthest] > place else furthest
        if stop > place:
            yield int(begin) + place, int(begin) + stop
        place = max(stop, place + 1)
