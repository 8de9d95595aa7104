"""Which linear maps lose too much as int8.

Axes: N rows (tokens), I input channels, O output channels.
"""

import math

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from distilrubert.conversion.smoothing import Batches, observe

# The largest seven-bit weight and the steps of an activation: what the most cautious of the int8 files has.
LARGEST_WEIGHT = 63
STEPS = 255


def output_errors(model: PreTrainedModel, batches: Batches) -> dict[str, float]:
    """How much int8 changes what each linear map of a model puts out, by the map's name.

    Weights are rounded with a scale for each row, inputs with one for the tensor, as the files do it. The error is
    the root of the summed squares of the change over that of the output without its bias.
    """
    changed: dict[str, float] = {}
    whole: dict[str, float] = {}
    rounded: dict[str, Tensor] = {}

    def see(name: str, linear: nn.Linear, input_NI: Tensor) -> None:
        if name not in rounded:
            rounded[name] = _round_weights(linear.weight)
        exact_NO = input_NI @ linear.weight.T
        change_NO = (_round_inputs(input_NI) @ rounded[name].T).sub_(exact_NO)
        # In place and by norms: a head has a column for each token of the vocabulary.
        changed[name] = math.hypot(changed.get(name, 0.0), torch.linalg.vector_norm(change_NO).item())
        whole[name] = math.hypot(whole.get(name, 0.0), torch.linalg.vector_norm(exact_NO).item())

    observe(model, batches, see)
    return {name: changed[name] / whole[name] if whole[name] else 0.0 for name in changed}


def _round_weights(weight_OI: Tensor) -> Tensor:
    scale_O1 = weight_OI.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / LARGEST_WEIGHT
    return torch.round(weight_OI / scale_O1) * scale_O1


def _round_inputs(input_NI: Tensor) -> Tensor:
    low, high = input_NI.min().clamp_max(0), input_NI.max().clamp_min(0)
    scale = ((high - low) / STEPS).clamp_min(1e-12)
    zero = torch.round(-low / scale)
    return (torch.clamp(torch.round(input_NI / scale) + zero, 0, STEPS) - zero) * scale
