"""AdamW with its parameter groups and learning rate schedule."""

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.optim import AdamW
from transformers import get_scheduler

from distilrubert.common.training.training_settings import OptimizationSettings


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Every trainable parameter exactly once: matrices with weight decay, vectors (biases, LayerNorms) without.

    The shape decides, not the name: DistilBERT's LayerNorms have names that lists made for BERT miss.
    """
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return [
        {"params": [parameter for parameter in trained if parameter.ndim > 1], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trained if parameter.ndim <= 1], "weight_decay": 0.0},
    ]


def build_optimizer(module: nn.Module, settings: OptimizationSettings) -> AdamW:
    """AdamW over all trainable parameters of `module`, in its one-pass form."""
    return AdamW(
        parameter_groups(module, settings.weight_decay),
        lr=settings.learning_rate,
        betas=settings.betas,
        eps=settings.epsilon,
        fused=True,
    )


def build_schedule(optimizer: AdamW, settings: OptimizationSettings, total_steps: int) -> Callable[[int], float]:
    """The learning rate of an update as a function of the number of updates before it.

    A function and not a scheduler's state, so that a resumed run has nothing to restore.
    """
    warmup = round(settings.warmup * total_steps)
    # Both warm-up and decay have an update at a rate of 0. That of the warm-up is skipped.
    skipped = 1 if warmup else 0
    scheduler = get_scheduler(
        settings.schedule, optimizer, num_warmup_steps=warmup, num_training_steps=total_steps + skipped
    )
    factor: Callable[[int], float] = scheduler.lr_lambdas[0]
    return lambda step: settings.learning_rate * factor(step + skipped)
