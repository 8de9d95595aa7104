"""Tasks that give a tag to every word of a sentence: named entities as BIO tags."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import AutoModelForTokenClassification, DataCollatorForTokenClassification, PreTrainedTokenizerBase

from distilrubert.evaluation.task_kind import Labels, Logits, TaskKind, class_of, with_lengths

IGNORED = -100
OUTSIDE = "O"


def _read_sentence(row: Mapping[str, Any], labels: Labels) -> dict[str, Any]:
    tokens, tags = row["tokens"], row["tags"]
    if not isinstance(tokens, list) or not isinstance(tags, list):
        raise ValueError("tokens and tags must be lists")
    if len(tokens) != len(tags):
        raise ValueError(f"{len(tokens)} tokens have {len(tags)} tags")
    return {"tokens": [str(token) for token in tokens], "tags": [class_of(tag, labels) for tag in tags]}


def _encode(rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Dataset:
    """The first piece of a word carries its tag; the other pieces are not scored."""
    encoding = tokenizer(rows["tokens"][:], is_split_into_words=True, truncation=True, max_length=max_length)
    labels = [_first_pieces(encoding.word_ids(index), tags) for index, tags in enumerate(rows["tags"])]
    return with_lengths(encoding, labels=labels)


def _first_pieces(words: Sequence[int | None], tags: Sequence[int]) -> list[int]:
    previous = [None, *words[:-1]]
    return [
        IGNORED if word is None or word == before else tags[word] for word, before in zip(words, previous, strict=True)
    ]


def _decode(
    rows: Dataset, features: Dataset, logits: Logits, classes: Sequence[str]
) -> tuple[list[list[str]], list[list[str]]]:
    assert isinstance(logits, np.ndarray)
    tags, predictions, references = rows["tags"][:], [], []
    for row, labels, scores in zip(features["row"], features["labels"], logits, strict=True):
        scored = np.flatnonzero(np.array(labels) != IGNORED)
        found = [classes[index] for index in scores[scored].argmax(axis=-1)]
        # Words cut off at the largest length count as not found.
        predictions.append(found + [OUTSIDE] * (len(tags[row]) - len(found)))
        references.append([classes[tag] for tag in tags[row]])
    return predictions, references


TOKEN_CLASSIFICATION = TaskKind(
    columns=("tokens", "tags"),
    labelled=True,
    metrics=("span_f1",),
    model_class=AutoModelForTokenClassification,
    collator=DataCollatorForTokenClassification,
    read_row=_read_sentence,
    encode=_encode,
    decode=_decode,
    export_task="token-classification",
)
