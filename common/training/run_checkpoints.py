"""Checkpoints of a training run: complete or absent, and only of the run that they belong to."""

import json
import logging
import re
import shutil
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import nn

from distilrubert.common.errors import UserError
from distilrubert.common.persistence import atomic_file, atomic_folder, read_json

logger = logging.getLogger(__name__)

_NAME = re.compile(r"checkpoint-\d{8,}")
_MODEL, _OPTIMIZER, _STATE = "model.safetensors", "optimizer.safetensors", "state.json"


class Checkpoints:
    """A folder of ``checkpoint-<step>/``.

    Each holds ``model.safetensors`` (all that is trained, so never a teacher), ``optimizer.safetensors`` (the moments)
    and ``state.json``. There is no random state: all that is drawn is a function of the seed, the epoch and the
    batch. The newest `keep` stay.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self._keep = folder, keep

    def prepare(self) -> Path | None:
        """See that the folder can be written, clear away what a killed process left, and find the newest checkpoint.

        Raises:
            UserError: if it cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise UserError(f"{self.folder}: cannot be written: {error.strerror}") from error
        for leftover in self.folder.glob(".checkpoint-*.tmp"):
            logger.info("removing the unfinished %s", leftover)
            shutil.rmtree(leftover, ignore_errors=True)
        return self.newest()

    def newest(self) -> Path | None:
        """The checkpoint of the highest step; None where there is none."""
        return max(self._all(), key=_step_of, default=None)

    def save(self, step: int, module: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> Path:
        """Write the checkpoint of `step`, then remove all but the newest `keep`.

        Raises:
            UserError: if the folder cannot be written or the disk is full; the older checkpoints are untouched.
        """
        path = self.folder / f"checkpoint-{step:08}"
        with atomic_folder(path) as folder:
            save_model(module, str(folder / _MODEL))
            save_file(moments_of(optimizer), folder / _OPTIMIZER)
            (folder / _STATE).write_text(json.dumps(state, allow_nan=False), encoding="utf-8")
        for old in sorted(self._all(), key=_step_of)[: -self._keep]:
            _remove(old)
        return path

    def _all(self) -> list[Path]:
        return [path for path in self.folder.glob("checkpoint-*") if _NAME.fullmatch(path.name) and path.is_dir()]


def read_state(checkpoint: Path) -> Any:
    """What :meth:`Checkpoints.save` was given as `state`; UserError if it cannot be read."""
    return read_json(checkpoint / _STATE)


def save_weights(path: Path, module: nn.Module) -> None:
    """Write all that is trained, and nothing else, as one file, atomically.

    Raises:
        UserError: if it cannot be written.
    """
    with atomic_file(path) as beside:
        save_model(module, str(beside))


def load_weights(path: Path, module: nn.Module) -> None:
    """Load what :func:`save_weights` has written.

    Raises:
        UserError: if the file is missing or damaged, or belongs to another model.
    """
    try:
        load_model(module, path)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise UserError(f"{path}: the weights cannot be read: {error}; remove {path.parent} to start again") from error


def restore(checkpoint: Path, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put the weights and moments of a checkpoint into `module` and `optimizer`.

    Raises:
        UserError: if a file is missing or damaged, or does not belong to this model.
    """
    try:
        load_model(module, checkpoint / _MODEL)
        moments = load_file(checkpoint / _OPTIMIZER)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise UserError(f"{checkpoint}: the checkpoint cannot be read: {error}; remove it to go on") from error
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in moments.items():
        index, _, key = name.partition(".")
        # A copy: what safetensors returns is a view of the file, which is removed one day.
        state.setdefault(int(index), {})[key] = tensor.clone()
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def moments_of(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The tensors of an optimiser, by ``<index of the parameter>.<key>``."""
    state = optimizer.state_dict()["state"]
    return {f"{index}.{key}": value.contiguous() for index, values in state.items() for key, value in values.items()}


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _remove(checkpoint: Path) -> None:
    # Renamed first, so that a kill in the middle leaves no half of a checkpoint under its name.
    doomed = checkpoint.with_name(f".{checkpoint.name}.{uuid.uuid4().hex[:8]}.tmp")
    checkpoint.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)
