"""Labelled tasks, one YAML file each."""
