"""Teachers: BERT masked language models, loaded whole or refused, or new ones to pretrain."""

import dataclasses
import hashlib
import json
import logging
import os
from typing import Any

import torch
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast
from transformers.activations import ACT2FN

from distilrubert.common.errors import UserError
from distilrubert.common.persistence import atomic_folder
from distilrubert.modeling.checkpoints import (
    checkpoint_folder,
    load_fast_tokenizer,
    load_masked_lm,
    read_config,
    save_checkpoint,
)

logger = logging.getLogger(__name__)

DISTILBERT_LAYER_NORM_EPS = 1e-12


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A BERT that a student learns from.

    Attributes:
        model: in fp32. A loaded one is in evaluation mode, without gradients.
        tokenizer: its fast tokenizer, `model_max_length` within the model's positions.
        name: as given: a Hub id or a folder.
        revision: as given; None for a folder or the Hub's ``main``.
    """

    model: BertForMaskedLM
    tokenizer: PreTrainedTokenizerFast
    name: str
    revision: str | None = None

    def sha256(self) -> str:
        """A hash of all that decides what it computes: what it is, wherever it lies and whatever it is called."""
        config = self.model.config
        decides = [str(config.hidden_act), config.layer_norm_eps, config.num_attention_heads]
        digest = hashlib.sha256(json.dumps(decides).encode())
        for name, weight in sorted(self.model.named_parameters()):
            digest.update(f"{name} {tuple(weight.shape)} ".encode())
            digest.update(weight.detach().cpu().contiguous().numpy().data)
        return digest.hexdigest()


def load_teacher(model: str | os.PathLike[str], revision: str | None = None) -> Teacher:
    """Load a BERT of any width and language, its weights in fp32, for reading only.

    A LayerNorm epsilon other than DistilBERT's fixed 1e-12 is warned of, not refused: a student then starts with
    outputs a little off the teacher's (each LayerNorm scales by √((σ²+ε)/(σ²+1e-12)), about ε/2σ² too much),
    which training takes up.

    Args:
        model: a folder, or the id of a model on the Hub.
        revision: branch, tag or commit on the Hub.

    Raises:
        UserError: if it cannot be found or read, is no BERT encoder with a trained and tied masked-language
            head, has a weight that is infinite or NaN, computes what no DistilBERT can (relative positions, causal
            attention), or has no fast tokenizer that fits.
    """
    name = os.fspath(model)
    folder = checkpoint_folder(model, revision)
    _check_carried(read_config(folder, name, "bert"), name)
    bert = load_masked_lm(BertForMaskedLM, folder, name)
    _check_finite(bert, name)
    tokenizer = load_fast_tokenizer(folder, name, bert.config.vocab_size, bert.config.max_position_embeddings)
    return Teacher(bert.requires_grad_(False), tokenizer, name, revision)


def new_teacher(tokenizer: PreTrainedTokenizerFast, *, seed: int, **sizes: int) -> Teacher:
    """A BERT with random weights over `tokenizer`'s vocabulary, to be pretrained; its parameters have gradients.

    Args:
        tokenizer: its length is the vocabulary, its `model_max_length` the number of positions.
        seed: of the random weights; the global generator is not used.
        sizes: as for :func:`new_config`.

    Raises:
        UserError: if `heads` do not divide `dim`.
    """
    config = new_config(len(tokenizer), tokenizer.model_max_length, **sizes)
    config.pad_token_id = tokenizer.pad_token_id
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BertForMaskedLM(config)
    return Teacher(model.eval(), tokenizer, "new teacher")


def new_config(
    vocabulary_size: int, max_positions: int, *, layers: int, dim: int, heads: int, hidden_dim: int
) -> BertConfig:
    """The configuration of such a teacher.

    Args:
        vocabulary_size: tokens.
        max_positions: tokens of the longest sequence.
        layers: transformer layers.
        dim: width of the hidden states.
        heads: attention heads of a layer.
        hidden_dim: width inside the feed-forward networks.

    Raises:
        UserError: if `heads` do not divide `dim`.
    """
    if dim % heads:
        raise UserError(f"teacher.pretrain.heads: {heads} heads do not divide the width {dim}")
    return BertConfig(
        vocab_size=vocabulary_size,
        hidden_size=dim,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=hidden_dim,
        max_position_embeddings=max_positions,
    )


def save_teacher(teacher: Teacher, folder: str | os.PathLike[str]) -> None:
    """Write config, weights and tokenizer as a folder that :func:`load_teacher` reads; complete or absent.

    Raises:
        UserError: if it cannot be written; an existing folder is then unchanged.
    """
    with atomic_folder(folder) as beside:
        save_checkpoint(teacher.model, teacher.tokenizer, beside)


def _check_finite(model: BertForMaskedLM, name: str) -> None:
    for key, weight in model.named_parameters():
        if bad := int((~torch.isfinite(weight)).sum()):
            raise UserError(f"{name}: {bad} of {weight.numel()} values of {key} are infinite or NaN")


def _check_carried(config: dict[str, Any], name: str) -> None:
    """Refuse what a DistilBERT cannot compute, and warn of what it computes a little differently."""
    refused = {
        "position_embedding_type": config.get("position_embedding_type", "absolute") != "absolute",
        "is_decoder": config.get("is_decoder", False),
        "add_cross_attention": config.get("add_cross_attention", False),
        "hidden_act": config.get("hidden_act", "gelu") not in ACT2FN,
        "tie_word_embeddings": not config.get("tie_word_embeddings", True),
    }
    allowed = {"position_embedding_type": "'absolute'", "hidden_act": "an activation of transformers"}
    for key, wrong in refused.items():
        if wrong:
            needed = allowed.get(key, "true" if key == "tie_word_embeddings" else "false")
            raise UserError(f"{name}: config.json says {key} {config[key]!r}; a DistilBERT student needs {needed}")
    eps = config.get("layer_norm_eps", DISTILBERT_LAYER_NORM_EPS)
    if eps != DISTILBERT_LAYER_NORM_EPS:
        logger.warning(
            "%s: layer_norm_eps is %g; DistilBERT's is fixed at 1e-12, so a student starts with outputs a little "
            "off its teacher's",
            name,
            eps,
        )
