"""What training minimises where student and teacher have vocabularies of their own.

Each model reads the text in its own tokens, once, and with the same characters hidden. They are compared by spans: the
shortest stretches of text with whole tokens on both sides.

Axes: B batch, L tokens of the student, S spans, N rows (chosen spans), M labelled rows, D width, V pieces of the
student, T pieces of the teacher.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Self

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from distilrubert.common.errors import UserError
from distilrubert.common.training.padding import IGNORED
from distilrubert.distill.losses import losses_for
from distilrubert.distill.losses.chunks import sum_in_chunks
from distilrubert.distill.losses.encoding import FrozenModel, encode
from distilrubert.distill.losses.first_piece import FirstPieceComparison
from distilrubert.distill.losses.layer import Activations, averaged, paired_states
from distilrubert.distill.losses.match import MatchComparison
from distilrubert.distill.losses.objective import (
    PAIRED_LAYER_LOSSES,
    MlmLossModule,
    build_layer_losses,
    inverse,
    state_pairs,
)
from distilrubert.distill.losses.reduce import span_counts, span_means
from distilrubert.distill.losses.reduce_map import ReduceMapComparison
from distilrubert.distill.losses.vocabulary import Predictor, VocabularyLoss
from distilrubert.distill.objective_settings import ObjectiveSettings
from distilrubert.modeling.heads import MlmHead, mlm_head_of
from distilrubert.modeling.splitting import shared_tokens, split_vocabulary
from distilrubert.modeling.student import Student
from distilrubert.modeling.teacher import Teacher


class PairedObjective(MlmLossModule):
    """The losses of a batch, each divided by its number of rows in the whole update.

    As :class:`~distilrubert.distill.losses.objective.Objective`, it registers the student and what is trained with it,
    and moves the teacher along.

    Args:
        student: trained, with a vocabulary of its own.
        teacher: in evaluation mode, without gradients.
        settings: which losses.

    Raises:
        UserError: if all weights are 0, or one is for models of one vocabulary.
    """

    def __init__(self, student: Student, teacher: Teacher, settings: ObjectiveSettings) -> None:
        super().__init__(student.model, settings, teacher.model.config)
        _check_weights(self._weights)
        self._settings = settings
        self._teacher = FrozenModel(teacher.model)
        self._teacher_pieces = len(teacher.tokenizer)
        self._mlm = VocabularyLoss(settings.temperature, settings.vocabulary_chunk)
        # Not registered: they are tables, which DDP would send around at every step.
        self._comparisons = {
            name: make(teacher.tokenizer, student.tokenizer, settings)
            for name, make in _COMPARISONS.items()
            if name in self._weights
        }
        self._layer_losses = build_layer_losses(
            PAIRED_LAYER_LOSSES, student.model.config, teacher.model.config, settings
        )
        self.layer_losses = nn.ModuleDict(self._layer_losses)
        self._needs = {loss.needs for loss in self._layer_losses.values()}
        self._averages = settings.layer_map == "all-mean"
        self._state_pairs = state_pairs(self._layer_losses.values())

    def counts(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The number of rows of each loss in a batch, to be summed into the denominators of the update."""
        spans = _Spans.of(batch)
        rows = self._rows(batch, spans)
        rows |= dict.fromkeys(self._layer_losses, spans.both_BS) | {"mlm": _labelled(batch)}
        return {name: rows[name].sum() for name in self._weights}

    def forward(self, batch: Mapping[str, Tensor], denominators: Mapping[str, Tensor | float]) -> dict[str, Tensor]:
        """The losses of a batch.

        Args:
            batch: as :meth:`~distilrubert.distill.batches.span_masking.SpanMasker.batch` makes it.
            denominators: for each loss what its sum over rows is divided by, as in
                :meth:`~distilrubert.distill.losses.objective.Objective.forward`.

        Returns:
            each loss that has a weight, detached, and their weighted sum as ``loss``.
        """
        spans = _Spans.of(batch)
        scales = {name: inverse(float(denominators[name])) for name in self._weights}
        student = encode(self.model, batch, self._needs)
        if self._averages:
            student = averaged(student)
        means: dict[str, Tensor] = {}
        total = torch.zeros((), device=student.last_BLD.device)
        if set(self._weights) != {"mlm"}:
            teacher, head = self._run_teacher(batch)
            with torch.autocast(total.device.type, enabled=False):
                for name, loss in self._layer_losses.items():
                    pooled = _pooled(student, spans.student), _pooled(teacher, spans.teacher)
                    means[name] = scales[name] * loss(*pooled, spans.both_BS)
                    total = total + self._weights[name] * means[name]
            for name, rows_BS in self._rows(batch, spans).items():
                sums = sum_in_chunks(
                    self._comparisons[name],
                    self._student_rows(name, student, spans.student, rows_BS),
                    self._teacher_rows(head, teacher, spans.teacher, rows_BS),
                    self._weights[name] * scales[name],
                    self._settings.vocabulary_chunk,
                )
                means[name] = scales[name] * sums.sum
                total = total + sums.scaled
        if "mlm" in self._weights:
            labelled_BL = _labelled(batch)
            head = mlm_head_of(self.model)
            rows = Predictor(head.transform(student.last_BLD[labelled_BL]), head.weight_VD, head.bias_V)
            found = self._mlm(rows, None, batch["labels"][labelled_BL], 0.0, self._weights["mlm"] * scales["mlm"])
            means["mlm"] = scales["mlm"] * found.mlm
            total = total + found.total
        return {**{name: means[name].detach() for name in self._weights}, "loss": total}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._teacher.apply(fn)
        for comparison in self._comparisons.values():
            comparison._apply(fn)  # type: ignore[no-untyped-call]
        return self

    @torch.no_grad()
    def _run_teacher(self, batch: Mapping[str, Tensor]) -> tuple[Activations, MlmHead]:
        model, head = self._teacher.get()
        own = {name: batch[f"teacher_{name}"] for name in ("input_ids", "attention_mask")}
        activations = encode(model, own, self._needs)
        if self._averages:
            activations = averaged(activations)
        return paired_states(activations, self._state_pairs), head

    def _rows(self, batch: Mapping[str, Tensor], spans: "_Spans") -> dict[str, Tensor]:
        """The spans (B, S) whose predictions each of the losses compares."""
        rows = {
            "first_piece": batch["begins_inside"],
            "match": batch["matched"],
            "reduce_map": (spans.teacher.counts_BS == 1) & (spans.student.counts_BS > 0),
        }
        if self._settings.kl_positions == "masked":
            hidden_BS = span_counts(batch["spans"], _labelled(batch), spans.number) > 0
            rows = {name: rows_BS & hidden_BS for name, rows_BS in rows.items()}
        return {name: rows_BS for name, rows_BS in rows.items() if name in self._weights}

    def _student_rows(self, name: str, student: Activations, side: "_Tokens", rows_BS: Tensor) -> Predictor:
        head = mlm_head_of(self.model)
        if name == "reduce_map":
            return _mean_rows(head, student, side, rows_BS)
        chosen_BL = side.first_BL & rows_BS.gather(1, side.spans_BL)
        return Predictor(head.transform(student.last_BLD[chosen_BL]), head.weight_VD, head.bias_V)

    @torch.no_grad()
    def _teacher_rows(self, head: MlmHead, teacher: Activations, side: "_Tokens", rows_BS: Tensor) -> Predictor:
        chosen_BT = side.first_BL & rows_BS.gather(1, side.spans_BL)
        # A teacher may have rows that no piece of its tokenizer uses.
        used = self._teacher_pieces
        return Predictor(head.transform(teacher.last_BLD[chosen_BT]), head.weight_VD[:used], head.bias_V[:used])


