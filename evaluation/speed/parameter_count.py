"""The number of parameters of a checkpoint."""

import hashlib
import zipfile
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from distilrubert.common.errors import UserError
from distilrubert.common.formats import CHECKPOINT


def count_parameters(folder: Path) -> int:
    """Numbers in the weights file of a model folder, heads included, a tied matrix once.

    Raises:
        UserError: if there is no weights file, or it cannot be read.
    """
    (path,) = CHECKPOINT.find(folder)
    try:
        return _in_safetensors(path) if path.suffix == ".safetensors" else _in_pickle(path)
    # Damaged files raise errors of unrelated classes: SafetensorError, UnpicklingError, RuntimeError.
    except Exception as error:
        raise UserError(f"{path}: cannot be read: {type(error).__name__}: {error}") from error


def _in_safetensors(path: Path) -> int:
    with safe_open(path, "pt") as weights:
        slices = {name: weights.get_slice(name) for name in weights.keys()}  # noqa: SIM118  (no mapping)
        shapes = {name: torch.Size(found.get_shape()) for name, found in slices.items() if "F" in found.get_dtype()}
        largest = max(shapes.values(), key=torch.Size.numel, default=torch.Size([0]))
        # A tied matrix that a file has twice is the largest one, that of all tokens.
        matrices = [name for name, shape in shapes.items() if shape == largest]
        different = {_content(weights.get_tensor(name)) for name in matrices} if len(matrices) > 1 else matrices
        return sum(shape.numel() for shape in shapes.values()) - (len(matrices) - len(different)) * largest.numel()


def _content(tensor: Tensor) -> bytes:
    return hashlib.sha256(tensor.view(torch.uint8).numpy().data).digest()


def _in_pickle(path: Path) -> int:
    # The form from before torch 1.6 is no archive, and cannot be mapped.
    weights = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    floating = {tensor.data_ptr(): tensor.numel() for tensor in weights.values() if tensor.is_floating_point()}
    return sum(floating.values())
