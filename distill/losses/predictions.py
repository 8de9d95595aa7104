"""Terms that compare predictions: KL and MLM over one vocabulary, and the base of those over two.

Axes: B batch, L tokens, N rows, M labelled rows, S spans, D width.
"""

import abc
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from distilrubert.common.training.compiling import set_compiled
from distilrubert.distill.losses.chunks import HeadInput, compare_in_chunks
from distilrubert.distill.losses.rows import Rows, places_of
from distilrubert.distill.losses.term import Outputs, Setup, Term, Tokenizers
from distilrubert.distill.losses.vocabulary import VocabularyLoss
from distilrubert.distill.objective_settings import ObjectiveSettings


class VocabularyTerm(Term):
    """``kl`` and ``mlm``, or one of them: both are made from the same logits.

    Attributes:
        loss: what makes them.
    """

    needs = frozenset({"head"})

    def __init__(self, names: Sequence[str], setup: Setup) -> None:
        super().__init__(names, setup)
        settings = setup.settings
        assert isinstance(settings, ObjectiveSettings)
        self._everywhere = "kl" in names and settings.kl_positions == "all"
        self.loss = VocabularyLoss(settings.temperature, settings.vocabulary_chunk)

    def set_compiled(self, *, compiled: bool) -> None:
        self.loss.is_compiled = compiled

    def counts(self, rows: Rows) -> dict[str, Tensor]:
        """Of ``mlm`` the labelled tokens, of ``kl`` these or all tokens."""
        labelled = rows.labelled_BL.sum()
        counts = {"kl": rows.student.mask_BL.sum() if self._everywhere else labelled, "mlm": labelled}
        return {name: counts[name] for name in self.names}

    def places(self, rows: Rows) -> dict[str, Tensor]:
        """The ``rows`` that are compared, labelled ones first, and the ``labels`` of these."""
        labelled_M = places_of(rows.labelled_BL)
        others = [places_of(rows.student.mask_BL & ~rows.labelled_BL)] if self._everywhere else []
        return {"rows": torch.cat([labelled_M, *others]), "labels": rows.labels_BL.flatten()[labelled_M]}

    def forward(
        self, student: Outputs, teacher: Outputs | None, rows: Rows, scales: Mapping[str, float]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        given = self.given_places(rows)
        places_N, labels_M = given["rows"], given["labels"]
        teacher_rows = None
        if "kl" in self.names:
            assert teacher is not None
            with torch.no_grad():
                teacher_rows = teacher.head_input(places_N)
        student_rows = student.head_input(places_N)
        scale = (scales.get(name, 0.0) for name in ("kl", "mlm"))
        total, kl, mlm = self.loss(student_rows, teacher_rows, labels_M, *scale)
        sums = {"kl": kl, "mlm": mlm}
        return total, {name: sums[name] for name in self.names}


class ComparisonTerm(Term):
    """A comparison of predictions over two vocabularies, on spans of text.

    Attributes:
        averages: whether the student's prediction for a span is the mean over its tokens, and not that of the first.
    """

    needs = frozenset({"head"})
    averages: ClassVar[bool] = False

    def __init__(self, names: Sequence[str], setup: Setup) -> None:
        super().__init__(names, setup)
        assert setup.tokenizers is not None
        assert isinstance(setup.settings, ObjectiveSettings)
        self._settings = setup.settings
        self._teacher_tokens = len(setup.tokenizers.teacher)
        # In a tuple and so not registered: it holds tables, which DDP would send around at every step.
        self._comparison = (self.build(setup.tokenizers, self._settings),)

    @staticmethod
    @abc.abstractmethod
    def build(tokenizers: Tokenizers, settings: ObjectiveSettings) -> nn.Module:
        """The :data:`~distilrubert.distill.losses.chunks.Comparison`."""

    @staticmethod
    @abc.abstractmethod
    def comparable(rows: Rows) -> Tensor:
        """The spans (B, S) whose predictions can be compared."""

    def set_compiled(self, *, compiled: bool) -> None:
        set_compiled(self._comparison[0], compiled=compiled)

    def counts(self, rows: Rows) -> dict[str, Tensor]:
        """The spans that are compared."""
        return {self.names[0]: self._spans(rows).sum()}

    def places(self, rows: Rows) -> dict[str, Tensor]:
        """First tokens of the spans on either side; of averages all of the student's, with ``spans`` and ``counts``."""
        spans_BS = self._spans(rows)
        teacher_N = places_of(rows.teacher.first_tokens_of(spans_BS))
        if not self.averages:
            return {"teacher": teacher_N, "student": places_of(rows.student.first_tokens_of(spans_BS))}
        tokens_BL = rows.student.tokens_of(spans_BS)
        counts_N = rows.student.count(tokens_BL)[spans_BS]
        spans = torch.repeat_interleave(counts_N)
        return {"teacher": teacher_N, "student": places_of(tokens_BL), "spans": spans, "counts": counts_N}

    def forward(
        self, student: Outputs, teacher: Outputs | None, rows: Rows, scales: Mapping[str, float]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        assert teacher is not None
        (name,) = self.names
        given = self.given_places(rows)
        with torch.no_grad():
            teacher_rows = teacher.head_input(given["teacher"], self._teacher_tokens)
        student_rows = student.head_input(given["student"])
        if self.averages:
            student_rows = _mean_rows(student_rows, given["spans"], given["counts"])
        (comparison,) = self._comparison
        total, found = compare_in_chunks(
            comparison, student_rows, teacher_rows, scales[name], self._settings.vocabulary_chunk
        )
        return total, {name: found}

    def _spans(self, rows: Rows) -> Tensor:
        spans_BS = self.comparable(rows)
        return spans_BS & rows.labelled_BS if self._settings.kl_positions == "masked" else spans_BS

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._comparison[0]._apply(fn)  # type: ignore[no-untyped-call]
        return self


def _mean_rows(every: HeadInput, span_of_token: Tensor, counts_N: Tensor) -> HeadInput:
    """The mean over the tokens of each span: of their logits, as these are linear in what is averaged."""
    sums_ND = every.hidden_ND.new_zeros(len(counts_N), every.hidden_ND.shape[1])
    sums_ND = sums_ND.index_add(0, span_of_token, every.hidden_ND)
    means_ND = sums_ND / counts_N[:, None].to(every.hidden_ND.dtype)
    return HeadInput(means_ND, every.weight_VD, every.bias_V, every.tied)
