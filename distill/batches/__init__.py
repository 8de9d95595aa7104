"""Collators: which tokens of a batch are masked."""
