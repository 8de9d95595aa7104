"""How fast a model file runs, and how large it is."""
