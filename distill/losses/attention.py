"""Squared distance of attention maps.

    Σ_b Σ_h Σ_q mean over pairs Σ_k (student_bhqk - teacher_bhqk)²

where the teacher's map is the mean of the maps of the pair's teacher layers (card of DistilRuBERT small: six
consecutive layers). Rows are the (head, query) combinations whose query is a real token; padded keys have probability
0 in both maps. Divided by the rows it is the mean over batch, heads and real queries of the sum over keys; the card
does not state its normalisation.

The maps are recomputed from what enters the fused attention kernel. Those that transformers returns are taken after
dropout in some versions and architectures, and asking for them gives up that kernel, in every layer.

Axes: B batch, Q queries, K keys, H heads.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from distilrubert.common.errors import UserError
from distilrubert.distill.losses.rows import Rows
from distilrubert.distill.losses.term import AttentionInput, Outputs, Setup, Term, sum_selected


def attention_map(layer: AttentionInput) -> Tensor:
    """Attention probabilities before dropout (B, H, Q, K), in float32; 0 for keys that the mask leaves out."""
    query_BHQE, key_BHKE = layer.query_BHLE.float(), layer.key_BHLE.float()
    scores_BHQK = query_BHQE @ key_BHKE.transpose(2, 3) * query_BHQE.shape[-1] ** -0.5
    if layer.mask is not None:
        # The smallest number and not minus infinity: a query that sees nothing must not become NaN.
        lowest = torch.finfo(scores_BHQK.dtype).min
        seen = layer.mask if layer.mask.dtype == torch.bool else layer.mask >= 0
        scores_BHQK = scores_BHQK.masked_fill(~seen, lowest)
    return torch.softmax(scores_BHQK, dim=-1)


def map_distance(student_BHQK: Tensor, teacher_BHQK: Tensor, mask_BL: Tensor) -> Tensor:
    """The distance of one pair of maps, summed over keys, heads and the queries that `mask_BL` selects."""
    return sum_selected((student_BHQK - teacher_BHQK).square().sum(-1), mask_BL[:, None, :])


class AttentionTerm(Term):
    """:func:`map_distance`, averaged over the pairs; the pair of the embeddings has no map and is left out.

    Raises:
        UserError: if the numbers of heads differ, no layers are paired, or a pair names the embeddings.
    """

    needs = frozenset({"attention"})

    def __init__(self, names: Sequence[str], setup: Setup) -> None:
        super().__init__(names, setup)
        assert setup.teacher is not None
        self.pairs = [pair for pair in setup.pairs if 0 not in pair.student]
        heads = setup.student.num_attention_heads, setup.teacher.num_attention_heads
        section = setup.settings.section
        field = f"{section}.weights.{names[0]}"
        if heads[0] != heads[1]:
            raise UserError(
                f"{field}: compares maps head by head, but the student has {heads[0]} heads and the teacher "
                f"{heads[1]}; set it to 0 or student.heads to the teacher's"
            )
        if not self.pairs:
            raise UserError(f"{field}: {section}.layer_map pairs no layers, whose maps could be compared")
        if any(0 in pair.teacher for pair in self.pairs):
            raise UserError(f"{field}: the embeddings, layer 0 in {section}.layer_map, have no attention map")
        self.heads: int = heads[0]

    def counts(self, rows: Rows) -> dict[str, Tensor]:
        """Heads times real tokens."""
        return {self.names[0]: self.heads * rows.student.mask_BL.sum()}

    def forward(
        self, student: Outputs, teacher: Outputs | None, rows: Rows, scales: Mapping[str, float]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        assert teacher is not None
        mask_BL = rows.student.mask_BL
        with torch.autocast(mask_BL.device.type, enabled=False):
            distances = []
            for pair in self.pairs:
                student_BHQK = _mean_map(student, pair.student)
                teacher_BHQK = _mean_map(teacher, pair.teacher)
                distances.append(map_distance(student_BHQK, teacher_BHQK, mask_BL))
            found = torch.stack(distances).mean()
            return scales[self.names[0]] * found, {self.names[0]: found}


def _mean_map(outputs: Outputs, layers: Sequence[int]) -> Tensor:
    first, *others = layers
    mean_BHQK = attention_map(outputs.attention[first - 1]) / len(layers)
    for layer in others:
        mean_BHQK = mean_BHQK + attention_map(outputs.attention[layer - 1]) / len(layers)
    return mean_BHQK


class RecordedAttention(TorchFunctionMode):
    """Inside this context, what the attention of every layer compares is kept, in the order of the layers.

    Attributes:
        layers: one for each call of ``scaled_dot_product_attention``, the attention of all models here.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers: list[AttentionInput] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            self.layers.append(_compared(*args, **(kwargs or {})))
        return func(*args, **(kwargs or {}))


def _compared(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **_: Any) -> AttentionInput:
    return AttentionInput(query, key, attn_mask)
