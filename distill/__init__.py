"""Corpus and teacher in, student checkpoint out."""
