"""How fast and how good a model is."""
