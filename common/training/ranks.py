"""Communication between the processes of a run."""

import functools
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor

from distilrubert.common.bars import tracked
from distilrubert.common.errors import UserError
from distilrubert.common.persistence import atomic_file
from distilrubert.common.processes import is_first

POLL_S = 0.5

T = TypeVar("T")


def computed_once(path: Path, compute: Callable[[Path], None]) -> None:
    """Let the first process write a file, unless it is there; the others wait for it.

    Args:
        path: the file, complete or absent.
        compute: writes it to the path that it is given.
    """
    if not is_first():
        while not path.exists():
            time.sleep(POLL_S)
    elif not path.exists():
        with atomic_file(path) as beside:
            compute(beside)


def computed_in_parts(
    folder: Path, total: int, size: int, compute: Callable[[range, Path], None], title: str
) -> list[Path]:
    """Let the first process write a file for each `size` of `total` items, as :func:`computed_once` does.

    Who is stopped goes on after the last file that is whole.

    Args:
        folder: of the files; it is made.
        total: the number of items.
        size: the number of items in a file, except in the last one.
        compute: writes the file of some items to the path that it is given.
        title: of the progress bar.

    Returns:
        The files, in the order of the items.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = [range(first, min(first + size, total)) for first in range(0, total, size)]
    paths = [folder / f"{part.start:012}" for part in parts]
    for part, path in tracked(list(zip(parts, paths, strict=True)), title, unit="part"):
        computed_once(path, functools.partial(compute, part))
    return paths


def on_main(accelerator: Accelerator, action: Callable[[], T]) -> T:
    """Let the main process act while the others wait, and hand its result to all.

    Raises:
        UserError: on every process, if the action raised one, so that no process waits for ever.
    """
    outcome: list[Any] = [None]
    if accelerator.is_main_process:
        try:
            outcome = [action()]
        except UserError as error:
            outcome = [error]
    result: Any = broadcast_object_list(outcome)[0]
    if isinstance(result, UserError):
        raise result
    return result  # type: ignore[no-any-return]


def total(accelerator: Accelerator, values: Mapping[str, int]) -> dict[str, int]:
    """The sum of each whole number over all processes; the names must be the same on each."""
    _, sums = totals(accelerator, {}, values)
    return sums


def totals(
    accelerator: Accelerator, measured: Mapping[str, Tensor], counted: Mapping[str, int], *same: Tensor
) -> tuple[list[float], dict[str, int]]:
    """Sums over all processes, for which the device is waited for once.

    Args:
        accelerator: of this process.
        measured: scalars on the device, exchanged as float32; the names must be the same on each process.
        counted: whole numbers of the host, likewise.
        same: scalars on the device that are the same on every process, and are not summed.

    Returns:
        the values of `measured` and `same`, and those of `counted`.
    """
    device = accelerator.device
    vectors = [torch.stack([*same]).double()] if same else []
    if measured:
        vectors.insert(
            0, accelerator.reduce(torch.stack([value.float() for value in measured.values()]), "sum").double()
        )
    if counted:
        numbers = torch.tensor([*counted.values()], dtype=torch.int64)
        if device.type == "cuda":
            # From other memory the copy would be waited for.
            numbers = numbers.pin_memory()
        vectors.append(accelerator.reduce(numbers.to(device, non_blocking=True), "sum").double())
    # A double holds all of them exactly: float32 and whole numbers up to 2^53.
    found = torch.cat(vectors).tolist()
    floats = len(measured) + len(same)
    return found[:floats], dict(zip(counted, map(int, found[floats:]), strict=True))


def largest(accelerator: Accelerator, value: float) -> float:
    """The largest value of any process."""
    return float(accelerator.reduce(torch.tensor(value, device=accelerator.device), "max"))


def destroy_process_group() -> None:
    """End the process group of this process, if there is one."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
