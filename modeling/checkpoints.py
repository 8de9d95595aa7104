"""Loading a checkpoint: all of it, or an error that names what is missing.

Nothing in it is executed: there is no remote code, and pickled weights are read as plain tensors (``weights_only``).
"""

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from transformers import AutoConfig, AutoModelForMaskedLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from distilrubert.common.errors import UserError
from distilrubert.common.persistence import read_json
from distilrubert.common.sentence_files import kind_of_module
from distilrubert.modeling.downloads import checkpoint_folder
from distilrubert.modeling.families import check_config, family_of
from distilrubert.modeling.heads import has_head
from distilrubert.modeling.sentence_modules import SENTENCE_MODULES, checked_modules
from distilrubert.modeling.tokenizer_files import save_tokenizer

NEEDED_SPECIAL_TOKENS = ("pad_token", "unk_token", "cls_token", "sep_token")
TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "merges.txt")


class Checkpoint(NamedTuple):
    """A model and its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast


def load_pretrained(model: str | os.PathLike[str], revision: str | None = None) -> Checkpoint:
    """Load a masked language model, or an encoder without a head, and its tokenizer.

    Args:
        model: a folder, or the id of a model on the Hub; a folder of sentence-transformers if nothing but pooling and
            normalisation follows the encoder.
        revision: branch, tag or commit on the Hub.

    Raises:
        UserError: if it cannot be found or read, is of no family that is taken, or has no fast tokenizer that fits.
    """
    name = os.fspath(model)
    folder = checkpoint_folder(model, revision)
    _check_modules(folder, name)
    loaded = load_model(folder, name)
    return Checkpoint(loaded, load_fast_tokenizer(folder, name, loaded))


def read_model_config(folder: Path, name: str) -> transformers.PretrainedConfig:
    """The configuration of a checkpoint of a family that is taken.

    Raises:
        UserError: if there is none, or it says what no student can follow.
    """
    if not (folder / "config.json").is_file():
        raise UserError(f"{name}: config.json is missing; a checkpoint with config, weights and tokenizer is needed")
    file = read_json(folder / "config.json")
    try:
        family = check_config(file if isinstance(file, dict) else {}, name)
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        family.complete(config)
    except UserError:
        raise
    except Exception as error:  # values of another type, each with an error of its own
        raise UserError(f"{name}: config.json cannot be read: {type(error).__name__}: {error}") from error
    return config


def load_model(folder: Path, name: str) -> PreTrainedModel:
    """A masked language model, or an encoder where the checkpoint is one and has nothing of a head.

    In fp32 and evaluation mode. The tied decoder may be missing. Weights of a pooler and of other heads are ignored.
    The old LayerNorm names ``gamma`` and ``beta`` are understood.

    Args:
        folder: the folder of its files.
        name: of the checkpoint, for messages.

    Raises:
        UserError: if the weights cannot be read, or some are missing or of another shape (they are named).
    """
    config = read_model_config(folder, name)
    try:
        with quiet_transformers():
            model, info = AutoModelForMaskedLM.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                # The same numbers on every machine, and never a tensor of heads x length x length.
                attn_implementation="sdpa",
                key_mapping=dict(family_of(config).renamed),
                ignore_mismatched_sizes=True,
                weights_only=True,
                output_loading_info=True,
                trust_remote_code=False,
            )
    # The errors for a damaged file have no common base: OSError, SafetensorError, UnpicklingError, KeyError,
    # RuntimeError, the validation errors of the config.
    except Exception as error:
        raise UserError(f"{name}: the weights cannot be read: {type(error).__name__}: {error}") from error
    model.tie_weights()
    lost = missing_weights(model, info)
    in_encoder = f"{model.base_model_prefix}."
    if any(key.startswith(in_encoder) for key in lost):
        raise UserError(f"{name}: weights are missing or of another shape: {shortened(lost)}")
    # transformers 5 may leave the decoder of a head that is not there untied.
    decoder = model.get_output_embeddings().weight
    head = {key for key, weight in model.named_parameters() if not key.startswith(in_encoder) and weight is not decoder}
    if lost and (head - {*lost} or any("For" in kind for kind in config.architectures or ())):
        raise UserError(
            f"{name}: no trained masked-language head, missing {shortened(lost)}; a checkpoint that was saved with its "
            "head, or an encoder alone, is needed (early revisions on the Hub may not have it)"
        )
    encoder_or_all: PreTrainedModel = model.base_model if lost else model
    return encoder_or_all.eval()


def _check_modules(folder: Path, name: str) -> None:
    """Refuse a folder of sentence-transformers in which something is learned after the encoder."""
    for module in checked_modules(folder, SENTENCE_MODULES, name):
        if kind_of_module(module) == "Transformer" and module.get("path"):
            raise UserError(f"{name}: modules.json says that the encoder lies in {module['path']!r}; name that folder")


def read_fast_tokenizer(folder: Path, name: str) -> PreTrainedTokenizerFast:
    """The fast tokenizer of a checkpoint by its files alone; `name` is the checkpoint's, for messages.

    Raises:
        UserError: if there is none, or it cannot be read.
    """
    # Without any file transformers 5 would silently make a tokenizer of five tokens.
    if not any((folder / file).is_file() for file in TOKENIZER_FILES):
        raise UserError(f"{name}: tokenizer.json and vocab.txt are missing; a fast tokenizer is needed")
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:
        raise UserError(f"{name}: the tokenizer cannot be read: {type(error).__name__}: {error}") from error
    if not tokenizer.is_fast:
        raise UserError(f"{name}: its {type(tokenizer).__name__} is not a fast tokenizer; tokenizer.json is needed")
    return tokenizer


def load_fast_tokenizer(folder: Path, name: str, model: PreTrainedModel) -> PreTrainedTokenizerFast:
    """The fast tokenizer of a checkpoint, its `model_max_length` within the model's positions.

    Args:
        folder: the folder of its files.
        name: of the checkpoint, for messages.
        model: loaded from it.

    Raises:
        UserError: if there is none, a special token is missing, or it does not belong to the model.
    """
    tokenizer = read_fast_tokenizer(folder, name)
    needed = (*NEEDED_SPECIAL_TOKENS, *(["mask_token"] if has_head(model) else []))
    if absent := [token for token in needed if getattr(tokenizer, token) is None]:
        raise UserError(f"{name}: the tokenizer has no {', '.join(absent)}; {_use_of(model)} needs it")
    if invented := _invented(tokenizer, folder) & {getattr(tokenizer, token) for token in needed}:
        raise UserError(f"{name}: vocab.txt has no {', '.join(sorted(invented))}")
    _check_ids(tokenizer, name, model)
    limit_length(tokenizer, model.config)
    return tokenizer


def limit_length(tokenizer: PreTrainedTokenizerFast, config: transformers.PretrainedConfig) -> None:
    """Keep the tokenizer's `model_max_length` within the positions of a model of this configuration."""
    longest = family_of(config).longest_input(config.to_dict())
    tokenizer.model_max_length = min(tokenizer.model_max_length, longest)


