"""Masked language modelling: cross-entropy of the hidden tokens (Devlin et al., arXiv 1810.04805).

    - Σ_n log q_n(label_n),   q = softmax(student)

Divided by the number of labelled rows it is the mean per hidden token.

Axes: N rows, V vocabulary.
"""

import torch.nn.functional as F
from torch import Tensor

from distilrubert.common.training.padding import IGNORED


def masked_cross_entropy(logits_NV: Tensor, labels_N: Tensor) -> Tensor:
    """The cross-entropy summed over the rows whose label is not :data:`IGNORED`, nats.

    The plain formula, for logits that fit into memory; training computes the same in
    :mod:`distilrubert.distill.losses.vocabulary`.
    """
    return F.cross_entropy(logits_NV, labels_N, ignore_index=IGNORED, reduction="sum")
