"""AdamW with its parameter groups and learning rate schedule."""

import types
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn
from torch.optim import AdamW
from transformers import get_scheduler

from distilrubert.common.training.training_settings import OptimizationSettings


def parameter_groups(
    module: nn.Module, weight_decay: float, peak_rates: Mapping[str, float] = types.MappingProxyType({})
) -> list[dict[str, Any]]:
    """Every trainable parameter exactly once: matrices with weight decay, vectors (biases, LayerNorms) without.

    The shape decides, not the name: DistilBERT's LayerNorms have names that lists made for BERT miss.

    Args:
        module: what is trained.
        weight_decay: of the matrices.
        peak_rates: peak learning rates of parameters that have their own, by name. They form groups of their own.
    """
    trained = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = []
    for rate in (None, *sorted(set(peak_rates.values()))):
        with_rate = [parameter for name, parameter in trained if peak_rates.get(name) == rate]
        matrices = [parameter for parameter in with_rate if parameter.ndim > 1]
        vectors = [parameter for parameter in with_rate if parameter.ndim <= 1]
        own = {} if rate is None else {"lr": rate}
        groups.append({"params": matrices, "weight_decay": weight_decay, **own})
        groups.append({"params": vectors, "weight_decay": 0.0, **own})
    return groups


def build_optimizer(
    module: nn.Module, settings: OptimizationSettings, peak_rates: Mapping[str, float] = types.MappingProxyType({})
) -> AdamW:
    """AdamW over all trainable parameters of `module`, in its one-pass form; `peak_rates` as above."""
    return AdamW(
        parameter_groups(module, settings.weight_decay, peak_rates),
        lr=settings.learning_rate,
        betas=settings.betas,
        eps=settings.epsilon,
        fused=True,
    )


def build_schedule(optimizer: AdamW, settings: OptimizationSettings, total_steps: int) -> Callable[[int], float]:
    """The factor of the peak learning rates in an update, as a function of the number of updates before it.

    A function and not a scheduler's state, so that a resumed run has nothing to restore.
    """
    warmup = round(settings.warmup * total_steps)
    # Both warm-up and decay have an update at a rate of 0. That of the warm-up is skipped.
    skipped = 1 if warmup else 0
    scheduler = get_scheduler(
        settings.schedule, optimizer, num_warmup_steps=warmup, num_training_steps=total_steps + skipped
    )
    factor: Callable[[int], float] = scheduler.lr_lambdas[0]
    return lambda step: factor(step + skipped)
