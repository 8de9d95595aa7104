"""The checkpoint that files are made of, and texts as long as it takes."""

from collections.abc import Sequence

from distilrubert.modeling.checkpoints import Checkpoint

FULL_LENGTH_TEXTS = 8
"""Texts of the model's full length, to calibrate on and to compare on beside single sentences."""


def longest_input(checkpoint: Checkpoint) -> int:
    """The largest number of tokens that a model takes."""
    return int(checkpoint.tokenizer.model_max_length)


def full_length_texts(checkpoint: Checkpoint, texts: Sequence[str]) -> list[str]:
    """:data:`FULL_LENGTH_TEXTS` texts of at least as many tokens as the model takes, joined from shorter ones.

    Each begins at another place in `texts`, and goes on with the first text after the last one.
    """
    # The tokenizer warns of every text that is longer than the model takes.
    encoded = checkpoint.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    lengths = [len(ids) for ids in encoded]
    starts = [place * len(texts) // FULL_LENGTH_TEXTS for place in range(FULL_LENGTH_TEXTS if any(lengths) else 0)]
    return [_joined(texts, lengths, start, longest_input(checkpoint)) for start in starts]


def _joined(texts: Sequence[str], lengths: Sequence[int], start: int, tokens: int) -> str:
    joined: list[str] = []
    total = 0
    while total < tokens:
        index = (start + len(joined)) % len(texts)
        joined.append(texts[index])
        total += lengths[index]
    return " ".join(joined)
