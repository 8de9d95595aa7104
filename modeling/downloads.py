"""The folder of a model that a user names: one on this machine, or a download from the Hub."""

import contextlib
import glob
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub import constants, hf_hub_download, model_info, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import filter_repo_objects  # type: ignore[attr-defined]

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
from distilrubert.common.quiet_hub import quiet_hub
from distilrubert.common.sentence_files import MODULES_FILE, modules_in

# vocab.json and merges.txt are a byte-level BPE without tokenizer.json.
DESCRIBING_FILES = ("*.json", "vocab.txt", "merges.txt")
TRAINING_REPORT = "reports/training.json"
WEIGHTS, PICKLED, CARD = "*.safetensors", "pytorch_model*.bin", "README.md"
TIMEOUT_S = 10


def checkpoint_folder(model: str | os.PathLike[str], revision: str | None = None) -> Path:
    """The local folder of a checkpoint, downloaded first where `model` is a Hub id.

    Args:
        model: a folder, or the id of a model on the Hub.
        revision: branch, tag or commit on the Hub (default ``main``); ignored for a folder.

    Raises:
        UserError: if there is no such folder or model, or the Hub cannot be reached or refuses.
    """
    return _local_folder(model) or _download(str(model), revision or "main")


def description_folder(model: str | os.PathLike[str], revision: str | None = None) -> Path:
    """Like :func:`checkpoint_folder`, but without the weights: what says what the model is, its card included."""
    return _local_folder(model) or _download(str(model), revision or "main", with_weights=False)


def is_described_here(model: str | os.PathLike[str], revision: str | None = None) -> bool:
    """Whether the configuration of a model is on this machine.

    Raises:
        UserError: if `model` is neither a folder nor a well-formed Hub id.
    """
    if _local_folder(model):
        return True
    with _downloading(str(model), revision or "main"):
        return isinstance(try_to_load_from_cache(str(model), "config.json", revision=revision), str)


def module_folder(model: str | os.PathLike[str], revision: str | None = None) -> Path:
    """Like :func:`checkpoint_folder`, but with what sentence-transformers has in folders of their own beside it."""
    folder = checkpoint_folder(model, revision)
    if _local_folder(model) or not (folder / MODULES_FILE).is_file():
        return folder
    with _downloading(str(model), revision or "main"):
        patterns = [*_files_of_modules(folder, "*"), "LICENSE*", "NOTICE*"]
        return _snapshot(str(model), folder.name, allow_patterns=patterns)


def report_folder(model: str, revision: str | None = None) -> Path:
    """The folder of a model of the Hub with the reports alone that say how it was trained, where it has such."""
    with _downloading(model, revision or "main"):
        return _snapshot(model, revision, allow_patterns=[TRAINING_REPORT])


def repository_folder(model: str | os.PathLike[str], revision: str | None = None) -> Path:
    """Like :func:`checkpoint_folder`, but with all files of a repository on the Hub: exports, card, reports."""
    if folder := _local_folder(model):
        return folder
    with _downloading(str(model), revision or "main"):
        return _snapshot(str(model), revision)


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


def _download(model: str, revision: str, *, with_weights: bool = True) -> Path:
    # Top-level files only: ONNX and OpenVINO exports are in folders and may be large.
    is_enough = partial(_is_enough, model, with_weights=with_weights)
    snapshot = partial(_snapshot, model, is_enough=is_enough, ignore_patterns=["*/*"])
    with _downloading(model, revision):
        folder = snapshot(revision, allow_patterns=[*DESCRIBING_FILES, WEIGHTS if with_weights else CARD])
        # The snapshot's folder is named by its commit: the branch may have moved on.
        if with_weights and not any(folder.glob(WEIGHTS)):
            snapshot(folder.name, allow_patterns=[PICKLED])
        if (folder / MODULES_FILE).is_file():
            _snapshot(model, folder.name, allow_patterns=_files_of_modules(folder, "config.json"))
        return folder


def _snapshot(
    model: str, revision: str | None, *, is_enough: Callable[[Path], bool] = Path.is_dir, **patterns: Any
) -> Path:
    """The snapshot with all files of these patterns; of a Hub that cannot be asked, an earlier one if it is enough.

    The client alone returns what an earlier download left as if it were whole.
    """
    folder = Path(snapshot_download(model, revision=revision, **patterns))
    try:
        siblings = model_info(model, revision=folder.name, timeout=TIMEOUT_S).siblings
    except Exception:
        if not is_enough(folder):
            raise
        return folder
    files = [sibling.rfilename for sibling in siblings or ()]
    if absent := [file for file in filter_repo_objects(files, **patterns) if not (folder / file).is_file()]:
        raise UserError(f"{model}: {absent[0]} could not be downloaded, the connection broke; repeat")
    if MODULES_FILE not in files and _are_modules_unknown(model, folder):
        # The client keeps that it is not there, which counts where the Hub cannot be asked.
        with contextlib.suppress(EntryNotFoundError):
            hf_hub_download(model, MODULES_FILE, revision=folder.name)
    return folder


def _is_enough(model: str, folder: Path, *, with_weights: bool) -> bool:
    """Whether what an earlier download left says what a model is.

    transformers asks for no modules.json, which says how the vectors of an encoder are made.
    """
    has_weights = any(folder.glob(WEIGHTS)) or any(folder.glob(PICKLED))
    if not (folder / "config.json").is_file() or (with_weights and not has_weights):
        return False
    config = read_json(folder / "config.json")
    kinds = config.get("architectures") if isinstance(config, dict) else None
    return any("For" in str(kind) for kind in kinds or ()) or not _are_modules_unknown(model, folder)


def _are_modules_unknown(model: str, snapshot: Path) -> bool:
    """Whether the cache neither has modules.json nor knows that there is none."""
    return try_to_load_from_cache(model, MODULES_FILE, revision=snapshot.name) is None


def _files_of_modules(folder: Path, pattern: str) -> list[str]:
    """Patterns of such files in the folders that modules.json names."""
    paths = [str(module["path"]).rstrip("/") for module in modules_in(folder) if module.get("path")]
    return [f"{glob.escape(path)}/{pattern}" for path in paths]


@contextlib.contextmanager
def _downloading(model: str, revision: str) -> Iterator[None]:
    """Turn what the Hub's client raises into one line for the user, and keep its bars out of files."""
    try:
        with quiet_hub():
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
    absent = f"{where}: no such folder, not complete in the cache, and"
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
