"""Kullback-Leibler divergence of the student's predictions from the teacher's, at a temperature.

    T² · Σ_n Σ_v p_nv · (log p_nv - log q_nv),   p = softmax(teacher / T),   q = softmax(student / T)

The forward divergence, teacher first; T² keeps its gradient of the order of the cross-entropy's (Hinton et al.,
"Distilling the Knowledge in a Neural Network", arXiv 1503.02531; DistilBERT, arXiv 1910.01108). Divided by the number
of rows it is the mean per position.

Axes: N rows, V vocabulary.
"""

import torch.nn.functional as F
from torch import Tensor


def kl_divergence(student_NV: Tensor, teacher_NV: Tensor, temperature: float) -> Tensor:
    """The divergence summed over rows, nats times T², from logits.

    The plain formula, for logits that fit into memory; training computes the same in
    :mod:`distilrubert.distill.losses.vocabulary`.
    """
    student_NV = F.log_softmax(student_NV / temperature, dim=-1)
    teacher_NV = F.log_softmax(teacher_NV / temperature, dim=-1)
    return temperature**2 * F.kl_div(student_NV, teacher_NV, reduction="sum", log_target=True)
