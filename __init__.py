"""Distil a BERT teacher into a small, fast student and publish it on the Hugging Face Hub."""
