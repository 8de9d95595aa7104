"""Teachers: masked language models or encoders, loaded whole or refused, or new BERTs to pretrain."""

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
from collections.abc import Iterator

import torch
from transformers import BertConfig, BertForMaskedLM, PreTrainedModel, PreTrainedTokenizerFast

from distilrubert.common.errors import UserError
from distilrubert.common.persistence import atomic_folder
from distilrubert.modeling.checkpoints import load_pretrained, save_checkpoint
from distilrubert.modeling.families import family_of

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A model that a student learns from.

    Attributes:
        model: of a family that is taken, with its masked-language head or an encoder alone; in fp32. A loaded one is in
            evaluation mode, without gradients.
        tokenizer: its fast tokenizer, `model_max_length` within the model's positions.
        name: as given: a Hub id or a folder.
        revision: as given; None for a folder or the Hub's ``main``.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    name: str
    revision: str | None = None

    def sha256(self) -> str:
        """A hash of all that decides what it computes: what it is, wherever it lies and whatever it is called."""
        config = self.model.config
        decides = [getattr(config, setting) for setting in family_of(config).decides]
        digest = hashlib.sha256(json.dumps(decides).encode())
        for name, weight in sorted(self.model.named_parameters()):
            digest.update(f"{name} {tuple(weight.shape)} ".encode())
            digest.update(weight.detach().cpu().contiguous().numpy().data)
        return digest.hexdigest()


def load_teacher(model: str | os.PathLike[str], revision: str | None = None) -> Teacher:
    """Load a model of any width and language, its weights in fp32, for reading only.

    What a student of it cannot be exact in is warned of, not refused. For a BERT that is a LayerNorm epsilon other than
    DistilBERT's fixed 1e-12: each LayerNorm scales by √((σ²+ε)/(σ²+1e-12)), about ε/2σ² too much, which training takes
    up.

    Args:
        model: a folder, or the id of a model on the Hub.
        revision: branch, tag or commit on the Hub.

    Raises:
        UserError: as :func:`~distilrubert.modeling.checkpoints.load_pretrained`, and if a weight is infinite or NaN.
    """
    name = os.fspath(model)
    loaded = load_pretrained(model, revision)
    _check_finite(loaded.model, name)
    if remark := family_of(loaded.model.config).remark(loaded.model.config.to_dict()):
        logger.warning("%s: %s", name, remark)
    return Teacher(loaded.model.requires_grad_(False), loaded.tokenizer, name, revision)


@contextlib.contextmanager
def on_gpu(model: PreTrainedModel) -> Iterator[PreTrainedModel]:
    """The model on the GPU, if there is one; afterwards it is where it was."""
    home = model.device
    try:
        yield model.to("cuda" if torch.cuda.is_available() else home)
    finally:
        model.to(home)


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


def _check_finite(model: PreTrainedModel, name: str) -> None:
    for key, weight in model.named_parameters():
        if bad := int((~torch.isfinite(weight)).sum()):
            raise UserError(f"{name}: {bad} of {weight.numel()} values of {key} are infinite or NaN")
