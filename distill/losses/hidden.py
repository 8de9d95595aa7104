"""Squared distance of hidden states, through a trained projection where the widths differ.

    Σ_n mean over pairs ‖P(student_n) - teacher_n‖²

summed over the teacher's dimensions, as the code of "Knowledge Distillation of Russian Language Models with Reduction
of Vocabulary" (arXiv 2205.02340) does: a mean over them would be smaller by the factor of the width, and so its usual
weight of 0.1 is small. teacher_n is the mean of the pair's teacher layers. P is the identity for equal widths, else
an affine map for each pair. Rows are the real tokens.

Axes: B batch, L tokens, D width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from distilrubert.distill.losses.layer import Activations, LayerLoss, sum_selected
from distilrubert.distill.losses.layer_map import LayerPair


def squared_distance(student_BLD: Tensor, teacher_BLD: Tensor, mask_BL: Tensor) -> Tensor:
    """The distance of one pair of states of equal width, summed over dimensions and over the selected tokens."""
    return sum_selected((student_BLD.float() - teacher_BLD.float()).square().sum(-1), mask_BL)


class HiddenLoss(LayerLoss):
    """:func:`squared_distance` after the pair's projection, averaged over the pairs.

    Attributes:
        projections: one for each pair; trained with the student, part of the checkpoints, not of the student.
    """

    needs = "hidden_states"

    def __init__(self, student: PretrainedConfig, teacher: PretrainedConfig, pairs: Sequence[LayerPair]) -> None:
        super().__init__(student, teacher, pairs)
        widths = student.hidden_size, teacher.hidden_size
        # The same start in every run and process, whatever was drawn before.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.projections = nn.ModuleList(
                nn.Identity() if widths[0] == widths[1] else nn.Linear(*widths) for _ in self.pairs
            )

    def forward(self, student: Activations, teacher: Activations, mask_BL: Tensor) -> Tensor:
        """See :class:`LayerLoss`."""
        distances = [
            squared_distance(project(student.hidden_states[pair.student].float()), teacher_BLD, mask_BL)
            for project, pair, teacher_BLD in zip(self.projections, self.pairs, teacher.hidden_states, strict=True)
        ]
        return torch.stack(distances).mean()
