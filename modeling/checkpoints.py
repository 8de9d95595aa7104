"""Loading a checkpoint, from a folder or the Hub: all of it, or an error that names what is missing.

Nothing in it is executed: there is no remote code, and pickled weights are read as plain tensors (``weights_only``).
"""

import contextlib
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from distilrubert.common.configuration import expand_home
from distilrubert.common.errors import UserError
from distilrubert.common.hub_failures import (
    cause,
    clean,
    is_broken_transfer,
    is_connection_error,
    is_invalid_answer,
    is_offline,
    redact,
    server_message,
    status_of,
    token_in_use,
)
from distilrubert.common.persistence import read_json
from distilrubert.modeling.tokenizer_files import save_tokenizer

logger = logging.getLogger(__name__)

NEEDED_SPECIAL_TOKENS = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
# Some exporters write the output bias under the decoder's name only; transformers 4.57 then leaves it unset.
RENAMED_WEIGHTS = {r"^cls\.predictions\.decoder\.bias$": "cls.predictions.bias"}


def checkpoint_folder(model: str | os.PathLike[str], revision: str | None = None) -> Path:
    """The local folder of a checkpoint, downloaded first where `model` is a Hub id.

    Args:
        model: a folder, or the id of a model on the Hub.
        revision: branch, tag or commit on the Hub (default ``main``); ignored for a folder.

    Raises:
        UserError: if there is no such folder or model, or the Hub cannot be reached or refuses.
    """
    return _local_folder(model) or _download(str(model), revision or "main")


def repository_folder(model: str | os.PathLike[str], revision: str | None = None) -> Path:
    """Like :func:`checkpoint_folder`, but with all files of a repository on the Hub: exports, card, reports."""
    if folder := _local_folder(model):
        return folder
    with _download_errors_reported(str(model), revision or "main"):
        return Path(snapshot_download(str(model), revision=revision))


def _local_folder(model: str | os.PathLike[str]) -> Path | None:
    """The folder that `model` names; None for the id of a model on the Hub."""
    if not os.fspath(model):
        raise UserError("the name of the model is empty; a folder or the id of a model on the Hub is needed")
    path = expand_home(model)
    if path.is_dir():
        return path
    if path.exists():
        raise UserError(f"{model}: is a file; a folder with a checkpoint or the id of a model on the Hub is needed")
    if isinstance(model, os.PathLike) or str(model).startswith((".", "/", "~")) or str(model).count("/") > 1:
        raise UserError(f"{model}: there is no such folder")
    return None


def read_config(folder: Path, name: str, model_type: str) -> dict[str, Any]:
    """The config.json of a checkpoint.

    Raises:
        UserError: if there is none, or its ``model_type`` is another one.
    """
    if not (folder / "config.json").is_file():
        raise UserError(f"{name}: config.json is missing; a checkpoint with config, weights and tokenizer is needed")
    config = read_json(folder / "config.json")
    found = config.get("model_type") if isinstance(config, dict) else None
    if found != model_type:
        raise UserError(f"{name}: config.json says model_type {found!r}; {model_type!r} is needed")
    return dict(config)


