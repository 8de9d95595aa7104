"""How fast and how good a model is: speed, prediction of held-out text, labelled tasks."""
