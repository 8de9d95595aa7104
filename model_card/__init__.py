"""Reports in, the README.md of the model repository out."""

from distilrubert.model_card.settings import CardSettings

__all__ = ["CardSettings"]
