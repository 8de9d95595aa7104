"""How good a model is on labelled tasks; the YAML files here are the tasks that are shipped."""
