"""Divergence of predictions over the tokens that both vocabularies have.

    T² · Σ_n Σ_m p_nm · (log p_nm - log q_nm),   p = softmax(teacher / T),   q = softmax(student / T)

where m runs over the tokens of both and one class more, "rest": what either model gives to tokens that the other does
not have. With it the probabilities are those of the whole vocabularies, and a student learns how much of them lies
elsewhere. Without it both are renormalised over the common tokens, as in the code of "Knowledge Distillation of
Russian Language Models with Reduction of Vocabulary" (arXiv 2205.02340), and the rest is lost.

Rows are the positions where both tokenisations have the same token, by their place in the text.

Axes: C rows, V tokens of the student, T tokens of the teacher, M common tokens, R other tokens of the student.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from distilrubert.distill.losses.predictions import ComparisonTerm
from distilrubert.distill.losses.rows import Rows
from distilrubert.distill.losses.sparse import LOWEST
from distilrubert.distill.losses.term import Tokenizers
from distilrubert.distill.objective_settings import ObjectiveSettings
from distilrubert.modeling.splitting import shared_tokens


class MatchComparison(nn.Module):
    """The divergence and its gradient, for rows that fit into memory.

    Where the student has no token of its own, nothing that it could predict is the rest, and the teacher's predictions
    are renormalised.

    Args:
        teacher_ids: ids of the common tokens in the teacher's vocabulary, (M,).
        student_ids: the same tokens in the student's, (M,). One may be there twice, as two tokens of the teacher.
        sizes: tokens of the teacher and of the student.
        temperature: T.
        with_rest: whether there is a class for the rest.
    """

    def __init__(
        self,
        teacher_ids: NDArray[np.int64],
        student_ids: NDArray[np.int64],
        sizes: tuple[int, int],
        temperature: float,
        with_rest: bool = True,
    ) -> None:
        super().__init__()
        self.teacher_common: Tensor
        self.teacher_rest: Tensor
        self.student_common: Tensor
        self.student_rest: Tensor
        self.teacher_again: Tensor
        self.again: Tensor
        self._temperature = temperature
        common_V, firsts, places = np.unique(student_ids, return_index=True, return_inverse=True)
        again = np.setdiff1d(np.arange(len(student_ids)), firsts)
        self._with_rest = with_rest and len(common_V) < sizes[1]
        buffers = {
            "teacher_common": teacher_ids[firsts],
            "teacher_rest": np.setdiff1d(np.arange(sizes[0]), teacher_ids),
            "teacher_again": teacher_ids[again],
            "again": places[again],
            "student_common": common_V,
            "student_rest": np.setdiff1d(np.arange(sizes[1]), student_ids),
        }
        for name, ids in buffers.items():
            self.register_buffer(name, torch.from_numpy(ids), persistent=False)

    def forward(self, student_CV: Tensor, teacher_CT: Tensor) -> tuple[Tensor, Tensor]:
        """The sum over rows, nats times T², and its gradient with respect to the student's logits, from logits."""
        teacher_CM = teacher_CT[:, self.teacher_common] / self._temperature
        second_CM = teacher_CT[:, self.teacher_again] / self._temperature
        teacher_CM[:, self.again] = torch.logaddexp(teacher_CM[:, self.again], second_CM)
        log_p_CM, _ = self._classes(teacher_CM, teacher_CT, self.teacher_rest)
        student_CM = student_CV[:, self.student_common] / self._temperature
        log_q_CM, rest_CR = self._classes(student_CM, student_CV, self.student_rest)
        p_CM = log_p_CM.exp()
        loss = (p_CM * (log_p_CM - log_q_CM)).sum()
        difference_CM = (log_q_CM.exp() - p_CM).mul_(self._temperature)
        gradient_CV = torch.zeros_like(student_CV)
        common = len(self.student_common)
        gradient_CV[:, self.student_common] = difference_CM[:, :common]
        if self._with_rest:
            # Within the rest nothing is compared: its gradient goes to each token by its share.
            gradient_CV[:, self.student_rest] = rest_CR.softmax(dim=1) * difference_CM[:, common:]
        return self._temperature**2 * loss, gradient_CV

    def _classes(self, common: Tensor, logits: Tensor, rest_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities of the classes, and the softened logits of the rest, from those of the common tokens."""
        if not self._with_rest:
            return common.log_softmax(dim=1), common
        rest = logits[:, rest_ids] / self._temperature
        other = rest.logsumexp(dim=1, keepdim=True).clamp_min(LOWEST)
        return torch.cat((common, other), dim=1).log_softmax(dim=1), rest


class MatchTerm(ComparisonTerm):
    """``match``: see the module."""

    @staticmethod
    def build(tokenizers: Tokenizers, settings: ObjectiveSettings) -> nn.Module:
        ids = shared_tokens(*tokenizers)
        sizes = len(tokenizers.teacher), len(tokenizers.student)
        return MatchComparison(*ids, sizes, settings.temperature, settings.match_rest)

    @staticmethod
    def comparable(rows: Rows) -> Tensor:
        """Spans that are one and the same token on both sides."""
        return rows.matched_BS
