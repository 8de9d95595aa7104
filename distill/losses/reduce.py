"""Distance of hidden states across two tokenisations: of each span of text, its mean state in either model.

    Σ_s mean over pairs d(P(student_s), teacher_s)

where student_s is the mean over the student's tokens in span s, teacher_s the mean over the teacher's (mostly a single
one: the pieces of the student spell it), d the squared distance summed over dimensions or the cosine distance, and P a
trained projection where the widths differ. In the code of "Knowledge Distillation of Russian Language Models with
Reduction of Vocabulary" (arXiv 2205.02340) the pieces were added up, so that a state grew with the number of pieces.

Rows are the spans that have tokens on both sides, the special tokens among them.

Axes: B batch, L tokens, S spans, D width.
"""

import torch
from torch import Tensor

from distilrubert.distill.losses.cosine import cosine_distance
from distilrubert.distill.losses.hidden import HiddenLoss
from distilrubert.distill.losses.layer import Activations


class ReduceLoss(HiddenLoss):
    """Squared distance of span states: :class:`.hidden.HiddenLoss` over spans in the place of tokens."""


class ReduceCosineLoss(HiddenLoss):
    """Cosine distance of span states, after the same projections."""

    def forward(self, student: Activations, teacher: Activations, mask_BL: Tensor) -> Tensor:
        """See :class:`.layer.LayerLoss`."""
        distances = [
            cosine_distance(project(student.hidden_states[pair.student]), teacher_BLD, mask_BL)
            for project, pair, teacher_BLD in zip(self.projections, self.pairs, teacher.hidden_states, strict=True)
        ]
        return torch.stack(distances).mean()


def span_counts(spans_BL: Tensor, mask_BL: Tensor, number: int) -> Tensor:
    """How many tokens each span has, (B, S); padding is in none."""
    one_hot = torch.zeros(len(spans_BL), number, dtype=torch.long, device=spans_BL.device)
    return one_hot.scatter_add_(1, spans_BL, mask_BL.long())


def span_means(states_BLD: Tensor, spans_BL: Tensor, mask_BL: Tensor, number: int) -> Tensor:
    """The mean state of each span, (B, S, D) in float32; 0 where it has no token."""
    rows = len(spans_BL)
    counts_BS = span_counts(spans_BL, mask_BL, number)
    place_N = (spans_BL + number * torch.arange(rows, device=spans_BL.device)[:, None])[mask_BL]
    states_ND = states_BLD[mask_BL].float()
    sums = states_ND.new_zeros(rows * number, states_ND.shape[1]).index_add(0, place_N, states_ND)
    return sums.view(rows, number, -1) / counts_BS.clamp(min=1)[:, :, None]
