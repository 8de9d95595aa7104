"""Models to measure or to fine-tune, with every weight that they have in common with their checkpoint."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from distilrubert.common.errors import UserError
from distilrubert.modeling.checkpoints import load_fast_tokenizer, load_masked_lm, missing_weights, shortened


def load_encoder(
    model_class: Any,
    folder: str | os.PathLike[str],
    what: str,
    adapt: Callable[[PretrainedConfig], None] = lambda config: None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, list[str]]:
    """A model in fp32 and evaluation mode, its tokenizer, and the names of the weights that its checkpoint has not.

    Those are of a head, or of the pooler: an encoder of which the checkpoint lacks a part is refused.

    Args:
        model_class: the `Auto` class of transformers that gives it a head, or none.
        folder: a checkpoint.
        what: it is to be, for messages.
        adapt: changes the checkpoint's configuration first.

    Raises:
        UserError: if the folder holds no such model.
    """
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        adapt(config)
        model, loading = model_class.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=False,
            weights_only=True,
            output_loading_info=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    # What a damaged file makes the readers raise is not one family: OSError, SafetensorError, a plain Exception.
    except Exception as error:
        raise UserError(f"{folder}: cannot be loaded as {what}: {error}") from error
    missing = missing_weights(model, loading)
    encoder = {id(weight) for name, weight in model.base_model.named_parameters() if "pooler" not in name}
    if lost := [name for name, weight in model.named_parameters() if name in missing and id(weight) in encoder]:
        raise UserError(f"{folder}: cannot be loaded as {what}: weights are missing: {shortened(lost)}")
    if tokenizer.pad_token is None:
        raise UserError(f"{folder}: cannot be loaded as {what}: its tokenizer has no piece to pad with")
    return model.eval(), tokenizer, missing


def load_to_predict(folder: str | os.PathLike[str]) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A masked language model with its trained head, in fp32 and evaluation mode, on the GPU where there is one.

    Its tokenizer, too.

    Raises:
        UserError: if the folder holds no such model.
    """
    model = load_masked_lm(AutoModelForMaskedLM, Path(folder), str(folder)).to(measuring_device())
    positions = model.config.max_position_embeddings
    return model, load_fast_tokenizer(Path(folder), str(folder), model.config.vocab_size, positions)


def measuring_device() -> str:
    """The GPU where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def longest_input(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_length: int) -> int:
    """How many tokens of a text a model takes, at most `max_length`.

    The tokenizer may know better than the model: RoBERTa begins to count its positions behind that of the padding.
    """
    return int(min(max_length, model.config.max_position_embeddings, tokenizer.model_max_length))
