"""What the losses on layers have in common: they compare activations of student and teacher pair by pair.

Axes: B batch, L tokens, D width.
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from distilrubert.distill.layer_map import LayerPair

QueryKey = tuple[Tensor, Tensor]


@dataclasses.dataclass(frozen=True)
class Activations:
    """What an encoder left behind.

    Attributes:
        last_BLD: output of the last block.
        hidden_states: outputs of the embeddings and of each block (B, L, D); empty where no loss needs them.
        queries_keys: for each block the queries and keys of all heads (B, L, D); empty where no loss needs them.
    """

    last_BLD: Tensor
    hidden_states: tuple[Tensor, ...] = ()
    queries_keys: tuple[QueryKey, ...] = ()


class LayerLoss(nn.Module):
    """A loss over pairs of layers: the mean over the pairs, summed over rows, in float32.

    Subclasses check in their constructor that student and teacher fit, and own what is trained with them.

    Args:
        student: configuration of the student.
        teacher: configuration of the teacher.
        pairs: the layers to compare.
    """

    needs: ClassVar[Literal["hidden_states", "queries_keys"]]

    def __init__(self, student: PretrainedConfig, teacher: PretrainedConfig, pairs: Sequence[LayerPair]) -> None:
        super().__init__()
        self.pairs = tuple(pairs)

    def count(self, mask_BL: Tensor) -> Tensor:
        """Rows of a batch: its real tokens. `mask_BL` is true for them."""
        return mask_BL.sum()

    def forward(self, student: Activations, teacher: Activations, mask_BL: Tensor) -> Tensor:
        """The sum over the rows of the mean over the pairs."""
        raise NotImplementedError


def mean_state(states: Sequence[Tensor], layers: Sequence[int]) -> Tensor:
    """The mean of the chosen states, in float32."""
    total = states[layers[0]].float()
    for layer in layers[1:]:
        total = total + states[layer]
    return total / len(layers)


def sum_selected(values: Tensor, mask: Tensor) -> Tensor:
    """The sum of `values` where `mask` is true; other numbers reach neither it nor a gradient."""
    return torch.where(mask, values, 0).sum()


def averaged(activations: Activations) -> Activations:
    """The mean of all hidden states as the only one, for the layer map ``all-mean``."""
    states = activations.hidden_states
    return dataclasses.replace(activations, hidden_states=(mean_state(states, range(len(states))),) if states else ())
