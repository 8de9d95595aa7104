"""Loading of models to measure or to fine-tune."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from distilrubert.common.errors import UserError
from distilrubert.common.hub_failures import clean
from distilrubert.common.training.padding import WIDTH_STEP
from distilrubert.modeling import families
from distilrubert.modeling.checkpoints import load_pretrained, missing_weights, shortened


def load_encoder(
    model_class: Any,
    folder: str | os.PathLike[str],
    what: str,
    adapt: Callable[[PretrainedConfig], None] = lambda config: None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, list[str]]:
    """A model in fp32 and evaluation mode, its tokenizer, and the names of the weights missing in its checkpoint.

    Only weights of a head or of the pooler may be missing. `what` the model is used as is for messages; `adapt` changes
    the configuration before the model is built.

    Raises:
        UserError: if the model cannot be loaded, or weights of the encoder are missing.
    """
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if config.model_type in families.MODEL_TYPES:
            families.family_of(config).complete(config)
        if config.is_encoder_decoder:
            raise UserError(f"its {config.model_type} has a decoder; an encoder alone is needed")
        adapt(config)
        model, loading = model_class.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=False,
            weights_only=True,
            # A head for another number of classes is made anew.
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
        if not any(any(Path(folder).glob(pattern)) for pattern in ("tokenizer.json", "vocab.*", "*.model")):
            raise UserError("there is no tokenizer, for example a tokenizer.json")
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    # Damaged files raise errors of many classes: OSError, SafetensorError, a plain Exception.
    except Exception as error:
        raise UserError(f"{folder}: cannot be loaded as {what}: {clean(str(error), None)}") from error
    missing = missing_weights(model, loading)
    encoder = {id(weight) for name, weight in model.base_model.named_parameters() if "pooler" not in name}
    if lost := [name for name, weight in model.named_parameters() if name in missing and id(weight) in encoder]:
        raise UserError(f"{folder}: cannot be loaded as {what}: weights are missing: {shortened(lost)}")
    if tokenizer.pad_token is None:
        raise UserError(f"{folder}: cannot be loaded as {what}: its tokenizer has no padding token")
    if model.config.pad_token_id is None:
        # Of a GPT-2, which otherwise takes no batch.
        model.config.pad_token_id = tokenizer.pad_token_id
    if not families.takes_token_types(model.config):
        tokenizer.model_input_names = [name for name in tokenizer.model_input_names if name != "token_type_ids"]
    return model.eval(), tokenizer, missing


def load_to_predict(folder: str | os.PathLike[str]) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A masked language model, or an encoder, and its tokenizer; in fp32, evaluation mode, on the GPU if any.

    Raises:
        UserError: if the folder holds no such model.
    """
    model, tokenizer = load_pretrained(Path(folder))
    return model.to(measuring_device()), tokenizer


def measuring_device() -> str:
    """The GPU if there is one, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def longest_input(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_length: int) -> int:
    """The longest input of a model in tokens, at most `max_length`.

    The tokenizer's limit counts too: a model of another family may take fewer tokens than it has positions. Of the
    positions only whole steps count, because batches are padded to a multiple of `WIDTH_STEP`.
    """
    positions = families.longest_input(model.config.to_dict())
    return int(min(max_length, positions - positions % WIDTH_STEP, tokenizer.model_max_length))
