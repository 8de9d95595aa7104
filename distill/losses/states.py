"""Distance of hidden states: {cosine, squared} x {tokens, spans} x optional projection.

    Σ_n mean over pairs of layers d(P(student_n), teacher_n)

where d is the cosine distance 1 - cos, or the squared distance summed over the teacher's dimensions, and teacher_n is
the mean of the pair's teacher layers (cards of DistilRuBERT base and small: two or six consecutive layers; DistilBERT,
arXiv 1910.01108: the last layer alone). P is the identity for equal widths, else a trained affine map for each pair.

Rows are tokens; across two vocabularies they are spans, with the mean state of the tokens of a span on either side. In
the code of "Knowledge Distillation of Russian Language Models with Reduction of Vocabulary" (arXiv 2205.02340) these
states were added up, so that one grew with the number of tokens. That code sums squares over dimensions, as is done
here. A mean would be smaller by the factor of the width, and so the usual weight of 0.1 is small.

Axes: B batch, R rows of an example, D width.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from distilrubert.common.errors import UserError
from distilrubert.distill.losses.rows import Rows
from distilrubert.distill.losses.term import Outputs, Setup, Term, sum_selected

# Keeps a state of zeros from dividing by zero: its distance is 1.
EPSILON = 1e-8


def cosine_distance(student_BRD: Tensor, teacher_BRD: Tensor, mask_BR: Tensor) -> Tensor:
    """The cosine distance of one pair of states, summed over the selected rows."""
    student_BRD, teacher_BRD = student_BRD.float(), teacher_BRD.float()
    # Not torch's cosine_similarity, which keeps both states once more, normalised, for its backward pass.
    norms_BR = student_BRD.norm(dim=-1) * teacher_BRD.norm(dim=-1)
    return sum_selected(1 - torch.linalg.vecdot(student_BRD, teacher_BRD) / norms_BR.clamp(min=EPSILON), mask_BR)


def squared_distance(student_BRD: Tensor, teacher_BRD: Tensor, mask_BR: Tensor) -> Tensor:
    """The squared distance of one pair of states, summed over dimensions and over the selected rows."""
    return sum_selected((student_BRD.float() - teacher_BRD.float()).square().sum(-1), mask_BR)


DISTANCES = {"cosine": cosine_distance, "squared": squared_distance}


class StateTerm(Term):
    """A distance of hidden states, averaged over the pairs of layers.

    Args:
        names: its own.
        setup: what it is built from.
        distance: which.
        projected: whether a projection may be trained; without one the widths must be equal.

    Attributes:
        projections: one for each pair; trained with the student, part of the checkpoints, not of the student.

    Raises:
        UserError: if the widths differ and there is no projection.
    """

    needs = frozenset({"hidden_states"})

    def __init__(
        self, names: Sequence[str], setup: Setup, *, distance: Literal["cosine", "squared"], projected: bool
    ) -> None:
        super().__init__(names, setup)
        assert setup.teacher is not None
        self._distance = DISTANCES[distance]
        widths = setup.student.hidden_size, setup.teacher.hidden_size
        if not projected and widths[0] != widths[1]:
            section = f"{setup.settings.section}.weights"
            other = f"{section}.{'reduce_cosine' if setup.tokenizers else 'hidden'}"
            raise UserError(
                f"{section}.{names[0]}: compares states of one width, but the student's is {widths[0]} and "
                f"the teacher's {widths[1]}; set it to 0 and use {other}, which learns a projection"
            )
        # The same start in every run and process, whatever was drawn before.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.projections = nn.ModuleList(
                nn.Identity() if widths[0] == widths[1] else nn.Linear(*widths) for _ in setup.pairs
            )

    def counts(self, rows: Rows) -> dict[str, Tensor]:
        """Tokens, or spans with tokens on both sides, the special tokens among them."""
        return {self.names[0]: rows.both_BS.sum()}

    def forward(
        self, student: Outputs, teacher: Outputs | None, rows: Rows, scales: Mapping[str, float]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        assert teacher is not None
        distances = []
        with torch.autocast(rows.student.mask_BL.device.type, enabled=False):
            states = zip(self.projections, student.hidden_states, teacher.hidden_states, strict=True)
            for project, student_BLD, teacher_BLD in states:
                student_BRD = project(rows.student.pooled(student_BLD).float())
                distances.append(self._distance(student_BRD, rows.teacher.pooled(teacher_BLD), rows.both_BS))
            found = torch.stack(distances).mean()
            return scales[self.names[0]] * found, {self.names[0]: found}