def load_masked_lm(model_class: Any, folder: Path, name: str) -> PreTrainedModel:
    """A masked language model with all its weights from the checkpoint, in fp32 and evaluation mode.

    Args:
        model_class: a class of transformers with the head, or ``AutoModelForMaskedLM``.
        folder: the folder of its files.
        name: of the checkpoint, for messages.

    The tied decoder may be missing. Weights of a pooler and of next-sentence prediction are ignored. The old LayerNorm
    names ``gamma`` and ``beta`` are understood.

    Raises:
        UserError: if the weights cannot be read, or some are missing or of another shape (they are named).
    """
    try:
        with quiet_transformers():
            model, info = model_class.from_pretrained(
                folder,
                dtype=torch.float32,
                key_mapping=RENAMED_WEIGHTS,
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
    _refuse_untrained(model, info, name)
    return model.eval()


def load_fast_tokenizer(folder: Path, name: str, vocabulary_size: int, max_length: int) -> PreTrainedTokenizerFast:
    """The fast tokenizer of a checkpoint, its `model_max_length` within the model's positions.

    Args:
        folder: the folder of its files.
        name: of the checkpoint, for messages.
        vocabulary_size: rows of the model's embedding.
        max_length: positions of the model.

    Raises:
        UserError: if there is none, a special token is missing, or it yields ids beyond the embedding.
    """
    # Without any file transformers 5 would silently make a tokenizer of five tokens.
    if not any((folder / file).is_file() for file in ("tokenizer.json", "vocab.txt")):
        raise UserError(f"{name}: tokenizer.json and vocab.txt are missing; a fast tokenizer is needed")
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:
        raise UserError(f"{name}: the tokenizer cannot be read: {type(error).__name__}: {error}") from error
    if not tokenizer.is_fast:
        raise UserError(f"{name}: its {type(tokenizer).__name__} is not a fast tokenizer; tokenizer.json is needed")
    if absent := [token for token in NEEDED_SPECIAL_TOKENS if getattr(tokenizer, token) is None]:
        raise UserError(f"{name}: the tokenizer has no {', '.join(absent)}; masked language modelling needs it")
    if invented := _invented(tokenizer, folder) & {getattr(tokenizer, token) for token in NEEDED_SPECIAL_TOKENS}:
        raise UserError(f"{name}: vocab.txt has no {', '.join(sorted(invented))}")
    largest = max(tokenizer.get_vocab().values())
    if largest >= vocabulary_size:
        raise UserError(
            f"{name}: the tokenizer yields ids up to {largest}, the model's embedding has {vocabulary_size} rows; "
            "they do not belong together"
        )
    tokenizer.model_max_length = min(tokenizer.model_max_length, max_length)
    return tokenizer


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


def _download(model: str, revision: str) -> Path:
    # Top-level files only: ONNX and OpenVINO exports are in folders and may be large.
    snapshot = partial(snapshot_download, model, revision=revision, ignore_patterns=["*/*"])
    with _download_errors_reported(model, revision):
        folder = Path(snapshot(allow_patterns=["*.json", "vocab.txt", "*.safetensors"]))
        if not any(folder.glob("*.safetensors")):
            folder = Path(snapshot(allow_patterns=["pytorch_model*.bin"]))
        return folder


@contextlib.contextmanager
def _download_errors_reported(model: str, revision: str) -> Iterator[None]:
    """Turn what the Hub's client raises into one line for the user."""
    try:
        yield
    except Exception as error:
        reported = _user_error(error, model, revision)
        if reported is None:
            raise
        # The client's own error may quote the server's answer, and a server may quote the token.
        raise reported from None


def _user_error(error: Exception, model: str, revision: str) -> UserError | None:
    try:
        token = None if is_offline(error) else token_in_use()
    except UserError as unusable:
        return unusable
    reason = _reason(error, model, f"{model} (revision {revision})", token)
    return None if reason is None else UserError(redact(reason, token))


def _reason(error: Exception, model: str, where: str, token: str | None) -> str | None:
    """What happened and what to do; None for an error that is not the user's."""
    absent = f"{where}: no such folder, not in the cache, and"
    endpoint = constants.ENDPOINT
    status = status_of(error)
    if isinstance(error, HFValidationError):
        return f"{model}: neither a folder nor a well-formed Hub id: {clean(str(error), token)}"
    if isinstance(error, GatedRepoError):
        return f"{where}: the model is gated; accept its terms on the Hub and log in (hf auth login)"
    # For what does not exist, the Hub answers 401 without a token and 404 with a valid one.
    if isinstance(error, RepositoryNotFoundError) and not (status == 401 and token):
        return f"{model}: neither a folder nor a model that you can see on the Hub"
    if isinstance(error, RevisionNotFoundError):
        return f"{where}: the model on the Hub has no such revision"
    if is_offline(error):
        return f"{absent} HF_HUB_OFFLINE is set; unset it or give a folder"
    if status is not None:
        said = server_message(error, token)
        return f"{where}: cannot be downloaded, {endpoint} answers with {status}{said}{_advice(status)}"
    if is_connection_error(error):
        return (
            f"{absent} {endpoint} cannot be reached or broke the connection ({cause(error, token)}); "
            "connect or give a folder"
        )
    if is_invalid_answer(error):
        return f"{absent} {endpoint} does not answer as a Hub does; check HF_ENDPOINT, and any proxy in between"
    if isinstance(error, OSError) or is_broken_transfer(error):
        return f"{where}: cannot be downloaded: {cause(error, token)}"
    return None


def _advice(status: int) -> str:
    if status == 401:
        return "; log in anew (hf auth login), or set or unset HF_TOKEN"
    if status == 403:
        return "; use a token that may read the model"
    if status == 429:
        return "; wait some minutes, then repeat"
    return "; repeat later" if status >= 500 else ""


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


def _refuse_untrained(model: PreTrainedModel, info: Mapping[str, Any], name: str) -> None:
    if not (lost := missing_weights(model, info)):
        return
    listed = shortened(lost)
    if not any(key.startswith(f"{model.base_model_prefix}.") for key in lost):
        raise UserError(
            f"{name}: no trained masked-language head, missing {listed}; a checkpoint that was saved with its head "
            "is needed (early revisions on the Hub may not have it)"
        )
    raise UserError(f"{name}: weights are missing or of another shape: {listed}")


def save_checkpoint(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write config.json, model.safetensors and the tokenizer's files into an existing folder."""
    with quiet_transformers():
        model.save_pretrained(folder)
        save_tokenizer(tokenizer, folder)
    # safetensors makes files that only their owner can read, but a server may run as another user.
    for weights in folder.glob("*.safetensors"):
        shutil.copymode(folder / "config.json", weights)
