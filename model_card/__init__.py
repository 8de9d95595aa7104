"""Reports in, the README.md of the model repository out."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distilrubert.model_card.card import render_card, write_card
    from distilrubert.model_card.inputs import CardInput, read_card_input
    from distilrubert.model_card.preview import write_preview
    from distilrubert.model_card.settings import CardSettings

__all__ = ["CardInput", "CardSettings", "read_card_input", "render_card", "write_card", "write_preview"]

# Matplotlib and the models' code take seconds to load, which `--help` and a mistyped recipe must not cost.
_HOMES = {
    "CardInput": "inputs",
    "CardSettings": "settings",
    "read_card_input": "inputs",
    "render_card": "card",
    "write_card": "card",
    "write_preview": "preview",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
