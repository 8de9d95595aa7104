"""Divergence over the student's vocabulary, on which the teacher's predictions are folded.

    T² · Σ_n Σ_j p_nj · (log p_nj - log q_nj),   p = softmax(y / T),   q = softmax(student / T),
    y_nj = log Σ_v [token j begins the spelling of v] exp(teacher_nv)

The student does not predict a word that it has no token for; it predicts the token that the word begins with. Its
probability is that of all the teacher's tokens which begin with it: no part of what the teacher predicts is lost, where
:mod:`.match` has to lay it all on the few tokens that the teacher does not have, or to leave it out.

Rows are the first tokens of the spans: both models predict there what begins at the same character. A span whose first
token in the student reaches beyond the teacher's first token is left out: for teacher ``привет ##ик`` and student
``приветик`` the folded target would lie on ``привет``, while ``приветик`` is what stands there. So is one that begins a
word for one model alone, as ``то`` of "кто-то", which has no space before it in XLM-R's vocabulary.

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


class FirstTokenComparison(nn.Module):
    """The divergence and its gradient, for rows that fit into memory.

    Tokens of the teacher that the student cannot spell are left out.

    Args:
        split: how the teacher's tokens are spelt.
        temperature: T.
    """

    def __init__(self, split: SplitMap, temperature: float) -> None:
        super().__init__()
        self._temperature = temperature
        self.matrix_VT: Tensor
        self.unreached: Tensor
        matrix_VT = split.first_tokens().t().coalesce()
        reached = torch.zeros(split.width, dtype=torch.bool).index_fill_(0, matrix_VT.indices()[0], True)
        register_sparse(self, "matrix_VT", matrix_VT)
        self.register_buffer("unreached", (~reached).nonzero()[:, 0], persistent=False)

    def forward(self, student_CV: Tensor, teacher_CT: Tensor) -> tuple[Tensor, Tensor]:
        """The sum over rows, nats times T², and its gradient with respect to the student's logits, from logits.

        `teacher_CT` is overwritten.
        """
        temperature = self._temperature
        powers_TC = teacher_CT.sub_(teacher_CT.amax(dim=1, keepdim=True)).exp_().t().contiguous()
        sums_VC = torch.mm(self.matrix_VT.to(powers_TC.dtype), powers_TC).clamp_min_(torch.finfo(powers_TC.dtype).tiny)
        folded_CV = sums_VC.log_().index_fill_(0, self.unreached, LOWEST).t()
        log_p_CV = folded_CV.div(temperature).log_softmax(dim=1)
        log_q_CV = student_CV.div(temperature).log_softmax(dim=1)
        p_CV = log_p_CV.exp()
        loss = torch.sum(p_CV * log_p_CV.sub_(log_q_CV))
        return temperature**2 * loss, log_q_CV.exp_().sub_(p_CV).mul_(temperature)


class FirstTokenTerm(ComparisonTerm):
    """``first_token``: see the module."""

    @staticmethod
    def build(tokenizers: Tokenizers, settings: ObjectiveSettings) -> nn.Module:
        return FirstTokenComparison(split_vocabulary(*tokenizers), settings.temperature)

    @staticmethod
    def comparable(rows: Rows) -> Tensor:
        """See :meth:`.SpanMasker.collate`."""
        return rows.begins_inside_BS
