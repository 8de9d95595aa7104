"""The losses of a distillation as its report describes them."""

from typing import Any

from distilrubert.common.measurements import Measurements


def losses_of(training: Measurements | None) -> dict[str, dict[str, Any]]:
    """Weight, title and meaning of each loss with a weight above 0, by its name.

    Older reports do not describe the losses. There the names of the settings stand for both.
    """
    if training is None:
        return {}
    settings = training.details["settings"]
    weights = settings.get("weights", {})
    losses = training.details.get("losses") or {
        name: {"weight": weight, "title": name, "meaning": name} for name, weight in weights.items()
    }
    return {name: loss for name, loss in losses.items() if loss["weight"]}
