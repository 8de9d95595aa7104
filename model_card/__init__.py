"""Reports in, the README.md of the model repository out."""

from distilrubert.model_card.card import render_card, write_card
from distilrubert.model_card.inputs import CardInput, read_card_input
from distilrubert.model_card.preview import write_preview
from distilrubert.model_card.settings import CardSettings

__all__ = ["CardInput", "CardSettings", "read_card_input", "render_card", "write_card", "write_preview"]
