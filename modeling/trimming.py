"""Vocabularies without the pieces that a corpus does not need.

WordPiece takes the longest piece that fits, again and again. So a piece that is dropped can change only words on whose
way it lay: with the others, each step finds the same longest piece as before.

Axes: V pieces of a vocabulary, D width.
"""

import copy
import dataclasses
import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
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
    """A copy of the tokenizer's engine that neither cuts, pads, nor takes a "[MASK]" in a text for the token.

    Raises:
        UserError: if it is no WordPiece tokenizer with BERT's ``##``.
    """
    model = tokenizer.backend_tokenizer.model
    if not isinstance(model, WordPiece) or model.continuing_subword_prefix != CONTINUATION:
        raise UserError(
            f"student.vocabulary: needs a WordPiece tokenizer with {CONTINUATION!r} before pieces inside words, and "
            f"the teacher's is a {type(model).__name__}"
        )
    engine: Tokenizer = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    engine.no_truncation()
    engine.no_padding()
    engine.encode_special_tokens = True
    return engine


def pieces_of(tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """The pieces in the order of their ids.

    Raises:
        UserError: if there are ids without a piece between them.
    """
    vocabulary = tokenizer.get_vocab()
    pieces = sorted(vocabulary, key=vocabulary.__getitem__)
    if [vocabulary[piece] for piece in pieces] != list(range(len(pieces))):
        raise UserError("teacher: the ids of its tokenizer have gaps; they must be 0, 1, 2, ...")
    return pieces


def count_pieces(tokenizer: PreTrainedTokenizerFast, texts: Iterable[str]) -> NDArray[np.int64]:
    """How often the tokenisation of `texts` needs each piece, (V,).

    A word that becomes [UNK] needs [UNK], and the pieces that led to where nothing fitted: without them it might
    become something else.

    Raises:
        UserError: if it is no WordPiece tokenizer.
    """
    engine = plain_tokenizer(tokenizer)
    counts_V = np.zeros(len(pieces_of(tokenizer)), dtype=np.int64)
    for block in _blocks(texts):
        ids = _ids(engine, block)
        counts_V += np.bincount(np.concatenate(ids), minlength=len(counts_V))
        unknown = [text for text, own in zip(block, ids, strict=True) if (own == tokenizer.unk_token_id).any()]
        for text, encoding in zip(unknown, engine.encode_batch(unknown, add_special_tokens=False), strict=True):
            for word in _unknown_words(engine, text, encoding, tokenizer.unk_token_id):
                np.add.at(counts_V, _steps_before_failure(engine, word), 1)
    return counts_V


def trim_tokenizer(
    tokenizer: PreTrainedTokenizerFast, counts_V: NDArray[np.int64], minimum_count: int = 1
) -> PreTrainedTokenizerFast:
    """A tokenizer of the pieces that are needed at least `minimum_count` times.

    Special and added tokens stay, and all single characters with their ``##`` forms: what is dropped can still be
    spelt. The pieces keep their order; their ids become 0, 1, 2, ... A text whose counted pieces all stay is tokenised
    as before.

    Args:
        tokenizer: that of the counts.
        counts_V: from :func:`count_pieces`.
        minimum_count: of the pieces that stay.

    Raises:
        UserError: if it is no WordPiece tokenizer.
    """
    added = json.loads(plain_tokenizer(tokenizer).to_str())["added_tokens"]
    always = {token["content"] for token in added} | set(tokenizer.all_special_tokens)
    kept = [
        piece
        for piece, count in zip(pieces_of(tokenizer), counts_V, strict=True)
        if count >= minimum_count or piece in always or len(piece.removeprefix(CONTINUATION)) == 1
    ]
    return _with_pieces(tokenizer, kept)


def trim_teacher(teacher: Teacher, tokenizer: PreTrainedTokenizerFast) -> Teacher:
    """The teacher with the pieces of `tokenizer` alone: the logits over these are its own.

    Args:
        teacher: it is left as it is; all but the embeddings is shared.
        tokenizer: one that :func:`trim_tokenizer` made from the teacher's.

    Raises:
        UserError: if the teacher does not know one of the pieces.
    """
    rows_V = torch.from_numpy(ids_in(teacher.tokenizer, tokenizer))
    return dataclasses.replace(teacher, model=_with_rows(teacher.model, rows_V), tokenizer=tokenizer)


def ids_in(whole: PreTrainedTokenizerFast, part: PreTrainedTokenizerFast) -> NDArray[np.int64]:
    """For each piece of `part` its id in `whole`, (V,).

    Raises:
        UserError: if one is missing there.
    """
    vocabulary = whole.get_vocab()
    pieces = pieces_of(part)
    if strange := [piece for piece in pieces if piece not in vocabulary]:
        raise UserError(f"student.vocabulary: the teacher's vocabulary has no piece {strange[0]!r}")
    return np.array([vocabulary[piece] for piece in pieces], dtype=np.int64)


@dataclasses.dataclass(frozen=True)
class Resplit:
    """What a trimmed vocabulary changes in a text.

    Attributes:
        tokens: tokens in the whole vocabulary.
        dropped: those of them whose piece was dropped.
        texts: texts.
        changed: those of them that are tokenised differently.
    """

    tokens: int
    dropped: int
    texts: int
    changed: int

    @property
    def token_share(self) -> float:
        """The part of the tokens that is split anew."""
        return self.dropped / self.tokens if self.tokens else 0.0

    @property
    def text_share(self) -> float:
        """The part of the texts that is tokenised differently."""
        return self.changed / self.texts if self.texts else 0.0


def measure_resplit(whole: PreTrainedTokenizerFast, trimmed: PreTrainedTokenizerFast, texts: Iterable[str]) -> Resplit:
    """Tokenise `texts` with both vocabularies and count what differs."""
    engines = plain_tokenizer(whole), plain_tokenizer(trimmed)
    rows_V = ids_in(whole, trimmed)
    is_kept_V = np.isin(np.arange(len(whole)), rows_V)
    tokens = dropped = number = changed = 0
    for block in _blocks(texts):
        for ids, own in zip(*(_ids(engine, block) for engine in engines), strict=True):
            tokens += len(ids)
            dropped += int(np.sum(~is_kept_V[ids]))
            changed += not np.array_equal(ids, rows_V[own])
        number += len(block)
    return Resplit(tokens, dropped, number, changed)


@dataclasses.dataclass(frozen=True)
class TokenCount:
    """How many ids texts have, special ones not counted, and how many of these are [UNK]."""

    tokens: int
    unknown: int

    @property
    def unknown_share(self) -> float:
        """Share of [UNK] in the tokens; 0 of no text."""
        return self.unknown / self.tokens if self.tokens else 0.0


def count_tokens(tokenizer: PreTrainedTokenizerFast, texts: Iterable[str]) -> TokenCount:
    """Tokenise `texts` and count."""
    engine, tokens, unknown = plain_tokenizer(tokenizer), 0, 0
    for block in _blocks(texts):
        for ids in _ids(engine, block):
            tokens += len(ids)
            unknown += int(np.sum(ids == tokenizer.unk_token_id))
    return TokenCount(tokens, unknown)


def _blocks(texts: Iterable[str]) -> Iterator[list[str]]:
    remaining = iter(texts)
    while block := list(islice(remaining, TEXTS_AT_ONCE)):
        yield block


def _ids(engine: Tokenizer, texts: list[str]) -> list[NDArray[np.int64]]:
    encodings = engine.encode_batch_fast(texts, add_special_tokens=False)
    return [np.array(encoding.ids, dtype=np.int64) for encoding in encodings]


def _unknown_words(engine: Tokenizer, text: str, encoding: Encoding, unknown_id: int) -> Iterator[str]:
    for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
        if token == unknown_id:
            yield engine.normalizer.normalize_str(text[start:end]) if engine.normalizer else text[start:end]


def _steps_before_failure(engine: Tokenizer, word: str) -> list[int]:
    """The ids of the pieces that are found in a word before nothing fits."""
    steps: list[int] = []
    start = 0
    while start < len(word) <= engine.model.max_input_chars_per_word:
        prefix = CONTINUATION if start else ""
        ends = (end for end in range(len(word), start, -1) if engine.token_to_id(prefix + word[start:end]) is not None)
        end = next(ends, None)
        if end is None:
            break
        steps.append(engine.token_to_id(prefix + word[start:end]))
        start = end
    return steps


def _with_pieces(tokenizer: PreTrainedTokenizerFast, pieces: Sequence[str]) -> PreTrainedTokenizerFast:
    """The same kind of tokenizer with other ids, read back from files, so that it is what every user will load."""
    ids = {piece: number for number, piece in enumerate(pieces)}
    with tempfile.TemporaryDirectory() as folder:
        save_tokenizer(tokenizer, folder)
        Path(folder, "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces), encoding="utf-8")
        state = read_json(Path(folder, "tokenizer.json"))
        state["model"]["vocab"] = ids
        for token in state["added_tokens"]:
            token["id"] = ids[token["content"]]
        state["added_tokens"].sort(key=lambda token: token["id"])
        _renumber(state["post_processor"], ids)
        write_json(Path(folder, "tokenizer.json"), state)
        config = read_json(Path(folder, "tokenizer_config.json"))
        if "added_tokens_decoder" in config:
            tokens = config["added_tokens_decoder"].values()
            config["added_tokens_decoder"] = {str(ids[token["content"]]): token for token in tokens}
        write_json(Path(folder, "tokenizer_config.json"), config)
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


def _renumber(processor: dict[str, Any] | None, ids: dict[str, int]) -> None:
    """Put the new ids into what adds [CLS] and [SEP], in either of the two forms that tokenizers writes."""
    for token in (processor or {}).get("special_tokens", {}).values():
        token["ids"] = [ids[piece] for piece in token["tokens"]]
    for key in ("sep", "cls"):
        if processor and key in processor:
            processor[key] = [processor[key][0], ids[processor[key][0]]]


def _with_rows(model: BertForMaskedLM, rows_V: torch.Tensor) -> BertForMaskedLM:
    """The model with these rows of its tied embeddings and of the output bias; it shares all the rest."""
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
