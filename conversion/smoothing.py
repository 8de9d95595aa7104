"""Make a model easy to quantise without changing what it computes (SmoothQuant, arXiv 2211.10438), and what int8 costs.

A few channels of the activations of a BERT are tens of times larger than the others, and a scale for the whole tensor
then leaves the others a few of 256 steps. Each input channel of a linear map is divided by a factor and the column of
the weights multiplied by it, which moves part of the range into the weights: they have a scale for each row anyway.

Axes: N rows (tokens), I input channels, O output channels.
"""

import copy
import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from distilrubert.common.bars import tracked
from distilrubert.modeling.families import MODEL_TYPES

# Of the range, how much moves into the weights: on the reference teacher's first six layers, OpenVINO int8, the error
# (1 - mean token cosine) was 8.2e-3 with 0.5, 1.0e-3 with 0.8, 1.8e-3 with 0.95 and 8.7e-3 without smoothing.
STRENGTH = 0.8
SMALLEST = 1e-5
# What reads attention's output: means over the values of many tokens, of which no channel stands out. Without smoothing
# there the cosines stay the same (0.9950 and 0.9948 in ONNX, 0.9968 and 0.9969 in OpenVINO), and a multiplication in
# each layer is saved. No other can be spared (0.986 without the FFN's second map's).
UNSMOOTHED = "attention_output"

# The largest seven-bit weight and the steps of an activation: what the most cautious of the int8 files has.
LARGEST_WEIGHT = 63
STEPS = 255

Batches = Sequence[dict[str, Tensor]]


class Smoothed(nn.Module):
    """A linear map whose input is divided by a factor for each channel first."""

    inverse_I: Tensor

    def __init__(self, linear: nn.Linear, factor_I: Tensor) -> None:
        """Take over the map, whose weights change in place."""
        super().__init__()
        self.linear = linear
        self.register_buffer("inverse_I", 1 / factor_I)
        linear.weight.data = linear.weight * factor_I

    def forward(self, input_NI: Tensor) -> Tensor:
        """The map."""
        output_NO: Tensor = self.linear(input_NI * self.inverse_I)
        return output_NO


@torch.inference_mode()
def observe(model: PreTrainedModel, batches: Batches, see: Callable[[str, nn.Linear, Tensor], None]) -> None:
    """Run the model and call `see` with the name, the map and the input (N, I) of every linear map that is used."""
    hooks = [
        module.register_forward_pre_hook(
            lambda module, arguments, name=name: see(name, module, arguments[0].flatten(0, -2))
        )
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
    ]
    try:
        for batch in tracked(batches, "calibration", unit="text"):
            model(**batch)
    finally:
        for hook in hooks:
            hook.remove()


def smooth(model: PreTrainedModel, batches: Batches) -> PreTrainedModel:
    """A copy of a model whose encoder computes the same with smaller ranges, seen on `batches`; a head stays."""
    smoothed = copy.deepcopy(model)
    largest: dict[str, Tensor] = {}
    inputs: dict[str, tuple[int, ...]] = {}
    encoder = set(smoothed.base_model.modules())
    family = MODEL_TYPES.get(model.config.model_type)
    unsmoothed = (family.module_with(UNSMOOTHED),) if family else ()

    def see(name: str, linear: nn.Linear, input_NI: Tensor) -> None:
        if linear not in encoder or "pooler" in name or name.endswith(unsmoothed):
            return
        seen_I = input_NI.abs().amax(dim=0)
        largest[name] = torch.maximum(largest[name], seen_I) if name in largest else seen_I
        inputs[name] = (input_NI.data_ptr(), *input_NI.shape)

    with torch.no_grad():
        observe(smoothed, batches, see)
        for names in _sharing(inputs):
            _smooth_group(smoothed, names, largest[names[0]])
    return smoothed


def _sharing(inputs: dict[str, tuple[int, ...]]) -> Iterable[list[str]]:
    """Names of neighbouring maps that read the same tensor: query, key and value get one factor and one division."""
    groups: list[list[str]] = []
    for name, identity in inputs.items():
        if groups and inputs[groups[-1][0]] == identity and groups[-1][0].rpartition(".")[0] == name.rpartition(".")[0]:
            groups[-1].append(name)
        else:
            groups.append([name])
    return groups


def _smooth_group(model: nn.Module, names: Sequence[str], largest_I: Tensor) -> None:
    linears = [module for name in names if isinstance(module := model.get_submodule(name), nn.Linear)]
    weights_I = torch.stack([linear.weight.abs().amax(dim=0) for linear in linears]).amax(dim=0)
    factor_I = largest_I.clamp_min(SMALLEST) ** STRENGTH / weights_I.clamp_min(SMALLEST) ** (1 - STRENGTH)
    for name, linear in zip(names, linears, strict=True):
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, Smoothed(linear, factor_I))


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
