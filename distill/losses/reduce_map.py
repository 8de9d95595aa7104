"""Divergence over the whole vocabulary of the teacher, whose tokens are predicted through those that spell them.

    T² · Σ_n Σ_v p_nv · (log p_nv - log q_nv),   p = softmax(teacher / T),   q = softmax(z / T),
    z_nv = log Σ_j M_vj exp(a_nj)

where M_vj counts how often token j of the student stands in the spelling of the teacher's token v, and a_n are the
student's logits, averaged over the tokens that face the teacher's token n in the text. That is the `reduce-map` of
"Knowledge Distillation of Russian Language Models with Reduction of Vocabulary" (arXiv 2205.02340) in its form with
summed probabilities. There the gradient went through thirty sampled tokens; M is a sparse matrix, and a product with
it and one with its transpose give sum and gradient exactly, with nothing of rows × vocabulary × tokens.

Tokens that the student cannot spell are left out on both sides.

Axes: C rows, V tokens of the student, T tokens of the teacher.
"""

import torch
from torch import Tensor, nn

from distilrubert.distill.losses.predictions import ComparisonTerm
from distilrubert.distill.losses.rows import Rows
from distilrubert.distill.losses.sparse import LOWEST, register_sparse
from distilrubert.distill.losses.term import Tokenizers
from distilrubert.distill.objective_settings import ObjectiveSettings
from distilrubert.modeling.splitting import SplitMap, split_vocabulary


class ReduceMapComparison(nn.Module):
    """The divergence and its gradient, for rows that fit into memory.

    Args:
        split: how the teacher's tokens are spelt.
        temperature: T.
    """

    def __init__(self, split: SplitMap, temperature: float) -> None:
        super().__init__()
        self._temperature = temperature
        self.matrix_TV: Tensor
        self.matrix_VT: Tensor
        self.unspelt: Tensor
        matrix_TV = split.matrix()
        register_sparse(self, "matrix_TV", matrix_TV)
        register_sparse(self, "matrix_VT", matrix_TV.t().coalesce())
        self.register_buffer("unspelt", torch.from_numpy(~split.is_spelled_T).nonzero()[:, 0], persistent=False)

    def forward(self, student_CV: Tensor, teacher_CT: Tensor) -> tuple[Tensor, Tensor]:
        """The sum over rows, nats times T², and its gradient with respect to the student's logits, from logits.

        `teacher_CT` is overwritten.
        """
        temperature = self._temperature
        highest_C1 = student_CV.amax(dim=1, keepdim=True)
        powers_VC = (student_CV - highest_C1).exp_().t().contiguous()
        sums_TC = torch.mm(self.matrix_TV.to(powers_VC.dtype), powers_VC).clamp_min_(torch.finfo(powers_VC.dtype).tiny)
        # What cannot be spelt has no probability on either side. The highest logit, like any constant, plays no part.
        log_q_TC = sums_TC.log().index_fill_(0, self.unspelt, LOWEST).div_(temperature)
        log_q_TC -= log_q_TC.logsumexp(dim=0)
        log_p_TC = teacher_CT.index_fill_(1, self.unspelt, LOWEST).div_(temperature).log_softmax(dim=1).t()
        p_TC = log_p_TC.exp()
        loss = torch.sum(p_TC * (log_p_TC - log_q_TC))
        gradient_TC = log_q_TC.exp_().sub_(p_TC).div_(sums_TC)
        gradient_VC = torch.mm(self.matrix_VT.to(powers_VC.dtype), gradient_TC).mul_(powers_VC)
        return temperature**2 * loss, gradient_VC.t().mul(temperature)


class ReduceMapTerm(ComparisonTerm):
    """``reduce_map``: see the module."""

    averages = True

    @staticmethod
    def build(tokenizers: Tokenizers, settings: ObjectiveSettings) -> nn.Module:
        return ReduceMapComparison(split_vocabulary(*tokenizers), settings.temperature)

    @staticmethod
    def comparable(rows: Rows) -> Tensor:
        """Spans that are one token of the teacher, which the student spells."""
        return (rows.teacher.counts_BS == 1) & rows.begins_inside_BS
