"""What the losses on layers have in common: they compare activations of student and teacher pair by pair.

Axes: B batch, L tokens, D width.
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from distilrubert.distill.losses.layer_map import LayerPair

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

    Subclasses check in their constructor that student and teacher fit, and own what is trained with them. Of a teacher
    they are given :func:`paired_states`.

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


def paired_states(teacher: Activations, pairs: Sequence[LayerPair]) -> Activations:
    """A teacher's activations with one state for each pair in the place of its hidden states: the mean of its layers.

    Half as many as there were for a student of half the layers, and so half of the memory until they are compared.
    """
    states = tuple(_mean([teacher.hidden_states[layer] for layer in pair.teacher]) for pair in pairs)
    return dataclasses.replace(teacher, hidden_states=states)


def _mean(states: Sequence[Tensor]) -> Tensor:
    """The mean of the states, in float32."""
    total = states[0].float()
    for state in states[1:]:
        total = total + state
    return total / len(states)


def sum_selected(values: Tensor, mask: Tensor) -> Tensor:
    """The sum of `values` where `mask` is true; other numbers reach neither it nor a gradient."""
    return torch.where(mask, values, 0).sum()


def averaged(activations: Activations) -> Activations:
    """The mean of all hidden states as the only one, for the layer map ``all-mean``."""
    states = activations.hidden_states
    return dataclasses.replace(activations, hidden_states=(_mean(states),) if states else ())
