"""How large a model is: its weights file and the parameters in it."""

import hashlib
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from distilrubert.common.errors import UserError
from distilrubert.evaluation.speed.backends import Backend

WEIGHTS_FILES = ("model.safetensors", "pytorch_model.bin")


def find_file(folder: Path, names: tuple[str, ...] = WEIGHTS_FILES) -> Path:
    """The first of `names` that is in the folder.

    Raises:
        UserError: if none is.
    """
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{folder}: holds no {' or '.join(names)}")


def size_mib(folder: Path, backend: Backend) -> float:
    """Size of the file that a backend runs, with what belongs to it.

    Raises:
        UserError: if the folder has no such file.
    """
    paths = [find_file(folder, backend.files), *(folder / name for name in backend.companions)]
    return sum(path.stat().st_size for path in paths if path.is_file()) / 2**20


def count_parameters(folder: Path) -> int:
    """Numbers in the weights file of a model folder, heads included, a tied matrix once.

    Raises:
        UserError: if there is no weights file, or it cannot be read.
    """
    path = find_file(folder)
    try:
        return _in_safetensors(path) if path.suffix == ".safetensors" else _in_pickle(path)
    # What a damaged file makes the readers raise is not one family: SafetensorError, UnpicklingError, RuntimeError.
    except Exception as error:
        raise UserError(f"{path}: cannot be read: {type(error).__name__}: {error}") from error


def _in_safetensors(path: Path) -> int:
    with safe_open(path, "pt") as weights:
        slices = {name: weights.get_slice(name) for name in weights.keys()}  # noqa: SIM118  (no mapping)
        shapes = {name: torch.Size(found.get_shape()) for name, found in slices.items() if "F" in found.get_dtype()}
        largest = max(shapes.values(), key=torch.Size.numel, default=torch.Size([0]))
        # A file that states a tied matrix twice has it among the largest, as that of all pieces.
        matrices = [name for name, shape in shapes.items() if shape == largest]
        different = {_content(weights.get_tensor(name)) for name in matrices} if len(matrices) > 1 else matrices
        return sum(shape.numel() for shape in shapes.values()) - (len(matrices) - len(different)) * largest.numel()


def _content(tensor: Tensor) -> bytes:
    return hashlib.sha256(tensor.view(torch.uint8).numpy().data).digest()


def _in_pickle(path: Path) -> int:
    weights = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    floating = {tensor.data_ptr(): tensor.numel() for tensor in weights.values() if tensor.is_floating_point()}
    return sum(floating.values())
