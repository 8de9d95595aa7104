"""The kinds of tokenizers, one file each: WordPiece, Unigram and byte-level BPE."""

import json
from typing import Any, Final

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from distilrubert.common.errors import UserError
from distilrubert.modeling.tokenizer_kinds.byte_bpe import ByteBpe
from distilrubert.modeling.tokenizer_kinds.tokenizer_kind import TokenizerKind
from distilrubert.modeling.tokenizer_kinds.unigram import Unigram
from distilrubert.modeling.tokenizer_kinds.wordpiece_kind import WordPiece

KINDS: Final[tuple[type[TokenizerKind], ...]] = (WordPiece, Unigram, ByteBpe)


def kind_of(tokenizer: PreTrainedTokenizerFast, name: str = "teacher") -> TokenizerKind:
    """What the vocabulary of a tokenizer is; `name` is that of its model, for messages.

    Raises:
        UserError: if it is of another kind.
    """
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    model = state["model"]
    for kind in KINDS:
        if model["type"] == kind.model_type:
            if wrong := kind.refused(state):
                raise UserError(f"{name}: its tokenizer is a {model['type']} {wrong}; {kind.needed} is needed")
            return kind(model)
    known = ", ".join(kind.needed for kind in KINDS)
    raise UserError(f"{name}: its tokenizer is a {model['type']}; one of these is needed: {known}")


def plain_tokenizer(tokenizer: PreTrainedTokenizerFast) -> Tokenizer:
    """A copy of the tokenizer's engine for texts alone: without special tokens, truncation and padding.

    A special token's name in a text ("[MASK]", "<s>") is plain characters to it. Offsets are those of all characters
    that a token stands for, white space before a word included: what trims them is part of the post-processor.
    """
    engine: Tokenizer = Tokenizer.from_str(json.dumps(plain_state(tokenizer)))
    engine.encode_special_tokens = True
    return engine


def plain_state(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """What :func:`plain_tokenizer` is made from, as plain values."""
    state: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    state |= {"truncation": None, "padding": None, "post_processor": None}
    if state["model"]["type"] == Unigram.model_type:
        Unigram.forget_names(state)
    return state


def tokens_of(tokenizer: PreTrainedTokenizerFast, name: str = "teacher") -> list[str]:
    """The tokens in the order of their ids; `name` is that of the model, for messages.

    Raises:
        UserError: if an id between them has no token.
    """
    vocabulary = tokenizer.get_vocab()
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    if [vocabulary[token] for token in tokens] != list(range(len(tokens))):
        raise UserError(f"{name}: the ids of its tokenizer have gaps; they must be 0, 1, 2, ...")
    return tokens
