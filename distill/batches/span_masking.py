"""Targets drawn on text, not on tokens: the same characters are masked for teacher and student.

Axes: B examples, L tokens of one side of an example, N tokens of all on one side, S spans of all.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from distilrubert.common.training.padding import IGNORED, collate
from distilrubert.distill.batches.masking import disguise, draw_uniform, drawing_order
from distilrubert.distill.batches.masking_settings import MaskingSettings
from distilrubert.distill.corpus.store import Pair, Side
from distilrubert.modeling.splitting import begins_word, shared_tokens
from distilrubert.modeling.tokenizer_kinds import kind_of, tokens_of

# Raised when the same seed and text get other masks: older checkpoints are then not resumed.
MASKS_VERSION = 2


@dataclasses.dataclass(frozen=True)
class Masked:
    """A batch of examples in both tokenisations, one behind the other.

    Attributes:
        teacher: what the teacher sees.
        student: what the student sees.
        labels_N: the student's original ids in masked spans and -100 elsewhere.
    """

    teacher: Side
    student: Side
    labels_N: NDArray[np.int32]


@dataclasses.dataclass(frozen=True)
class _Whole:
    """Examples as they are, one behind the other.

    Attributes:
        sides: of teacher and student, their spans counted on from one example to the next.
        lengths: tokens of each example on either side.
        spans_B: spans of each example.
    """

    sides: tuple[Side, Side]
    lengths: tuple[NDArray[np.int64], NDArray[np.int64]]
    spans_B: NDArray[np.int64]

    @property
    def first_B(self) -> NDArray[np.int64]:
        """The first span of each example."""
        return np.cumsum(self.spans_B) - self.spans_B


class SpanMasker:
    """Draws the masked spans of an example: a pure function of (seed, epoch, index), the same on any rank or worker.

    Spans are drawn without replacement, with the mean weight of their student tokens, until a share of the student's
    tokens is masked; the last one is taken at random such that the share is right on average. What happens to a span
    (replaced by [MASK], kept, replaced by random tokens) happens to all its tokens on both sides, so that the teacher
    predicts from what the student sees. Spans with a special token on either side are never drawn: a teacher that
    reads [UNK] has nothing to teach of what it stands for.

    Args:
        settings: shares and smoothing.
        teacher: its tokenizer.
        student: its tokenizer.
        token_counts: how often each id of the student stands in the training text, (V,).
        seed: not negative.
    """

    def __init__(
        self,
        settings: MaskingSettings,
        teacher: PreTrainedTokenizerFast,
        student: PreTrainedTokenizerFast,
        token_counts: NDArray[np.int64],
        seed: int,
    ) -> None:
        self._settings, self._seed = settings, seed
        self._weights_V = np.maximum(token_counts, 1).astype(np.float64) ** -settings.smoothing
        self._weights_V[student.all_special_ids] = 0.0
        # Where nothing is to be predicted, a tokenizer may have none.
        self._mask_ids = [tokenizer.mask_token_id or 0 for tokenizer in (teacher, student)]
        self._pad_ids = [tokenizer.pad_token_id for tokenizer in (teacher, student)]
        self._ordinary = [
            np.setdiff1d(np.arange(len(tokenizer)), tokenizer.all_special_ids) for tokenizer in (teacher, student)
        ]
        self._is_special_T = np.isin(np.arange(len(teacher)), teacher.all_special_ids)
        self._characters = [_characters_of(tokenizer) for tokenizer in (teacher, student)]
        # What the teacher reads as [UNK] is compared with nothing: its first token reaches nowhere, and is no other.
        self._characters[0][teacher.unk_token_id] = 0
        self._begins_word = begins_word(teacher, student), begins_word(student, teacher)
        self._student_id_T = np.full(len(teacher), -1)
        teacher_ids, student_ids = shared_tokens(teacher, student)
        self._student_id_T[teacher_ids] = student_ids
        self._student_id_T[teacher.unk_token_id] = -1

    def collate(self, examples: Sequence[Pair], epoch: int, indices: Sequence[int]) -> dict[str, Tensor]:
        """Mask and pad examples.

        Returns:
            `input_ids`, `attention_mask` and `labels` of the student as :func:`.padding.collate` makes them, and
            `teacher_input_ids` and `teacher_attention_mask`; `spans` and `teacher_spans`, the span of each token,
            0 at padding; `matched` (B, S), which spans are one and the same token on both sides; and `begins_inside`
            (B, S), in which spans the student's first token does not reach beyond the teacher's first token, and both
            begin a word or both continue one. What the teacher reads as [UNK] is in neither.
        """
        whole = _joined(examples)
        masked = self._masked(whole, epoch, indices)
        batches = []
        for i, side in enumerate((masked.teacher, masked.student)):
            # The teacher has no labels: its ids stand in for them.
            labels_N = masked.labels_N if i else side.ids_L
            batch = collate(side.ids_L, labels_N, whole.lengths[i], self._pad_ids[i])
            spans_N = side.spans_L - np.repeat(whole.first_B, whole.lengths[i])
            batch["spans"] = torch.zeros_like(batch["input_ids"])
            batch["spans"][batch["attention_mask"].bool()] = torch.from_numpy(spans_N.astype(np.int64))
            batches.append(batch)
        teacher, student = batches
        most = whole.spans_B.max()
        is_span_BS = np.arange(most) < whole.spans_B[:, None]
        selections = {}
        for name, selected_S in self._comparable(whole.sides).items():
            selections[name] = torch.zeros(is_span_BS.shape, dtype=torch.bool)
            selections[name][torch.from_numpy(is_span_BS)] = torch.from_numpy(selected_S)
        renamed = {f"teacher_{name}": tensor for name, tensor in teacher.items() if name != "labels"}
        return student | renamed | selections

    def share_beginning_outside(self, examples: Sequence[Pair]) -> float:
        """Of the spans with tokens on both sides, those without `begins_inside`."""
        whole = _joined(examples)
        teacher, student = (side.spans_L for side in whole.sides)
        return 1 - float(self._comparable(whole.sides)["begins_inside"].sum() / len(np.intersect1d(teacher, student)))

    def mask_batch(self, examples: Sequence[Pair], epoch: int, indices: Sequence[int]) -> Masked:
        """Mask examples, each as if it were alone; see :meth:`.Masker.mask_batch`."""
        return self._masked(_joined(examples), epoch, indices)

    def _masked(self, whole: _Whole, epoch: int, indices: Sequence[int]) -> Masked:
        rounding_B, rows = draw_uniform(self._seed, whole.spans_B + sum(whole.lengths), epoch, indices)
        span_S3, *tokens_N3 = _distribute(rows, (whole.spans_B, *whole.lengths))
        teacher, student = whole.sides
        masked_S = self._draw_spans(teacher, student, whole.spans_B, span_S3[:, 0], rounding_B)
        seen = []
        for i, (side, uniform_N3) in enumerate(zip(whole.sides, tokens_N3, strict=True)):
            ids_N, target_n = side.ids_L.copy(), np.flatnonzero(masked_S[side.spans_L])
            action_n, substitute_n = span_S3[side.spans_L[target_n], 1], uniform_N3[target_n, 0]
            ids_N[target_n] = disguise(
                ids_N[target_n], action_n, substitute_n, self._settings, self._mask_ids[i], self._ordinary[i]
            )
            seen.append(Side(ids_N, side.spans_L))
        labels_N = np.where(masked_S[student.spans_L], student.ids_L, IGNORED).astype(np.int32)
        return Masked(seen[0], seen[1], labels_N)

    def _draw_spans(
        self,
        teacher: Side,
        student: Side,
        spans_B: NDArray[np.int64],
        uniform_S: NDArray[np.float64],
        rounding_B: NDArray[np.float64],
    ) -> NDArray[np.bool_]:
        number = len(uniform_S)
        size_S = np.bincount(student.spans_L, minlength=number)
        token_weights_N = self._weights_V[student.ids_L]
        weight_S = np.bincount(student.spans_L, token_weights_N, number) / np.maximum(size_S, 1)
        weight_S[student.spans_L[token_weights_N == 0]] = 0.0
        weight_S[teacher.spans_L[self._is_special_T[teacher.ids_L]]] = 0.0
        example_S = np.repeat(np.arange(len(spans_B)), spans_B)
        order_S = drawing_order(uniform_S, weight_S, example_S)
        tokens_B = np.bincount(example_S, size_S, len(spans_B))
        before_S = np.cumsum(size_S[order_S]) - size_S[order_S]
        before_S = before_S - (np.cumsum(tokens_B) - tokens_B)[example_S]
        reach_S = before_S + rounding_B[example_S] * size_S[order_S]
        masked_S = np.zeros(number, dtype=bool)
        masked_S[order_S] = reach_S < self._settings.probability * tokens_B[example_S]
        return masked_S & (weight_S > 0)

    def _comparable(self, sides: tuple[Side, Side]) -> dict[str, NDArray[np.bool_]]:
        """The spans that are `matched`, and those that have the property `begins_inside`: see :meth:`collate`."""
        number = 1 + max(int(side.spans_L.max()) for side in sides)
        first_S = [np.full(number, -1) for _ in sides]
        is_single_S = np.ones(number, dtype=bool)
        for side, first in zip(sides, first_S, strict=True):
            # Backwards, so that the first token of a span is the last to be written.
            first[side.spans_L[::-1]] = side.ids_L[::-1]
            is_single_S &= np.bincount(side.spans_L, minlength=number) == 1
        reach_S = [characters[first] for characters, first in zip(self._characters, first_S, strict=True)]
        begins_S = [begins[first] for begins, first in zip(self._begins_word, first_S, strict=True)]
        is_on_both_S = (first_S[0] >= 0) & (first_S[1] >= 0)
        return {
            "matched": is_single_S & (self._student_id_T[first_S[0]] == first_S[1]),
            "begins_inside": is_on_both_S & (reach_S[1] <= reach_S[0]) & (begins_S[0] == begins_S[1]),
        }


def _characters_of(tokenizer: PreTrainedTokenizerFast) -> NDArray[np.int64]:
    """How many characters of text each token stands for; [UNK] for any number, other special tokens for one."""
    texts = map(kind_of(tokenizer).text_of, tokens_of(tokenizer))
    # A part of a character reaches as far as the character.
    lengths = np.array([1 if found is None else len(found.text) for found in texts])
    lengths[tokenizer.all_special_ids] = 1
    lengths[tokenizer.unk_token_id] = np.iinfo(np.int64).max
    return lengths


def _joined(examples: Sequence[Pair]) -> _Whole:
    # [SEP] is the last token and the last span on both sides.
    spans_B = np.array([int(pair.teacher.spans_L[-1]) + 1 for pair in examples])
    first_B = np.cumsum(spans_B) - spans_B
    sides, lengths = [], []
    for one_side in ([pair.teacher for pair in examples], [pair.student for pair in examples]):
        lengths.append(np.array([len(side.ids_L) for side in one_side]))
        ids_N = np.concatenate([side.ids_L for side in one_side])
        sides.append(Side(ids_N, np.concatenate([side.spans_L for side in one_side]) + np.repeat(first_B, lengths[-1])))
    return _Whole((sides[0], sides[1]), (lengths[0], lengths[1]), spans_B)


def _distribute(rows: NDArray[np.float64], lengths: Sequence[NDArray[np.int64]]) -> list[NDArray[np.float64]]:
    """Split rows, which go example by example, into those of the kinds that each example's lengths name in order."""
    ends = np.cumsum(np.stack(lengths, axis=1).reshape(-1))
    blocks = np.split(rows, ends[:-1])
    return [np.concatenate(blocks[kind :: len(lengths)]) for kind in range(len(lengths))]
