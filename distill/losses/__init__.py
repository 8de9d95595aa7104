"""The losses of distillation, one module each.

Two kinds: those over the vocabulary (`kl`, `mlm`), computed together in :mod:`.vocabulary`, and those over layers,
which are listed here. Where the student has a vocabulary of its own, `first_piece`, `match` and `reduce_map` stand in
the place of `kl`, `reduce` and `reduce_cosine` in that of the losses over layers. A loss is a sum over rows; the
objective divides it by a number of rows that may span several batches and processes.
"""

from pydantic import Field

from distilrubert.common.configuration import Section
from distilrubert.distill.losses.attention import AttentionLoss
from distilrubert.distill.losses.cosine import CosineLoss
from distilrubert.distill.losses.hidden import HiddenLoss
from distilrubert.distill.losses.layer import LayerLoss
from distilrubert.distill.losses.reduce import ReduceCosineLoss, ReduceLoss

LAYER_LOSSES: dict[str, type[LayerLoss]] = {"cosine": CosineLoss, "attention": AttentionLoss, "hidden": HiddenLoss}
PAIRED_LAYER_LOSSES: dict[str, type[LayerLoss]] = {"reduce": ReduceLoss, "reduce_cosine": ReduceCosineLoss}
PAIRED_PREDICTION_LOSSES = ("first_piece", "match", "reduce_map")
# Those that reach the output layer.
PREDICTION_LOSSES = ("kl", "mlm", *PAIRED_PREDICTION_LOSSES)
# What can have a weight where student and teacher share a vocabulary, and where the student has its own.
SHARED_LOSSES = ("kl", "mlm", *LAYER_LOSSES)
PAIRED_LOSSES = ("mlm", *PAIRED_PREDICTION_LOSSES, *PAIRED_LAYER_LOSSES)


class LossWeights(Section):
    """How much each loss, as its mean over rows, counts in the total; one that is not named is not computed."""

    kl: float = Field(
        default=0.0, ge=0, description="Divergence from the teacher's predictions; nats times temperature²."
    )
    mlm: float = Field(default=0.0, ge=0, description="Cross-entropy of the hidden tokens, nats.")
    cosine: float = Field(default=0.0, ge=0, description="Cosine distance of hidden states, 0 to 2.")
    attention: float = Field(
        default=0.0, ge=0, description="Squared distance of attention maps, summed over keys, 0 to 2."
    )
    hidden: float = Field(default=0.0, ge=0, description="Squared distance of hidden states, summed over dimensions.")
    first_piece: float = Field(
        default=0.0,
        ge=0,
        description="Across vocabularies: divergence over the student's pieces, each with all that the teacher "
        "predicts of what begins with it; nats times temperature².",
    )
    match: float = Field(
        default=0.0,
        ge=0,
        description="Across vocabularies: divergence over the pieces that both have, where both texts have the same "
        "piece; nats times temperature².",
    )
    reduce_map: float = Field(
        default=0.0,
        ge=0,
        description="Across vocabularies: divergence over the teacher's whole vocabulary, each of its pieces predicted "
        "through those that spell it; nats times temperature².",
    )
    reduce: float = Field(
        default=0.0,
        ge=0,
        description="Across vocabularies: squared distance of a token's state and the mean state of the pieces that "
        "face it, summed over dimensions.",
    )
    reduce_cosine: float = Field(
        default=0.0, ge=0, description="Across vocabularies: cosine distance of the same states, 0 to 2."
    )
