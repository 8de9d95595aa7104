"""Vocabularies without the tokens that a corpus does not need.

A text whose tokens all stay is tokenised as before: :mod:`.tokenizer_kinds` says why, kind by kind.

Axes: V tokens of a vocabulary, D width.
"""

import copy
import dataclasses
import json
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from distilrubert.common.bars import tracked
from distilrubert.common.errors import UserError
from distilrubert.modeling.scripts import is_of_scripts, script_of
from distilrubert.modeling.teacher import Teacher
from distilrubert.modeling.tokenizer_files import rewritten
from distilrubert.modeling.tokenizer_kinds import kind_of, plain_tokenizer, tokens_of
from distilrubert.modeling.tokenizer_kinds.tokenizer_kind import TokenizerKind
from distilrubert.modeling.vocabulary_settings import TrimSettings

TEXTS_AT_ONCE = 1_000
COUNTS = "counts.npy"


def count_needed(tokenizer: PreTrainedTokenizerFast, texts: Iterable[str]) -> NDArray[np.int64]:
    """How often the tokenisation of `texts` needs each token, (V,).

    A word of WordPiece that becomes [UNK] needs [UNK] and the tokens found before nothing fitted: without these it
    might be tokenised otherwise.

    Raises:
        UserError: if it is no tokenizer of a known kind.
    """
    kind, engine, vocabulary = kind_of(tokenizer), plain_tokenizer(tokenizer), tokenizer.get_vocab()
    counts_V = np.zeros(len(tokens_of(tokenizer)), dtype=np.int64)
    for batch in tracked(_batches(texts), "counting tokens", unit=f"batch of {TEXTS_AT_ONCE} texts"):
        ids = _ids(engine, batch)
        counts_V += np.bincount(np.concatenate(ids), minlength=len(counts_V))
        for token in kind.needed_for_unknown(engine, batch, ids):
            counts_V[vocabulary[token]] += 1
    return counts_V


def save_needed(tokenizer: PreTrainedTokenizerFast, texts: Iterable[str], folder: Path) -> None:
    """Leave :func:`count_needed` of texts in a folder."""
    np.save(folder / COUNTS, count_needed(tokenizer, texts))


def load_needed(folders: Iterable[Path]) -> NDArray[np.int64]:
    """What :func:`save_needed` has left in several folders, added up, (V,)."""
    counts_V: NDArray[np.int64] = sum(np.load(folder / COUNTS, allow_pickle=False) for folder in folders)
    return counts_V


def trim_tokenizer(
    tokenizer: PreTrainedTokenizerFast, counts_V: NDArray[np.int64], settings: TrimSettings | None = None
) -> PreTrainedTokenizerFast:
    """A tokenizer with the tokens that :func:`count_needed` found often enough, and those that always stay.

    These are special and added tokens, what `settings` names, and what the kind of tokenizer cannot do without. With
    each token stay the merges that build it, where there are such. The tokens keep their order; their ids become
    0, 1, 2, ... A text whose counted tokens all stay is tokenised as before.

    Raises:
        UserError: if it is no tokenizer of a known kind.
    """
    kind, settings = kind_of(tokenizer), settings or TrimSettings()
    tokens = tokens_of(tokenizer)
    fixed = _added_tokens(tokenizer) | set(tokenizer.all_special_tokens)
    counts = dict(zip(tokens, counts_V.tolist(), strict=True))
    needed = dict(counts)
    for token in tokens:
        if counts[token] and token not in fixed:
            for part in kind.parts_of(token):
                needed[part] += counts[token]
    kept = {token for token in tokens if needed[token] >= settings.minimum_count or _stays(kind, token, settings)}
    kept |= set(kind.indispensable())
    kept |= {part for token in kept - fixed for part in kind.parts_of(token)}
    return _with_tokens(tokenizer, kind, [token for token in tokens if token in kept or token in fixed])


def trim_teacher(teacher: Teacher, tokenizer: PreTrainedTokenizerFast) -> Teacher:
    """The teacher with only the tokens of `tokenizer`, a part of its own; what it computes of them is unchanged.

    The result shares everything but the embeddings with `teacher`, which is not changed.

    Raises:
        UserError: if the teacher does not have one of the tokens.
    """
    model = trim_model(teacher.model, ids_in(teacher.tokenizer, tokenizer))
    return dataclasses.replace(teacher, model=model, tokenizer=tokenizer)


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