def _use_of(model: PreTrainedModel) -> str:
    return "masked language modelling" if has_head(model) else "an encoder"


def _check_ids(tokenizer: PreTrainedTokenizerFast, name: str, model: PreTrainedModel) -> None:
    """Refuse ids that are another model's."""
    vocabulary_size, family = model.config.vocab_size, family_of(model.config)
    largest = max(tokenizer.get_vocab().values())
    if largest >= vocabulary_size:
        raise UserError(
            f"{name}: the tokenizer yields ids up to {largest}, the model's embedding has {vocabulary_size} rows; "
            "they do not belong together"
        )
    padding_id = model.config.pad_token_id
    if "pad_token_id" in family.decides and tokenizer.pad_token_id != padding_id:
        raise UserError(
            f"{name}: the tokenizer pads with id {tokenizer.pad_token_id}, config.json says pad_token_id {padding_id}, "
            f"after which the positions of a {family.title} begin; they do not belong together"
        )


def _invented(tokenizer: PreTrainedTokenizerFast, folder: Path) -> set[str]:
    """The special tokens that transformers appended because vocab.txt does not have them.

    If the embedding has unused rows, they would get one of these.
    """
    if any((folder / file).is_file() for file in ("tokenizer.json", "added_tokens.json")):
        return set()
    settings = folder / "tokenizer_config.json"
    stated = read_json(settings).get("added_tokens_decoder", {}) if settings.is_file() else {}
    known = {*tokenizer.backend_tokenizer.get_vocab(with_added_tokens=False)}
    known |= {entry["content"] for entry in stated.values()}
    return {token for token in tokenizer.get_added_vocab() if token not in known}


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence the progress bars and load reports of transformers; our own messages say what matters in them."""
    verbosity = transformers.utils.logging.get_verbosity()
    bars = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.utils.logging.set_verbosity(verbosity)
        if bars:
            transformers.utils.logging.enable_progress_bar()


def missing_weights(model: PreTrainedModel, info: Mapping[str, Any]) -> list[str]:
    """The parameters that are missing in a checkpoint or of another shape, by transformers' ``output_loading_info``."""
    # transformers 4 lists the names of another shape, 5 lists (name, found, expected).
    mismatched = {key if isinstance(key, str) else key[0] for key in info["mismatched_keys"]}
    missing = {*info["missing_keys"], *mismatched}
    # A shared parameter appears once, under the name that a checkpoint must have: the embeddings, not the decoder.
    return [key for key, _ in model.named_parameters() if key in missing]


def shortened(names: Sequence[str]) -> str:
    """The first of some names, for a message of one line."""
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def save_checkpoint(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write config.json, model.safetensors and the tokenizer's files into an existing folder."""
    with quiet_transformers():
        model.save_pretrained(folder)
        save_tokenizer(tokenizer, folder)
    # safetensors makes files that only their owner can read, but a server may run as another user.
    for weights in folder.glob("*.safetensors"):
        shutil.copymode(folder / "config.json", weights)