@dataclasses.dataclass(frozen=True)
class _Tokens:
    """The spans of the tokens on one side: their number, that of each token, and how many tokens each has.

    The tokens of a span are consecutive, and spans come in the order of the text.
    """

    number: int
    spans_BL: Tensor
    mask_BL: Tensor
    counts_BS: Tensor

    @property
    def first_BL(self) -> Tensor:
        """Which tokens are the first of their span."""
        is_first_BL = self.mask_BL.clone()
        is_first_BL[:, 1:] &= self.spans_BL[:, 1:] != self.spans_BL[:, :-1]
        return is_first_BL


@dataclasses.dataclass(frozen=True)
class _Spans:
    """The spans of a batch."""

    student: _Tokens
    teacher: _Tokens

    @classmethod
    def of(cls, batch: Mapping[str, Tensor]) -> Self:
        number = batch["matched"].shape[1]
        sides = []
        for prefix in ("", "teacher_"):
            spans_BL, mask_BL = batch[f"{prefix}spans"], batch[f"{prefix}attention_mask"].bool()
            sides.append(_Tokens(number, spans_BL, mask_BL, span_counts(spans_BL, mask_BL, number)))
        return cls(sides[0], sides[1])

    @property
    def number(self) -> int:
        return self.student.number

    @property
    def both_BS(self) -> Tensor:
        """Which spans have tokens on both sides."""
        return (self.student.counts_BS > 0) & (self.teacher.counts_BS > 0)


