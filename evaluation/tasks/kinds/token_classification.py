"""Tasks that give a tag to every word of a sentence: named entities as BIO tags."""

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from transformers import DataCollatorForTokenClassification, PreTrainedTokenizerBase

from distilrubert.common.derived import MAJORITY
from distilrubert.common.training.padding import IGNORED
from distilrubert.evaluation.tasks.kinds.task_kind import Labels, Logits, TaskKind, class_of, in_row_order, with_lengths

OUTSIDE = "O"


def _read_sentence(row: Mapping[str, Any], labels: Labels) -> dict[str, Any]:
    tokens, tags = row["tokens"], row["tags"]
    if not isinstance(tokens, list) or not isinstance(tags, list):
        raise ValueError("tokens and tags must be lists")
    if len(tokens) != len(tags):
        raise ValueError(f"{len(tokens)} tokens have {len(tags)} tags")
    return {"tokens": _words(tokens), "tags": [class_of(tag, labels) for tag in tags]}


def _read_words(row: Mapping[str, Any], _labels: Labels) -> dict[str, Any]:
    words = _words(row["tokens"])
    return {"tokens": words, "tags": [IGNORED] * len(words)}


def _words(tokens: Any) -> list[str]:
    if not isinstance(tokens, list):
        raise ValueError("tokens must be a list")
    if strange := [token for token in tokens if token is None or isinstance(token, list | dict)]:
        raise ValueError(f"tokens hold {strange[0]!r}, expected words")
    return [str(token) for token in tokens]


def _check_classes(classes: Sequence[str]) -> None:
    """Spans are read from BIO tags; the metric would read spans from other names too, wrongly."""
    strange = [name for name in classes if name != OUTSIDE and not re.fullmatch(r"[BI]-.+", name)]
    if strange or OUTSIDE not in classes:
        found = ", ".join(strange) or f"no {OUTSIDE}"
        raise ValueError(
            f"labels: BIO tags are needed ({OUTSIDE}, and B- or I- before what each span is), found {found}"
        )


def _encode(rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Dataset:
    """The first token of a word carries its tag; the other tokens are not scored."""
    # Byte-level tokens have the space before a word in them; other tokenizers do not mind it.
    sentences = [[f" {word}" if place else word for place, word in enumerate(tokens)] for tokens in rows["tokens"]]
    with _words_allowed(tokenizer):
        encoding = tokenizer(sentences, is_split_into_words=True, truncation=True, max_length=max_length)
    words = [_first_tokens(encoding.word_ids(index)) for index in range(len(rows))]
    labels = [
        [IGNORED if word is None else tags[word] for word in begun]
        for begun, tags in zip(words, rows["tags"], strict=True)
    ]
    # Not all words of a sentence: some are cut off, and a zero-width space has no token.
    scored = [[word for word in begun if word is not None] for begun in words]
    places = [[place for place, word in enumerate(begun) if word is not None] for begun in words]
    return with_lengths(encoding, labels=labels, scored_words=scored, scored_places=places)


@contextlib.contextmanager
def _words_allowed(tokenizer: PreTrainedTokenizerBase) -> Iterator[None]:
    """RoBERTa's tokenizers refuse words unless they would put the spaces before them, which these have already."""
    before = getattr(tokenizer, "add_prefix_space", None)
    if before is not False:
        yield
        return
    tokenizer.add_prefix_space = True
    try:
        yield
    finally:
        tokenizer.add_prefix_space = before


def _first_tokens(words: Sequence[int | None]) -> list[int | None]:
    """The word that begins at each token."""
    previous = [None, *words[:-1]]
    return [None if word == before else word for word, before in zip(words, previous, strict=True)]


def _decode(
    rows: Dataset, features: Dataset, logits: Logits, classes: Sequence[str]
) -> tuple[list[list[str]], list[list[str]]]:
    assert isinstance(logits, np.ndarray)
    scored = scored_positions(features)
    return tags_of(
        rows, features, [scores[own].argmax(-1) for own, scores in zip(scored, logits, strict=True)], classes
    )


def scored_positions(features: Dataset) -> list[NDArray[np.intp]]:
    """The positions that carry a tag, for each feature."""
    return [np.array(places, dtype=np.intp) for places in features["scored_places"][:]]


def tags_of(
    rows: Dataset, features: Dataset, predicted: Iterable[Iterable[int]], classes: Sequence[str]
) -> tuple[list[list[str]], list[list[str]]]:
    """Predictions and references, row by row and word by word.

    Args:
        rows: in standard form.
        features: of these rows.
        predicted: for each feature the class of each of its scored positions.
        classes: by their ids.
    """
    tags, predictions, references = rows["tags"][:], [], []
    found_by_feature = list(zip(features["row"], features["scored_words"], predicted, strict=True))
    for row, words, own in (found_by_feature[index] for index in in_row_order(features)):
        # Words beyond the largest length count as not found.
        found = [OUTSIDE] * len(tags[row])
        for word, index in zip(words, own, strict=True):
            found[word] = classes[index]
        predictions.append(found)
        references.append([classes[tag] for tag in tags[row]])
    return predictions, references


TOKEN_CLASSIFICATION = TaskKind(
    columns=("tokens", "tags"),
    labelled=True,
    metrics=("span_f1",),
    read_row=_read_sentence,
    encode=_encode,
    decode=_decode,
    export_task="token-classification",
    baselines=("word-tags", MAJORITY),
    text_columns=("tokens",),
    read_text=_read_words,
    collator=DataCollatorForTokenClassification,
    check_classes=_check_classes,
)
