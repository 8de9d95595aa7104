"""Squared distance of attention maps.

    Σ_b Σ_h Σ_q mean over pairs Σ_k (student_bhqk - teacher_bhqk)²

where the teacher's map is the mean of the maps of the pair's teacher layers (card of DistilRuBERT small: six
consecutive layers). Rows are the (head, query) combinations whose query is a real token; padded keys have probability
0 in both maps. Divided by the rows it is the mean over batch, heads and real queries of the sum over keys; the card
does not state its normalisation.

The maps are recomputed from queries and keys. Those that transformers returns are taken after dropout in some
versions and architectures, and asking for them gives up the fused attention kernels.

Axes: B batch, L tokens, Q queries, K keys, D width, H heads.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from transformers import BertModel, DistilBertModel

from distilrubert.common.errors import UserError
from distilrubert.distill.losses.rows import Rows
from distilrubert.distill.losses.term import Outputs, QueryKey, Setup, Term, sum_selected

_FIELD = "distillation.weights.attention"


def attention_map(queries_BLD: Tensor, keys_BLD: Tensor, heads: int, mask_BL: Tensor) -> Tensor:
    """Attention probabilities before dropout (B, H, Q, K), in float32; 0 for keys that `mask_BL` leaves out."""
    queries_BHQD, keys_BHKD = (
        states.float().view(*states.shape[:2], heads, -1).transpose(1, 2) for states in (queries_BLD, keys_BLD)
    )
    scores_BHQK = queries_BHQD @ keys_BHKD.transpose(2, 3) * queries_BHQD.shape[-1] ** -0.5
    # The smallest number and not minus infinity: a sequence of padding alone must not become NaN.
    lowest = torch.finfo(scores_BHQK.dtype).min
    return torch.softmax(scores_BHQK.masked_fill(~mask_BL[:, None, None, :], lowest), dim=-1)


def map_distance(student_BHQK: Tensor, teacher_BHQK: Tensor, mask_BL: Tensor) -> Tensor:
    """The distance of one pair of maps, summed over keys, heads and the queries that `mask_BL` selects."""
    return sum_selected((student_BHQK - teacher_BHQK).square().sum(-1), mask_BL[:, None, :])


class AttentionTerm(Term):
    """:func:`map_distance`, averaged over the pairs; the pair of the embeddings has no map and is left out.

    Raises:
        UserError: if the numbers of heads differ, no layers are paired, or a pair names the embeddings.
    """

    needs = frozenset({"queries_keys"})

    def __init__(self, names: Sequence[str], setup: Setup) -> None:
        super().__init__(names, setup)
        assert setup.teacher is not None
        self.pairs = [pair for pair in setup.pairs if 0 not in pair.student]
        heads = setup.student.num_attention_heads, setup.teacher.num_attention_heads
        if heads[0] != heads[1]:
            raise UserError(
                f"{_FIELD}: compares maps head by head, but the student has {heads[0]} heads and the teacher "
                f"{heads[1]}; set it to 0 or student.heads to the teacher's"
            )
        if not self.pairs:
            raise UserError(f"{_FIELD}: distillation.layer_map pairs no layers, whose maps could be compared")
        if any(0 in pair.teacher for pair in self.pairs):
            raise UserError(f"{_FIELD}: the embeddings, layer 0 in distillation.layer_map, have no attention map")
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
                student_BHQK = self._mean_map(student, pair.student, mask_BL)
                teacher_BHQK = self._mean_map(teacher, pair.teacher, mask_BL)
                distances.append(map_distance(student_BHQK, teacher_BHQK, mask_BL))
            found = torch.stack(distances).mean()
            return scales[self.names[0]] * found, {self.names[0]: found}

    def _mean_map(self, outputs: Outputs, layers: Sequence[int], mask_BL: Tensor) -> Tensor:
        first, *others = layers
        mean_BHQK = attention_map(*outputs.queries_keys[first - 1], self.heads, mask_BL) / len(layers)
        for layer in others:
            mean_BHQK = mean_BHQK + attention_map(*outputs.queries_keys[layer - 1], self.heads, mask_BL) / len(layers)
        return mean_BHQK


@contextlib.contextmanager
def record_queries_keys(encoder: nn.Module) -> Iterator[list[QueryKey]]:
    """Collect the queries and keys of every layer in a forward pass of `encoder` inside the context.

    Yields:
        a list that is filled, in the order of the layers, when the context ends.
    """
    recorded: list[QueryKey] = []
    outputs: dict[nn.Module, Tensor] = {}
    projections = _query_key_projections(encoder)
    hooks = [
        projection.register_forward_hook(lambda module, _, output: outputs.__setitem__(module, output))
        for pair in projections
        for projection in pair
    ]
    try:
        yield recorded
        recorded.extend((outputs[query], outputs[key]) for query, key in projections)
    finally:
        for hook in hooks:
            hook.remove()


def _query_key_projections(encoder: nn.Module) -> list[tuple[nn.Module, nn.Module]]:
    if isinstance(encoder, BertModel):
        attentions = [layer.attention.self for layer in encoder.encoder.layer]
        return [(attention.query, attention.key) for attention in attentions]
    if isinstance(encoder, DistilBertModel):
        return [(layer.attention.q_lin, layer.attention.k_lin) for layer in encoder.transformer.layer]
    raise TypeError(f"{type(encoder).__name__} is neither BertModel nor DistilBertModel")
