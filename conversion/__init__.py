"""Checkpoint in, files for every runtime out, and the proof that they agree."""