def could_be_trimmed_to(whole: PreTrainedTokenizerFast, part: PreTrainedTokenizerFast) -> bool:
    """Whether :func:`trim_tokenizer` can make `part` of `whole`: its tokens in their order, split in the same way."""
    states = [json.loads(tokenizer.backend_tokenizer.to_str()) for tokenizer in (whole, part)]
    if any(states[0][step] != states[1][step] for step in ("normalizer", "pre_tokenizer", "decoder")):
        return False
    remaining = iter(tokens_of(whole))
    # Looking for a token uses the iterator up to it, so the next one has to come behind it.
    return all(token in remaining for token in tokens_of(part))


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


def _added_tokens(tokenizer: PreTrainedTokenizerFast) -> set[str]:
    return {token["content"] for token in json.loads(tokenizer.backend_tokenizer.to_str())["added_tokens"]}


def _stays(kind: TokenizerKind, token: str, settings: TrimSettings) -> bool:
    """Whether a token stays for what it stands for: a character or a part of one, or text in one of the scripts."""
    found = kind.text_of(token)
    if found is None:
        return True
    if settings.keep_scripts and is_of_scripts(found.text, settings.keep_scripts):
        return True
    if len(found.text) != 1:
        return False
    letters, is_letter = settings.keep_letters, unicodedata.category(found.text).startswith("L")
    return letters is None or not is_letter or script_of(found.text) in letters


def _with_tokens(
    tokenizer: PreTrainedTokenizerFast, kind: TokenizerKind, tokens: Sequence[str]
) -> PreTrainedTokenizerFast:
    """The same kind of tokenizer with other ids."""
    ids = {token: number for number, token in enumerate(tokens)}

    def renumber(state: dict[str, Any], config: dict[str, Any]) -> None:
        state["model"] = kind.model_with(tokens)
        for token in state["added_tokens"]:
            token["id"] = ids[token["content"]]
        state["added_tokens"].sort(key=lambda token: token["id"])
        _renumber(state["post_processor"], ids)
        if "added_tokens_decoder" in config:
            added = config["added_tokens_decoder"].values()
            config["added_tokens_decoder"] = {str(ids[token["content"]]): token for token in added}

    made = rewritten(tokenizer, renumber)
    assert made.get_vocab() == ids
    return made


def _renumber(processor: dict[str, Any] | None, ids: dict[str, int]) -> None:
    """Put the new ids into the post-processor, which adds [CLS] and [SEP], in all forms that tokenizers writes."""
    for part in (processor or {}).get("processors", []):
        _renumber(part, ids)
    for added in (processor or {}).get("special_tokens", {}).values():
        added["ids"] = [ids[token] for token in added["tokens"]]
    for key in ("sep", "cls"):
        if processor and key in processor:
            processor[key] = [processor[key][0], ids[processor[key][0]]]


def trim_model(model: PreTrainedModel, ids_V: NDArray[np.int64]) -> PreTrainedModel:
    """The model with these rows of its embeddings and of its decoder, if it has one; it shares everything else.

    Args:
        model: any model with word embeddings; it is not changed.
        ids_V: the rows, in the order of their new ids.
    """
    rows_V = torch.from_numpy(ids_V)
    words, decoder = model.get_input_embeddings(), model.get_output_embeddings()
    whole = {words.weight} | ({decoder.weight, decoder.bias} if decoder else set()) - {None}
    shared = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()] if tensor not in whole}
    shared |= {id(tensor): nn.Parameter(tensor.detach()[rows_V], tensor.requires_grad) for tensor in whole}
    trimmed = copy.deepcopy(model, shared)
    trimmed.config.vocab_size = trimmed.get_input_embeddings().num_embeddings = len(rows_V)
    if decoder:
        trimmed.get_output_embeddings().out_features = len(rows_V)
    new_ids = {int(old): new for new, old in enumerate(ids_V)}
    _move_positions(trimmed, new_ids)
    for name, old in trimmed.config.to_dict().items():
        if name.endswith("_token_id") and isinstance(old, int):
            setattr(trimmed.config, name, new_ids.get(old))
    return trimmed


def _move_positions(model: PreTrainedModel, new_ids: dict[int, int]) -> None:
    """Give the padding token's row its new place, also in positions that are counted from it, as RoBERTa's are."""
    words = model.get_input_embeddings()
    if words.padding_idx is None:
        return
    old, new = words.padding_idx, new_ids.get(words.padding_idx)
    words.padding_idx = new
    embeddings = model.base_model.embeddings
    positions = getattr(embeddings, "position_embeddings", None)
    if positions is not None and positions.padding_idx is not None:
        assert new is not None
        weight = positions.weight
        positions.weight = nn.Parameter(weight.detach()[old - new :].clone(), weight.requires_grad)
        positions.num_embeddings = model.config.max_position_embeddings = len(positions.weight)
        embeddings.padding_idx = positions.padding_idx = new
