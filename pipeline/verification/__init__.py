"""Verification of a model repository: each statement of its card and reports is checked."""
