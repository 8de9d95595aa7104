"""How good the vectors of sentences are, as they come: nothing is fine-tuned."""
