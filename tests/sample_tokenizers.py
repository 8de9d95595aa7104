"""Small tokenizers of every kind, made as those that people use are made; ``KINDS`` has a maker for each."""

import itertools
import struct
from collections.abc import Callable

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from distilrubert.modeling.wordpiece import train_wordpiece

# Some of what SentencePiece's normaliser rewrites: ligatures, signs in a circle, й in two code points, white space.
REWRITTEN = {"ﬁ": "fi", "①": "1", "Å": "Å", "½": "1⁄2", "и\u0306": "й", "е\u0308": "ё", "\u3000": " ", "\u00a0": " "}
MAX_LENGTH = 64


def wordpiece(texts: list[str]) -> PreTrainedTokenizerFast:
    """As BERT's: cased."""
    return train_wordpiece(texts, size=220, max_length=MAX_LENGTH).tokenizer


def unigram(texts: list[str]) -> PreTrainedTokenizerFast:
    """As XLM-R's: a precompiled normaliser, words split at white space, <mask> that takes the space before it."""
    engine = Tokenizer(models.Unigram())
    engine.normalizer = normalizers.Precompiled(precompiled(REWRITTEN))
    engine.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    engine.decoder = decoders.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=220, special_tokens=special, unk_token="<unk>", show_progress=False, max_piece_length=8
    )
    engine.train_from_iterator(texts, trainer)
    engine.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=False)])
    ends = [(token, engine.token_to_id(token)) for token in ("<s>", "</s>")]
    engine.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=ends
    )
    return _named(engine, cls="<s>", sep="</s>", pad="<pad>", unk="<unk>", mask="<mask>")


def roberta_bpe(texts: list[str]) -> PreTrainedTokenizerFast:
    """As RoBERTa's: bytes, special tokens first, offsets trimmed, a space put before the text."""
    engine = _byte_bpe(texts, ["<s>", "<pad>", "</s>", "<unk>"], add_prefix_space=True)
    engine.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=False)])
    engine.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=True)
    return _named(engine, cls="<s>", sep="</s>", pad="<pad>", unk="<unk>", mask="<mask>")


def modernbert_bpe(texts: list[str]) -> PreTrainedTokenizerFast:
    """As ModernBERT's: bytes after NFC, runs of spaces that are added tokens, and special tokens last."""
    engine = _byte_bpe(texts, [], add_prefix_space=False)
    engine.normalizer = normalizers.NFC()
    engine.add_tokens([AddedToken("  ", normalized=False), AddedToken("   ", normalized=False)])
    engine.add_special_tokens(["[UNK]", "[CLS]", "[SEP]", "[PAD]", AddedToken("[MASK]", lstrip=True, normalized=False)])
    ends = [(token, engine.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    engine.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    return _named(engine, cls="[CLS]", sep="[SEP]", pad="[PAD]", unk="[UNK]", mask="[MASK]")


KINDS: dict[str, Callable[[list[str]], PreTrainedTokenizerFast]] = {
    "wordpiece": wordpiece,
    "unigram": unigram,
    "roberta-bpe": roberta_bpe,
    "modernbert-bpe": modernbert_bpe,
}


def _byte_bpe(texts: list[str], special: list[str], *, add_prefix_space: bool) -> Tokenizer:
    engine = Tokenizer(models.BPE())
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    engine.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=480,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    engine.train_from_iterator(texts, trainer)
    return engine


def _named(engine: Tokenizer, **names: str) -> PreTrainedTokenizerFast:
    tokens = {
        f"{role}_token": engine.get_added_tokens_decoder()[engine.token_to_id(name)] for role, name in names.items()
    }
    return PreTrainedTokenizerFast(
        tokenizer_object=engine,
        model_max_length=MAX_LENGTH,
        model_input_names=["input_ids", "attention_mask"],
        **tokens,
    )


def precompiled(rules: dict[str, str]) -> bytes:
    """A SentencePiece normaliser in its own form: a double-array trie of UTF-8 keys, and the texts they become."""
    texts, starts = b"", {}
    for key, value in rules.items():
        starts[key.encode()] = len(texts)
        texts += value.encode() + b"\0"
    prefixes = sorted({key[:end] for key in starts for end in range(len(key) + 1)})
    # The children of a node lie in a block of 256 units of its own.
    base = dict(zip(prefixes, itertools.count(256, 256), strict=False))
    units = [0] * (256 * (len(base) + 1))
    for node, first in base.items():
        place = first_unit = 0 if not node else base[node[:-1]] ^ node[-1]
        units[place] = (first_unit ^ first) << 10 | (node in starts) << 8 | (node[-1] if node else 0)
        if node in starts:
            units[first] = starts[node]
    return struct.pack(f"<I{len(units)}I", 4 * len(units), *units) + texts
