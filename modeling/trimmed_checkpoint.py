"""A checkpoint on disk with a part of its vocabulary: everything else in it stays as it is, whatever model it is of.

Poolers, heads for tasks, the numbers' format and what sentence-transformers puts around an encoder are kept, so the
result is loaded with the same class as the whole.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedTokenizerFast

from distilrubert.common.errors import UserError
from distilrubert.common.persistence import read_json
from distilrubert.common.sentence_files import kind_of_module, modules_in
from distilrubert.modeling.families import family_of
from distilrubert.modeling.families.family import Weights
from distilrubert.modeling.tokenizer_files import save_tokenizer

# What lies beside the model and says nothing of its vocabulary.
KEPT_FILES = ("modules.json", "config_sentence_transformers.json", "sentence_*_config.json", "LICENSE*", "NOTICE*")


def weight_files(folder: Path) -> list[Path]:
    """The files with a checkpoint's weights: safetensors if there are any."""
    return sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))


def read_weights(folder: Path, name: str, config: PretrainedConfig) -> Weights:
    """The weights of a checkpoint by their names, in the form that they have there.

    Args:
        folder: of a family that is taken.
        name: of the checkpoint, for messages.
        config: its configuration.

    Raises:
        UserError: if they cannot be read, or are not those of the configuration.
    """
    weights: Weights = {}
    try:
        for file in weight_files(folder):
            is_safe = file.suffix == ".safetensors"
            weights |= load_file(file) if is_safe else torch.load(file, map_location="cpu", weights_only=True)
    # The errors for a damaged file have no common base.
    except Exception as error:
        raise UserError(f"{name}: the weights cannot be read: {type(error).__name__}: {error}") from error
    words = _keys_of(weights, config, "words")
    if len(words) != 1 or len(weights[words[0]]) != config.vocab_size:
        raise UserError(f"{name}: its weights have no word embeddings of {config.vocab_size} rows, as config.json says")
    return weights


def module_paths(folder: Path) -> list[str]:
    """The folders in which sentence-transformers has what follows the encoder.

    That of a module without files, which normalises, is on no Hub: Git has no empty folders.

    Raises:
        UserError: if modules.json names one that is not in `folder`: it comes from others, and may name any.
    """
    paths = {str(module["path"]): kind_of_module(module) for module in modules_in(folder) if module.get("path")}
    for path, kind in paths.items():
        is_there = (folder / path).is_dir() or kind == "Normalize"
        if not is_there or not (folder / path).resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{folder}: modules.json names {path!r}, which is no folder in it")
    return [path for path in paths if (folder / path).is_dir()]


def write_trimmed(
    folder: Path,
    weights: Weights,
    config: PretrainedConfig,
    tokenizer: PreTrainedTokenizerFast,
    ids_V: NDArray[Any],
    output: Path,
) -> None:
    """Write the checkpoint of `folder` with only some of its tokens into the existing folder `output`.

    Args:
        folder: of the whole checkpoint.
        weights: what :func:`read_weights` gives of it.
        config: its configuration.
        tokenizer: with only these tokens.
        ids_V: the tokens' ids in the whole checkpoint, in the order of their new ones.
        output: where to write.
    """
    copy_surroundings(folder, output)
    new_ids = {int(old): new for new, old in enumerate(ids_V)}
    file = read_json(folder / "config.json") | {"vocab_size": len(ids_V)}
    file |= {key: new_ids.get(old) for key, old in file.items() if key.endswith("_token_id") and isinstance(old, int)}
    trimmed = _with_rows(weights, config, torch.from_numpy(ids_V))
    # Where positions are counted from the padding token's id, rows before it go as it comes forward.
    family, before = family_of(config), config.to_dict()
    if dropped := family.first_position(before) - family.first_position(file):
        file["max_position_embeddings"] = config.max_position_embeddings - dropped
        (positions,) = _keys_of(weights, config, "positions")
        trimmed[positions] = trimmed[positions][dropped:].contiguous()
    save_file(trimmed, output / "model.safetensors", metadata={"format": "pt"})
    (output / "config.json").write_text(json.dumps(file, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    shutil.copymode(output / "config.json", output / "model.safetensors")
    save_tokenizer(tokenizer, output)


def _with_rows(weights: Weights, config: PretrainedConfig, rows_V: Tensor) -> Weights:
    """The weights with these rows of what has one for each token; a tied decoder is left out, as transformers does."""
    decoder = next(module for module, role in family_of(config).head.items() if role == "decoder")
    biases = (f"{decoder}.bias", f"{decoder.rpartition('.')[0]}.bias")
    has_rows = {*_keys_of(weights, config, "words"), *biases}
    return {
        key: (weight[rows_V] if key in has_rows else weight).contiguous()
        for key, weight in weights.items()
        if key != f"{decoder}.weight"
    }


def _keys_of(weights: Weights, config: PretrainedConfig, role: str) -> list[str]:
    """The names of an encoder's weight, which may have the encoder's own before it."""
    module = next(module for module, roles in family_of(config).encoder.items() if roles == role)
    return [key for key in weights if f".{key}".endswith(f".{module}.weight")]


def copy_surroundings(folder: Path, output: Path) -> None:
    """Copy what sentence-transformers has beside a checkpoint, and its licence, into the existing folder `output`."""
    for pattern in KEPT_FILES:
        for file in folder.glob(pattern):
            shutil.copyfile(file, output / file.name)
    for path in module_paths(folder):
        shutil.copytree(folder / path, output / path)