def _pooled(activations: Activations, side: _Tokens) -> Activations:
    """The mean states of the spans in the place of the tokens'."""
    states = activations.hidden_states
    means = tuple(span_means(state, side.spans_BL, side.mask_BL, side.number) for state in states)
    return dataclasses.replace(activations, hidden_states=means)


def _mean_rows(head: MlmHead, student: Activations, side: _Tokens, rows_BS: Tensor) -> Predictor:
    """The mean over the tokens of each chosen span: of their logits, as these are linear in what is averaged."""
    chosen_BL = side.mask_BL & rows_BS.gather(1, side.spans_BL)
    transformed_ND = head.transform(student.last_BLD[chosen_BL])
    row_BS = torch.cumsum(rows_BS.flatten(), dim=0).view_as(rows_BS) - 1
    place_N = row_BS.gather(1, side.spans_BL)[chosen_BL]
    sums_ND = transformed_ND.new_zeros(int(rows_BS.sum()), transformed_ND.shape[1])
    counts_N1 = side.counts_BS[rows_BS][:, None].to(transformed_ND.dtype)
    return Predictor(sums_ND.index_add(0, place_N, transformed_ND) / counts_N1, head.weight_VD, head.bias_V)


def _labelled(batch: Mapping[str, Tensor]) -> Tensor:
    return batch["attention_mask"].bool() & (batch["labels"] != IGNORED)


def _match(
    teacher: PreTrainedTokenizerFast, student: PreTrainedTokenizerFast, settings: ObjectiveSettings
) -> nn.Module:
    its, own = shared_tokens(teacher, student)
    sizes = len(teacher), len(student)
    return MatchComparison(its, own, sizes, settings.temperature, settings.match_rest)


def _first_piece(
    teacher: PreTrainedTokenizerFast, student: PreTrainedTokenizerFast, settings: ObjectiveSettings
) -> nn.Module:
    return FirstPieceComparison(split_vocabulary(teacher, student), settings.temperature)


def _reduce_map(
    teacher: PreTrainedTokenizerFast, student: PreTrainedTokenizerFast, settings: ObjectiveSettings
) -> nn.Module:
    return ReduceMapComparison(split_vocabulary(teacher, student), settings.temperature)


_COMPARISONS = {"first_piece": _first_piece, "match": _match, "reduce_map": _reduce_map}


def _check_weights(weights: Mapping[str, float]) -> None:
    if strange := [name for name in weights if name not in losses_for("two")]:
        raise UserError(
            f"distillation.weights: {', '.join(strange)} compare token by token, but the student has a vocabulary of "
            f"its own; for that there are {', '.join(losses_for('two'))}"
        )
