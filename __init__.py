"""Distil a large encoder into a small, fast one and publish it on the Hugging Face Hub."""
