"""Vocabularies without the tokens that a corpus does not need.

WordPiece repeatedly takes the longest token that fits. So a dropped token changes only the words that used it: in all
other words each step finds the same longest token as before.

Axes: V tokens of a vocabulary, D width.
"""

import copy
import dataclasses
import json
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer
from tokenizers.models import WordPiece
from torch import nn
from transformers import AutoTokenizer, BertForMaskedLM, PreTrainedTokenizerFast

from distilrubert.common.errors import UserError
from distilrubert.common.persistence import read_json, write_json
from distilrubert.modeling.teacher import Teacher
from distilrubert.modeling.tokenizer_files import save_tokenizer

CONTINUATION = "##"
TEXTS_AT_ONCE = 1_000


def plain_tokenizer(tokenizer: PreTrainedTokenizerFast) -> Tokenizer:
    """A copy of the tokenizer's engine without truncation and padding, to which a "[MASK]" in a text is plain text.

    Raises:
        UserError: if it is not a WordPiece tokenizer with BERT's ``##``.
    """
    model = tokenizer.backend_tokenizer.model
    if not isinstance(model, WordPiece) or model.continuing_subword_prefix != CONTINUATION:
        raise UserError(
            f"student.vocabulary: needs a WordPiece tokenizer with {CONTINUATION!r} before tokens inside words; the "
            f"teacher's is a {type(model).__name__}"
        )
    engine: Tokenizer = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    engine.no_truncation()
    engine.no_padding()
    engine.encode_special_tokens = True
    return engine


