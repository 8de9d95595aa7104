"""The losses over the vocabulary by their definition, for logits that fit into memory.

Axes: N rows, V vocabulary.
"""

import torch.nn.functional as F
from torch import Tensor

from distilrubert.common.training.padding import IGNORED


def kl_divergence(student_NV: Tensor, teacher_NV: Tensor, temperature: float) -> Tensor:
    """T² · Σ_n Σ_v p_nv · (log p_nv - log q_nv), with p of the teacher and q of the student at temperature T."""
    student_NV = F.log_softmax(student_NV / temperature, dim=-1)
    teacher_NV = F.log_softmax(teacher_NV / temperature, dim=-1)
    return temperature**2 * F.kl_div(student_NV, teacher_NV, reduction="sum", log_target=True)


def masked_cross_entropy(logits_NV: Tensor, labels_N: Tensor) -> Tensor:
    """- Σ_n log q_n(label_n) over the rows whose label is not :data:`IGNORED`."""
    return F.cross_entropy(logits_NV, labels_N, ignore_index=IGNORED, reduction="sum")
