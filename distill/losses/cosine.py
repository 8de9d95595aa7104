"""Cosine distance of hidden states.

    Σ_n mean over pairs (1 - cos(student_n, teacher_n))

where teacher_n is the mean of the pair's teacher layers (cards of DistilRuBERT base and small: two or six consecutive
layers; DistilBERT, arXiv 1910.01108: the last layer alone). Rows are the real tokens.

Axes: B batch, L tokens, D width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PretrainedConfig

from distilrubert.common.errors import UserError
from distilrubert.distill.losses.layer import Activations, LayerLoss, sum_selected
from distilrubert.distill.losses.layer_map import LayerPair

# Keeps a state of zeros from dividing by zero: its distance is 1.
EPSILON = 1e-8


def cosine_distance(student_BLD: Tensor, teacher_BLD: Tensor, mask_BL: Tensor) -> Tensor:
    """The distance of one pair of states, summed over the tokens that `mask_BL` selects."""
    student_BLD, teacher_BLD = student_BLD.float(), teacher_BLD.float()
    # Not torch's cosine_similarity, which keeps both states once more, normalised, for its backward pass.
    norms_BL = student_BLD.norm(dim=-1) * teacher_BLD.norm(dim=-1)
    return sum_selected(1 - torch.linalg.vecdot(student_BLD, teacher_BLD) / norms_BL.clamp(min=EPSILON), mask_BL)


class CosineLoss(LayerLoss):
    """:func:`cosine_distance`, averaged over the pairs.

    Raises:
        UserError: if the widths differ.
    """

    needs = "hidden_states"

    def __init__(self, student: PretrainedConfig, teacher: PretrainedConfig, pairs: Sequence[LayerPair]) -> None:
        super().__init__(student, teacher, pairs)
        if student.hidden_size != teacher.hidden_size:
            raise UserError(
                f"distillation.weights.cosine: compares states of one width, but the student's is "
                f"{student.hidden_size} and the teacher's {teacher.hidden_size}; set it to 0 and use "
                "distillation.weights.hidden, which learns a projection"
            )

    def forward(self, student: Activations, teacher: Activations, mask_BL: Tensor) -> Tensor:
        """See :class:`LayerLoss`."""
        distances = [
            cosine_distance(student.hidden_states[pair.student], teacher_BLD, mask_BL)
            for pair, teacher_BLD in zip(self.pairs, teacher.hidden_states, strict=True)
        ]
        return torch.stack(distances).mean()
