"""Extractive question answering: the answer is a span of a given passage.

A passage longer than a model's input is cut into overlapping windows, each a feature; the answer is the best
span over all windows of the row (Devlin et al., "BERT", 2019, section 4.2).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from distilrubert.common.training.padding import IGNORED
from distilrubert.evaluation.tasks.kinds.task_kind import Labels, Logits, TaskKind, text_in, with_lengths

LONGEST_ANSWER = 30  # tokens, as in the SQuAD scripts of BERT and of transformers
CANDIDATES = 20  # best starts and best ends that are combined
OVERLAP = 128  # tokens shared by neighbouring windows, at most


def _read_question(row: Mapping[str, Any], _labels: Labels) -> dict[str, Any]:
    answers = row["answer"] if isinstance(row["answer"], list) else [row["answer"]]
    starts = row["answer_start"] if isinstance(row["answer_start"], list) else [row["answer_start"]]
    context = text_in(row, "context")
    if not answers or len(answers) != len(starts):
        raise ValueError(f"{len(answers)} answers with {len(starts)} offsets")
    if not all(isinstance(answer, str) and answer.strip() for answer in answers):
        raise ValueError("an answer is empty or no text; questions without an answer are not taken")
    start = int(starts[0])
    if start < 0 or context[start : start + len(answers[0])] != answers[0]:
        raise ValueError(f"the answer {answers[0]!r} does not begin at character {start} of its context")
    return {"question": text_in(row, "question"), "context": context, "answers": answers, "start": start}


def _read_context(row: Mapping[str, Any], _labels: Labels) -> dict[str, Any]:
    return {
        "question": text_in(row, "question"),
        "context": text_in(row, "context"),
        "answers": [""],
        "start": IGNORED,
    }


def _encode(rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Dataset:
    stride = min(OVERLAP, max_length // 3)
    _check_room(rows, tokenizer, max_length - stride)
    encoding = tokenizer(
        rows["question"][:],
        rows["context"][:],
        truncation="only_second",
        max_length=max_length,
        stride=stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    owners = encoding.pop("overflow_to_sample_mapping")
    offsets = [
        [span if part == 1 else (-1, -1) for span, part in zip(spans, encoding.sequence_ids(index), strict=True)]
        for index, spans in enumerate(encoding.pop("offset_mapping"))
    ]
    starts, answers = rows["start"][:], rows["answers"][:]
    spans = [
        _token_span(window, starts[row], starts[row] + len(answers[row][0]))
        if starts[row] != IGNORED
        else (IGNORED, IGNORED)
        for window, row in zip(offsets, owners, strict=True)
    ]
    return with_lengths(
        encoding,
        row=owners,
        window=_windows(owners),
        offsets=offsets,
        start_positions=[first for first, _ in spans],
        end_positions=[last for _, last in spans],
    )


def _windows(owners: Sequence[int]) -> list[int]:
    """The number of each feature among those of its row, which follow each other."""
    windows = [0] * len(owners)
    for place in range(1, len(owners)):
        if owners[place] == owners[place - 1]:
            windows[place] = windows[place - 1] + 1
    return windows


def _check_room(rows: Dataset, tokenizer: PreTrainedTokenizerBase, room: int) -> None:
    """Refuse a question that leaves no room for its passage: the tokenizer would abort."""
    longest = max(len(ids) for ids in tokenizer(rows["question"][:], add_special_tokens=False)["input_ids"])
    special = tokenizer.num_special_tokens_to_add(pair=True)
    if longest + special >= room:
        raise ValueError(f"a question of {longest} tokens leaves no room for its passage; use a larger max_length")


def _token_span(offsets: Sequence[tuple[int, int]], start: int, end: int) -> tuple[int, int]:
    """First and last token of the characters `start` to `end`; (0, 0), that is [CLS], where they are not all inside."""
    first = next((index for index, (begin, stop) in enumerate(offsets) if begin <= start < stop), 0)
    last = next((index for index, (begin, stop) in enumerate(offsets) if begin < end <= stop), 0)
    return (first, last) if first and last else (0, 0)


def _decode(
    rows: Dataset, features: Dataset, logits: Logits, _classes: Sequence[str]
) -> tuple[list[str], list[list[str]]]:
    starts, ends = logits
    best: dict[int, tuple[float, str]] = {}
    contexts, answers = rows["context"][:], rows["answers"][:]
    for index, (row, offsets) in enumerate(zip(features["row"], features["offsets"], strict=True)):
        found = _best_span(starts[index, : len(offsets)], ends[index, : len(offsets)], offsets)
        if found and (row not in best or found[0] > best[row][0]):
            best[row] = found[0], contexts[row][found[1] : found[2]]
    return [best[row][1] if row in best else "" for row in range(len(rows))], answers


def _best_span(
    starts: np.ndarray[Any, Any], ends: np.ndarray[Any, Any], offsets: Sequence[tuple[int, int]]
) -> tuple[float, int, int] | None:
    """Score and character borders of the best span inside the context; None where no candidate is one."""
    spans = [
        (float(starts[first] + ends[last]), offsets[first][0], offsets[last][1])
        for first in np.argsort(-starts, kind="stable")[:CANDIDATES]
        for last in np.argsort(-ends, kind="stable")[:CANDIDATES]
        if first <= last < first + LONGEST_ANSWER and offsets[first][0] >= 0 and offsets[last][0] >= 0
    ]
    return max(spans, default=None)


QUESTION_ANSWERING = TaskKind(
    columns=("question", "context", "answer", "answer_start"),
    labelled=False,
    metrics=("exact_match", "answer_f1"),
    read_row=_read_question,
    encode=_encode,
    decode=_decode,
    export_task="question-answering",
    baselines=(),
    text_columns=("question", "context"),
    read_text=_read_context,
    # Where an answer starts, and where it ends.
    outputs=2,
)
