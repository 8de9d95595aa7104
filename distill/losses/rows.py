"""The rows that terms compare: tokens, and spans of text.

A span is the shortest stretch of text that begins and ends with a token on either side. With one vocabulary each token
is a span: the trivial alignment. So every term works on spans, whatever the vocabularies are.

Axes: B batch, L tokens of one side, S spans, D width.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor

from distilrubert.common.training.padding import IGNORED

# Fields of a prepared batch: ``places.<term or side>.<name>``.
PLACES = "places."
SIDES = ("student", "teacher")


@dataclasses.dataclass(frozen=True)
class SideRows:
    """Tokens and spans of the student or of the teacher.

    The tokens of a span are consecutive, and spans come in the order of the text.

    Attributes:
        mask_BL: true for real tokens.
        spans_BL: the span of each token; None where each token is a span of its own.
        number: S.
        tokens: the real tokens as places, (N,), and the span of each in the flattened batch of B x S spans; None where
            the batch came without them.
    """

    mask_BL: Tensor
    spans_BL: Tensor | None
    number: int
    tokens: tuple[Tensor, Tensor] | None = None

    @functools.cached_property
    def counts_BS(self) -> Tensor:
        """How many tokens each span has; padding is in none."""
        return self.count(self.mask_BL)

    def spans_of_tokens(self) -> tuple[Tensor, Tensor]:
        """What :attr:`tokens` has."""
        assert self.spans_BL is not None
        first_B1 = self.number * torch.arange(len(self.mask_BL), device=self.mask_BL.device)[:, None]
        tokens_N = places_of(self.mask_BL)
        return tokens_N, (self.spans_BL + first_B1).flatten()[tokens_N]

    def count(self, selected_BL: Tensor) -> Tensor:
        """How many of these tokens each span has, (B, S)."""
        if self.spans_BL is None:
            return selected_BL.long()
        counts_BS = torch.zeros(len(selected_BL), self.number, dtype=torch.long, device=selected_BL.device)
        return counts_BS.scatter_add_(1, self.spans_BL, selected_BL.long())

    def tokens_of(self, selected_BS: Tensor) -> Tensor:
        """The real tokens of these spans, (B, L)."""
        if self.spans_BL is None:
            return self.mask_BL & selected_BS
        return self.mask_BL & selected_BS.gather(1, self.spans_BL)

    def first_tokens_of(self, selected_BS: Tensor) -> Tensor:
        """The first token of each of these spans, (B, L)."""
        tokens_BL = self.tokens_of(selected_BS)
        if self.spans_BL is not None:
            tokens_BL[:, 1:] &= self.spans_BL[:, 1:] != self.spans_BL[:, :-1]
        return tokens_BL

    def pooled(self, states_BLD: Tensor) -> Tensor:
        """The mean state of each span, (B, S, D); across two vocabularies in float32, and 0 where it has no token."""
        if self.spans_BL is None:
            return states_BLD
        examples = len(self.mask_BL)
        tokens_N, spans_N = self.tokens or self.spans_of_tokens()
        states_ND = states_BLD.flatten(0, 1).index_select(0, tokens_N).float()
        sums = states_ND.new_zeros(examples * self.number, states_ND.shape[1]).index_add(0, spans_N, states_ND)
        return sums.view(examples, self.number, -1) / self.counts_BS.clamp(min=1)[:, :, None]


@dataclasses.dataclass(frozen=True)
class Decisions:
    """What a task asks of a batch: something of each text, a class of some tokens, or where an answer starts and ends.

    Attributes:
        labels: the classes, (B) or (B, L), or the tokens, (B, 2), -100 where none is known; in floating point the
            numbers, (B), or 0 or 1 for each of several classes, (B, C), NaN where none is known.
        teacher_logits: of the teacher, (B, C), (B, L, C) or (B, 2, L); of no meaning where nothing is compared.
        compared: true where the teacher's logits are known, (B), (B, L) or (B, 2).
    """

    labels: Tensor
    teacher_logits: Tensor
    compared: Tensor

    @functools.cached_property
    def labelled(self) -> Tensor:
        """True where a label is known; the shape of `compared`."""
        if not self.labels.is_floating_point():
            return self.labels != IGNORED
        return ~self.labels.isnan().view(len(self.labels), -1).any(dim=1)


@dataclasses.dataclass(frozen=True)
class Rows:
    """Tokens and spans of a batch.

    Attributes:
        student: of the student.
        teacher: of the teacher.
        labels_BL: the token to predict at each place of the student, or -100.
        matched_BS: spans that are one and the same token on both sides.
        begins_inside_BS: spans in which the student's first token does not reach beyond the teacher's, and both begin
            a word or both continue one.
        teacher_vectors_BD: the teacher's vectors of the sentences, where they come with the batch.
        decisions: of a task, where the batch is of one; nothing is masked then.
        places: the rows that each term reads, by the term's key, where the batch came with them.
    """

    student: SideRows
    teacher: SideRows
    labels_BL: Tensor
    matched_BS: Tensor
    begins_inside_BS: Tensor
    teacher_vectors_BD: Tensor | None = None
    decisions: Decisions | None = None
    places: Mapping[str, Mapping[str, Tensor]] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, batch: Mapping[str, Tensor]) -> Self:
        """The rows of a batch of :class:`~distilrubert.distill.batches.masking.Masker`, ``SpanMasker`` or of a task."""
        mask_BL = batch["attention_mask"].bool()
        places: dict[str, dict[str, Tensor]] = {}
        for key, tensor in batch.items():
            if key.startswith(PLACES):
                _, term, name = key.split(".")
                places.setdefault(term, {})[name] = tensor
        if "teacher_logits" in batch:
            side = SideRows(mask_BL, None, mask_BL.shape[1])
            decisions = Decisions(batch["labels"], batch["teacher_logits"], batch["compared"])
            nothing_BL = torch.full_like(batch["input_ids"], IGNORED)
            return cls(side, side, nothing_BL, mask_BL, mask_BL, decisions=decisions, places=places)
        vectors = batch.get("teacher_vectors")
        if "spans" not in batch:
            side = SideRows(mask_BL, None, mask_BL.shape[1])
            return cls(side, side, batch["labels"], mask_BL, mask_BL, vectors, places=places)
        number = batch["matched"].shape[1]
        found = [(its["tokens"], its["spans"]) if (its := places.get(name)) else None for name in SIDES]
        student = SideRows(mask_BL, batch["spans"], number, found[0])
        teacher = SideRows(batch["teacher_attention_mask"].bool(), batch["teacher_spans"], number, found[1])
        spans = batch["matched"], batch["begins_inside"]
        return cls(student, teacher, batch["labels"], *spans, vectors, places=places)

    def places_of_sides(self) -> dict[str, dict[str, Tensor]]:
        """The tokens of either side and their spans, where spans are not tokens."""
        if self.student.spans_BL is None:
            return {}
        sides = zip(SIDES, (self.student, self.teacher), strict=True)
        return {name: dict(zip(("tokens", "spans"), side.spans_of_tokens(), strict=True)) for name, side in sides}

    @functools.cached_property
    def both_BS(self) -> Tensor:
        """Spans that have tokens on both sides."""
        return (self.student.counts_BS > 0) & (self.teacher.counts_BS > 0)

    @functools.cached_property
    def labelled_BL(self) -> Tensor:
        """Tokens of the student that are to be predicted. Padding is not, whatever its label."""
        return self.student.mask_BL & (self.labels_BL != IGNORED)

    @functools.cached_property
    def labelled_BS(self) -> Tensor:
        """Spans with such tokens."""
        return self.student.count(self.labelled_BL) > 0


def places_of(selected: Tensor) -> Tensor:
    """Where a mask is true, as places in the flattened batch, (N,)."""
    return selected.flatten().nonzero().squeeze(1)
