"""The losses of distillation, one module each.

Two kinds: those over the vocabulary (`kl`, `mlm`), computed together in :mod:`.vocabulary`, and those over layers,
which are listed here. Where the student has a vocabulary of its own, `first_piece`, `match` and `reduce_map` stand in
the place of `kl`, `reduce` and `reduce_cosine` in that of the losses over layers. A loss is a sum over rows; the
objective divides it by a number of rows that may span several batches and processes.
"""

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