def tokens_of(tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """The tokens in the order of their ids.

    Raises:
        UserError: if an id between them has no token.
    """
    vocabulary = tokenizer.get_vocab()
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    if [vocabulary[token] for token in tokens] != list(range(len(tokens))):
        raise UserError("teacher: the ids of its tokenizer have gaps; they must be 0, 1, 2, ...")
    return tokens


def longest_tokens(text: str, vocabulary: Collection[str], *, is_inside: bool = False) -> Iterator[str | None]:
    """The tokens that spell a word, or the inside of one, each the longest that fits; None at the end if none fits."""
    start = 0
    while start < len(text):
        prefix = CONTINUATION if start or is_inside else ""
        fitting = (end for end in range(len(text), start, -1) if prefix + text[start:end] in vocabulary)
        end = next(fitting, None)
        yield None if end is None else prefix + text[start:end]
        start = end or len(text)


def count_needed(tokenizer: PreTrainedTokenizerFast, texts: Iterable[str]) -> NDArray[np.int64]:
    """How often the tokenisation of `texts` needs each token, (V,).

    A word that becomes [UNK] needs [UNK] and the tokens found before nothing fitted: without these it might be
    tokenised otherwise.

    Raises:
        UserError: if it is not a WordPiece tokenizer.
    """
    engine, vocabulary = plain_tokenizer(tokenizer), tokenizer.get_vocab()
    counts_V = np.zeros(len(tokens_of(tokenizer)), dtype=np.int64)
    for batch in _batches(texts):
        ids = _ids(engine, batch)
        counts_V += np.bincount(np.concatenate(ids), minlength=len(counts_V))
        unknown = [text for text, found in zip(batch, ids, strict=True) if (found == tokenizer.unk_token_id).any()]
        for text, encoding in zip(unknown, engine.encode_batch(unknown, add_special_tokens=False), strict=True):
            for word in _unknown_words(engine, text, encoding, tokenizer.unk_token_id):
                if len(word) <= engine.model.max_input_chars_per_word:
                    found = [vocabulary[token] for token in longest_tokens(word, vocabulary) if token is not None]
                    np.add.at(counts_V, found, 1)
    return counts_V


def trim_tokenizer(
    tokenizer: PreTrainedTokenizerFast, counts_V: NDArray[np.int64], minimum_count: int = 1
) -> PreTrainedTokenizerFast:
    """A tokenizer with the tokens that :func:`count_needed` found at least `minimum_count` times.

    Special and added tokens stay, and all single characters with their ``##`` forms, so that dropped tokens can be
    spelled. The tokens keep their order; their ids become 0, 1, 2, ... A text whose counted tokens all stay is
    tokenised as before.

    Raises:
        UserError: if it is not a WordPiece tokenizer.
    """
    added = json.loads(plain_tokenizer(tokenizer).to_str())["added_tokens"]
    always = {token["content"] for token in added} | set(tokenizer.all_special_tokens)
    kept = [
        token
        for token, count in zip(tokens_of(tokenizer), counts_V, strict=True)
        if count >= minimum_count or token in always or len(token.removeprefix(CONTINUATION)) == 1
    ]
    return _with_vocabulary(tokenizer, kept)


def trim_teacher(teacher: Teacher, tokenizer: PreTrainedTokenizerFast) -> Teacher:
    """The teacher with only the tokens of `tokenizer`, a part of its own; their logits are unchanged.

    The result shares everything but the embeddings with `teacher`, which is not changed.

    Raises:
        UserError: if the teacher does not have one of the tokens.
    """
    rows_V = torch.from_numpy(ids_in(teacher.tokenizer, tokenizer))
    return dataclasses.replace(teacher, model=_with_rows(teacher.model, rows_V), tokenizer=tokenizer)


def ids_in(whole: PreTrainedTokenizerFast, part: PreTrainedTokenizerFast) -> NDArray[np.int64]:
    """The id in `whole` of each token of `part`, (V,).

    Raises:
        UserError: if `whole` does not have one of them.
    """
    vocabulary = whole.get_vocab()
    tokens = tokens_of(part)
    if strange := [token for token in tokens if token not in vocabulary]:
        raise UserError(f"student.vocabulary: the teacher's vocabulary has no token {strange[0]!r}")
    return np.array([vocabulary[token] for token in tokens], dtype=np.int64)


@dataclasses.dataclass(frozen=True)
class Resplit:
    """What a trimmed vocabulary changes in texts.

    Attributes:
        tokens: number of tokens with the whole vocabulary.
        dropped: number of these that the trimmed vocabulary does not have.
        texts: number of texts.
        changed: number of texts that are tokenised differently.
    """

    tokens: int
    dropped: int
    texts: int
    changed: int


def measure_resplit(whole: PreTrainedTokenizerFast, trimmed: PreTrainedTokenizerFast, texts: Iterable[str]) -> Resplit:
    """Tokenise `texts` with both vocabularies and count what differs."""
    engines = plain_tokenizer(whole), plain_tokenizer(trimmed)
    rows_V = ids_in(whole, trimmed)
    is_kept_V = np.isin(np.arange(len(whole)), rows_V)
    tokens = dropped = number = changed = 0
    for batch in _batches(texts):
        for ids, ids_trimmed in zip(*(_ids(engine, batch) for engine in engines), strict=True):
            tokens += len(ids)
            dropped += int(np.sum(~is_kept_V[ids]))
            changed += not np.array_equal(ids, rows_V[ids_trimmed])
        number += len(batch)
    return Resplit(tokens, dropped, number, changed)


def count_tokens(tokenizer: PreTrainedTokenizerFast, texts: Iterable[str]) -> tuple[int, int]:
    """Number of tokens of `texts`, without [CLS] and [SEP], and number of [UNK] among them."""
    engine, tokens, unknown = plain_tokenizer(tokenizer), 0, 0
    for batch in _batches(texts):
        for ids in _ids(engine, batch):
            tokens += len(ids)
            unknown += int(np.sum(ids == tokenizer.unk_token_id))
    return tokens, unknown


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    remaining = iter(texts)
    while batch := list(islice(remaining, TEXTS_AT_ONCE)):
        yield batch


def _ids(engine: Tokenizer, texts: list[str]) -> list[NDArray[np.int64]]:
    encodings = engine.encode_batch_fast(texts, add_special_tokens=False)
    return [np.array(encoding.ids, dtype=np.int64) for encoding in encodings]


def _unknown_words(engine: Tokenizer, text: str, encoding: Encoding, unknown_id: int) -> Iterator[str]:
    for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
        if token == unknown_id:
            yield engine.normalizer.normalize_str(text[start:end]) if engine.normalizer else text[start:end]


def _with_vocabulary(tokenizer: PreTrainedTokenizerFast, tokens: Sequence[str]) -> PreTrainedTokenizerFast:
    """The same kind of tokenizer with other ids, loaded from files as users will load it."""
    ids = {token: number for number, token in enumerate(tokens)}
    with tempfile.TemporaryDirectory() as folder:
        save_tokenizer(tokenizer, folder)
        Path(folder, "vocab.txt").write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")
        state = read_json(Path(folder, "tokenizer.json"))
        state["model"]["vocab"] = ids
        for token in state["added_tokens"]:
            token["id"] = ids[token["content"]]
        state["added_tokens"].sort(key=lambda token: token["id"])
        _renumber(state["post_processor"], ids)
        write_json(Path(folder, "tokenizer.json"), state)
        config = read_json(Path(folder, "tokenizer_config.json"))
        if "added_tokens_decoder" in config:
            added = config["added_tokens_decoder"].values()
            config["added_tokens_decoder"] = {str(ids[token["content"]]): token for token in added}
        write_json(Path(folder, "tokenizer_config.json"), config)
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


def _renumber(processor: dict[str, Any] | None, ids: dict[str, int]) -> None:
    """Put the new ids into the post-processor, which adds [CLS] and [SEP], in both forms that tokenizers writes."""
    for added in (processor or {}).get("special_tokens", {}).values():
        added["ids"] = [ids[token] for token in added["tokens"]]
    for key in ("sep", "cls"):
        if processor and key in processor:
            processor[key] = [processor[key][0], ids[processor[key][0]]]


def _with_rows(model: BertForMaskedLM, rows_V: torch.Tensor) -> BertForMaskedLM:
    """The model with these rows of its tied embeddings and of the output bias; it shares everything else."""
    predictions = model.cls.predictions
    whole = {model.bert.embeddings.word_embeddings.weight, predictions.decoder.weight, predictions.decoder.bias}
    shared = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()] if tensor not in whole}
    shared |= {id(tensor): nn.Parameter(tensor.detach()[rows_V], tensor.requires_grad) for tensor in whole}
    trimmed = copy.deepcopy(model, shared)
    trimmed.config.vocab_size = len(rows_V)
    embeddings = trimmed.bert.embeddings.word_embeddings
    embeddings.num_embeddings = trimmed.cls.predictions.decoder.out_features = len(rows_V)
    pad_id = model.bert.embeddings.word_embeddings.padding_idx
    if pad_id is not None:
        embeddings.padding_idx = int((rows_V == pad_id).nonzero()) if (rows_V == pad_id).any() else None
        trimmed.config.pad_token_id = embeddings.padding_idx
    return trimmed
