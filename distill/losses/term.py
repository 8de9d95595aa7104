"""What a term of the objective is: one loss, or several that are computed together.

Axes: H heads, E width of a head, B batch, L tokens, D width, N rows.
"""

import abc
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedTokenizerFast

from distilrubert.common.sentence_files import PoolingMode
from distilrubert.distill.losses.chunks import HeadInput
from distilrubert.distill.losses.layer_map import LayerPair, pair_layers
from distilrubert.distill.losses.rows import Rows
from distilrubert.distill.losses.tied import TiedWeight
from distilrubert.distill.objective_settings import ComparisonSettings
from distilrubert.modeling.heads import MlmHead

Need = Literal["hidden_states", "attention", "head", "logits"]


class AttentionInput(NamedTuple):
    """What the attention of a layer compares, as it enters the product: positions are turned in, where they are rotary.

    Attributes:
        query_BHLE: of all heads.
        key_BHLE: of all heads.
        mask: (B, 1, 1 or L, L), true for the keys that a query sees, or a number that is added to its score; None where
            all see all.
    """

    query_BHLE: Tensor
    key_BHLE: Tensor
    mask: Tensor | None


@dataclasses.dataclass(frozen=True)
class Outputs:
    """What a forward pass leaves for the terms.

    Attributes:
        last_BLD: output of the last layer.
        hidden_states: outputs of the embeddings and of each layer (B, L, D); after :meth:`compared`, one for each pair
            of layers. Empty where no term needs them.
        attention: for each layer what its attention compares; empty where no term needs it.
        head: of a masked language model; None where no term needs it.
        tied: holder of the word embeddings, where the output layer shares them and both get gradients.
        logits: of the head of a task, (B, C) or (B, L, C), or (B, 2, L) for start and end of an answer; None where no
            term needs them.
    """

    last_BLD: Tensor
    hidden_states: tuple[Tensor, ...] = ()
    attention: tuple[AttentionInput, ...] = ()
    head: MlmHead | None = None
    tied: TiedWeight | None = None
    logits: Tensor | None = None

    def compared(self, groups: Sequence[tuple[int, ...]]) -> "Outputs":
        """These outputs with the mean of each group of layers in place of the hidden states.

        What is not compared is released: of a teacher twice as deep as the student, half of the memory.
        """
        states = self.hidden_states
        return dataclasses.replace(self, hidden_states=tuple(_mean([states[k] for k in group]) for group in groups))

    def head_input(self, places_N: Tensor, tokens: int | None = None) -> HeadInput:
        """The rows at these places of the flattened batch, after the head's transform.

        Rows are chosen before the head: neither its transform nor the vocabulary sees any other.

        Args:
            places_N: in the batch of B x L tokens.
            tokens: of the teacher's vocabulary; it may have further rows, which no token uses.
        """
        assert self.head is not None
        hidden_ND = self.head.transform(self.last_BLD.flatten(0, 1).index_select(0, places_N))
        if self.tied is not None:
            return HeadInput(hidden_ND, self.tied.weight_VD, self.head.bias_V, self.tied)
        return HeadInput(hidden_ND, *self.head.rows(tokens))


class Tokenizers(NamedTuple):
    """Those of a student with a vocabulary of its own, and of its teacher."""

    teacher: PreTrainedTokenizerFast
    student: PreTrainedTokenizerFast


@dataclasses.dataclass(frozen=True)
class Setup:
    """What terms are built from.

    Attributes:
        settings: of the objective.
        student: configuration of the student.
        teacher: configuration of the teacher; None where no term needs one.
        tokenizers: of two vocabularies; None where student and teacher have one.
        pooling: what the vector of a sentence is.
    """

    settings: ComparisonSettings
    student: PretrainedConfig
    teacher: PretrainedConfig | None
    tokenizers: Tokenizers | None
    pooling: PoolingMode = "mean"

    @functools.cached_property
    def pairs(self) -> tuple[LayerPair, ...]:
        """The layers to compare.

        Raises:
            UserError: if student and teacher do not fit the layer map.
        """
        assert self.teacher is not None
        layers = self.student.num_hidden_layers, self.teacher.num_hidden_layers
        settings = self.settings
        return tuple(pair_layers(settings.layer_map, *layers, settings.embeddings_pair, settings.section))


class Term(nn.Module, abc.ABC):
    """A part of the objective.

    Its parameters, if any, are trained with the student. The constructor refuses a student and a teacher that do not
    fit.

    Args:
        names: the losses that it computes.
        setup: what it is built from.

    Attributes:
        needs: what it needs of student and teacher beside the output of the last layer.
    """

    needs: ClassVar[frozenset[Need]]

    def __init__(self, names: Sequence[str], setup: Setup) -> None:
        super().__init__()
        self.names = tuple(names)

    @abc.abstractmethod
    def counts(self, rows: Rows) -> dict[str, Tensor]:
        """The number of rows of each loss in a batch."""

    @property
    def key(self) -> str:
        """The term's name in a prepared batch."""
        return self.names[0]

    def places(self, rows: Rows) -> dict[str, Tensor]:
        """The rows that the term reads, as places, and what else would make a step wait for a device, by name."""
        return {}

    def given_places(self, rows: Rows) -> Mapping[str, Tensor]:
        """The :meth:`places` that came with the batch, or else made here."""
        return rows.places.get(self.key) or self.places(rows)

    def set_compiled(self, *, compiled: bool) -> None:
        """Compile what it makes of whole predictions, or undo it; by default nothing."""

    @abc.abstractmethod
    def forward(
        self, student: Outputs, teacher: Outputs | None, rows: Rows, scales: Mapping[str, float]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The losses of a batch.

        Args:
            student: its outputs, with a gradient.
            teacher: its outputs; None where no loss of the objective needs a teacher.
            rows: tokens and spans of the batch.
            scales: of each loss, weight / number of rows. They must be known here: some terms make their gradient in
                the forward pass.

        Returns:
            the sum of each loss times its scale, added up, the only one with a gradient; and the sum of each loss.
        """


def sum_selected(values: Tensor, mask: Tensor) -> Tensor:
    """The sum of `values` where `mask` is true; other numbers reach neither it nor a gradient."""
    return torch.where(mask, values, 0).sum()


def _mean(states: Sequence[Tensor]) -> Tensor:
    """The mean of the states, in float32 where there are several."""
    if len(states) == 1:
        return states[0]
    total = states[0].float()
    for state in states[1:]:
        total = total + state
    return total / len(states)
