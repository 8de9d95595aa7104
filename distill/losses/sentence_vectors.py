"""Distance of the vectors of sentences, {cosine to the teacher's, similarities within a batch}.

    sentence_cosine   Σ_i 1 - cos(P(s_i), t_i)
    similarity        Σ_ij (S_ij - T_ij)²,  S = H U U^T H with the rows u_i = s_i / |s_i|, T likewise

where s_i and t_i are the pooled states of sentence i, and P is the identity for equal widths, else a trained affine map
("Making Monolingual Sentence Embeddings Multilingual using Knowledge Distillation", arXiv 2004.09813, compares vectors;
"Similarity-Preserving Knowledge Distillation", arXiv 1907.09682, matrices). H = I - 1/B takes the mean vector of the
batch out, as the kernels of CKA (arXiv 1905.00414) are centred: all vectors of an E5 lie close together, so that its
similarities are nearly constant. A matrix needs no vectors of one width, so there is no projection.

Similarities are those within one batch of the plan. Nothing is gathered over processes.

Axes: B batch, L tokens, D width.
"""

import logging
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distilrubert.common.processes import is_first
from distilrubert.common.sentence_files import PoolingMode
from distilrubert.distill.losses.rows import Rows
from distilrubert.distill.losses.states import cosine_distance
from distilrubert.distill.losses.term import Outputs, Setup, Term

logger = logging.getLogger(__name__)

# Vectors of different sentences with a larger cosine than this are one vector, but for rounding.
COLLAPSED = 1 - 1e-5


def pool(states_BLD: Tensor, mask_BL: Tensor, pooling: PoolingMode) -> Tensor:
    """The vector of each sentence, (B, D) in fp32, as sentence-transformers pools: special tokens count."""
    if pooling == "cls":
        return states_BLD[:, 0].float()
    mask_BL1 = mask_BL.unsqueeze(-1)
    return torch.where(mask_BL1, states_BLD.float(), 0).sum(1) / mask_BL1.sum(1)


def centred_similarities(vectors_BD: Tensor) -> Tensor:
    """The cosines of all pairs, (B, B), without the mean of each row and of each column."""
    unit_BD = F.normalize(vectors_BD, dim=-1)
    centred_BD = unit_BD - unit_BD.mean(0)
    return centred_BD @ centred_BD.T


class SentenceTerm(Term):
    """Losses over the vectors of sentences.

    The teacher's vectors are pooled from its states, or come with the batch as ``teacher_vectors``.

    Args:
        names: those of the two that have a weight.
        setup: what it is built from.

    Attributes:
        projection: trained with the student, part of the checkpoints, not of the student.
    """

    needs = frozenset()

    def __init__(self, names: Sequence[str], setup: Setup) -> None:
        super().__init__(names, setup)
        assert setup.teacher is not None
        self._pooling = setup.pooling
        self._is_collapsed = False
        widths = setup.student.hidden_size, setup.teacher.hidden_size
        is_projected = widths[0] != widths[1] and "sentence_cosine" in names
        # The same start in every run and process, whatever was drawn before.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.projection = nn.Linear(*widths) if is_projected else nn.Identity()

    def counts(self, rows: Rows) -> dict[str, Tensor]:
        """Sentences, and pairs of them."""
        sentences = torch.tensor(len(rows.student.mask_BL))
        counts = {"sentence_cosine": sentences, "similarity": sentences**2}
        return {name: counts[name] for name in self.names}

    def forward(
        self, student: Outputs, teacher: Outputs | None, rows: Rows, scales: Mapping[str, float]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.autocast(rows.student.mask_BL.device.type, enabled=False):
            vectors_BD = pool(student.last_BLD, rows.student.mask_BL, self._pooling)
            teacher_BD = rows.teacher_vectors_BD
            if teacher_BD is None:
                assert teacher is not None
                teacher_BD = pool(teacher.last_BLD, rows.teacher.mask_BL, self._pooling)
            sums: dict[str, Tensor] = {}
            if "sentence_cosine" in self.names:
                every_B = torch.ones(len(vectors_BD), dtype=torch.bool, device=vectors_BD.device)
                sums["sentence_cosine"] = cosine_distance(self.projection(vectors_BD), teacher_BD, every_B)
            if "similarity" in self.names:
                errors_BB = centred_similarities(vectors_BD) - centred_similarities(teacher_BD)
                sums["similarity"] = errors_BB.square().sum()
            if not torch.is_grad_enabled():
                self._tell_of_collapse(vectors_BD)
            return sum(scales[name] * value for name, value in sums.items()) + vectors_BD.new_zeros(()), sums

    def _tell_of_collapse(self, vectors_BD: Tensor) -> None:
        """Warn once if held-out sentences all have one vector: losses hardly show it where the teacher's are alike."""
        unit_BD = F.normalize(vectors_BD, dim=-1)
        is_collapsed = len(unit_BD) > 1 and float((unit_BD @ unit_BD.T).min()) > COLLAPSED
        if is_collapsed and not self._is_collapsed and is_first():
            logger.warning(
                "the student has collapsed: it gives held-out sentences one and the same vector; lower "
                "distillation.learning_rate, or give similarity a larger weight"
            )
        self._is_collapsed = is_collapsed
