"""Latency and throughput of models on random sequences, as the reference card measures them.

What the figures rest on: each case has a process of its own, so threads, memory and the state of its runtime are its
own; the cases take turns in rounds, so that a machine that gets slower or faster in the meantime does so for all; and
the processes begin anew several times, because the passes of one process agree better than processes do: six of an
int8 file of tiny shapes took from 11.3 to 13.0 ms on one thread, each within a few per cent of its own median. Between
their turns they stay loaded, which costs memory only: waiting, each took at most 1 % of a core (PyTorch and ONNX
Runtime, base shapes, with ONNX Runtime's spinning left on as users have it). Passes are timed from the inputs in place
(on a GPU: on it) to the finished output.
"""

import contextlib
import dataclasses
import itertools
import logging
import os
import platform
from collections.abc import Sequence
from typing import NoReturn

import torch
from tqdm import tqdm

from distilrubert.common.errors import UserError
from distilrubert.common.measurements import Environment, Measurements
from distilrubert.common.persistence import read_json
from distilrubert.evaluation.speed.backends import BACKENDS, Backend
from distilrubert.evaluation.speed.size import WEIGHTS_FILES, count_parameters, find_file
from distilrubert.evaluation.speed.speed_process import WORKER, SpeedProcess
from distilrubert.evaluation.speed.speed_rows import Run, speed_rows
from distilrubert.evaluation.speed.speed_settings import SpeedSettings
from distilrubert.modeling.checkpoints import checkpoint_folder

logger = logging.getLogger(__name__)

# A runtime for each published file; bf16 is computed from the fp32 file, and only where the CPU can.
PUBLISHED = tuple(name for name in BACKENDS if name != "pytorch-bf16")


@dataclasses.dataclass(frozen=True)
class SpeedCase:
    """A model in a runtime.

    Attributes:
        name: of the row, for example ``student-onnx-int8``.
        folder: of the model, or its Hub id where the backend is PyTorch.
        backend: a key of :data:`~distilrubert.evaluation.speed.backends.BACKENDS`.
    """

    name: str
    folder: str | os.PathLike[str]
    backend: str


def cases_of(
    name: str,
    model: str | os.PathLike[str],
    backends: Sequence[str] = PUBLISHED,
) -> list[SpeedCase]:
    """A case for each of the backends whose file the model has, named ``<name>-<backend>``.

    Files that are made for another kind of processor than this machine's are passed over.

    Args:
        name: of the model in the report.
        model: its folder; from a Hub id only the checkpoint is taken.
        backends: keys of :data:`~distilrubert.evaluation.speed.backends.BACKENDS`.

    Raises:
        UserError: if there is no such model or backend, or no file that any of the backends runs.
    """
    folder = checkpoint_folder(model)
    cases = [
        SpeedCase(f"{name}-{backend}", folder, backend)
        for backend in backends
        if any((folder / file).is_file() for file in _backend(backend).files)
        and (not _backend(backend).machines or platform.machine() in _backend(backend).machines)
    ]
    if not cases:
        raise UserError(f"{model}: holds no file for {', '.join(backends)}")
    return cases


def measure_speed(cases: Sequence[SpeedCase], settings: SpeedSettings, program: Sequence[str] = WORKER) -> Measurements:
    """Measure the cases against each other.

    Args:
        cases: the first one is the baseline (the teacher in PyTorch fp32, in a report for the card). On a GPU only
            those that can run there are measured, as rows ``<name>-cuda``.
        settings: how.
        program: what Python runs for a case; another one knows backends that are added to the list.

    Returns:
        A row for each, with the figures of :func:`~distilrubert.evaluation.speed.speed_rows.speed_rows`; details hold
        the settings as they were in effect.

    Raises:
        UserError: if a case's model or backend is not there, there is no GPU where one is asked for, or a
            process dies.
    """
    if not cases:
        raise UserError("speed: there is nothing to measure")
    threads = settings.threads or torch.get_num_threads()
    runs = [run for device in _devices(settings) for case in cases if (run := _prepare(case, device))]
    if not runs:
        raise UserError(f"speed: none of {', '.join(case.backend for case in cases)} runs on {settings.device}")
    settings = settings.model_copy(update={"sequence_length": _sequence_length(runs, settings), "threads": threads})
    total = settings.starts * settings.rounds * len(settings.batch_sizes) * len(runs)
    with tqdm(total=total, desc="speed", unit="turns", disable=None, leave=False) as bar:
        for start in range(settings.starts):
            with contextlib.ExitStack() as stack:
                processes = [stack.enter_context(SpeedProcess(run.name, threads, program)) for run in runs]
                _measure(runs, processes, settings, start, bar)
    rows = speed_rows(runs, threads)
    return Measurements(Environment.capture(threads), rows, baseline=runs[0].name, details=settings.model_dump())


def _devices(settings: SpeedSettings) -> list[str]:
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise UserError("speed.device: cuda was asked for, and this machine has no GPU that torch can use; cpu or auto")
    if settings.device == "auto":
        return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    return [settings.device]


def _prepare(case: SpeedCase, device: str) -> Run | None:
    backend = _backend(case.backend)
    if device not in backend.devices:
        return None
    folder = checkpoint_folder(case.folder)
    find_file(folder, backend.files)
    name = case.name if device == "cpu" else f"{case.name}-{device}"
    config = read_json(folder / "config.json")
    for key in ("vocab_size", "max_position_embeddings"):
        if not isinstance(config, dict) or not isinstance(config.get(key), int):
            raise UserError(f"{case.folder}: config.json has no {key}; a BERT-like encoder is needed")
    # Before anything is measured: a checkpoint that cannot be read is told of now.
    parameters = count_parameters(folder) if any((folder / name).is_file() for name in WEIGHTS_FILES) else None
    positions = config["max_position_embeddings"]
    return Run(name, folder, case.backend, device, config["vocab_size"], positions, parameters)


def _sequence_length(runs: Sequence[Run], settings: SpeedSettings) -> int:
    """One length for all, or their figures could not be compared."""
    longest = min(run.positions for run in runs)
    if settings.sequence_length > longest:
        logger.warning(
            "speed is measured on sequences of %d tokens, not %d: a model has no more positions",
            longest,
            settings.sequence_length,
        )
    return min(settings.sequence_length, longest)


def _measure(
    runs: Sequence[Run], processes: Sequence[SpeedProcess], settings: SpeedSettings, start: int, bar: "tqdm[NoReturn]"
) -> None:
    # Loading overlaps, measuring never does.
    for run, process in zip(runs, processes, strict=True):
        process.send("open", folder=str(run.folder), backend=run.backend, device=run.device, threads=settings.threads)
    for process in processes:
        process.receive()
    for size, turn in itertools.product(settings.batch_sizes, range(settings.rounds)):
        # There and back, so that no case always follows the same other one.
        for run, process in list(zip(runs, processes, strict=True))[:: 1 if (start + turn) % 2 == 0 else -1]:
            bar.set_postfix_str(f"{run.name}, batch {size}")
            answer = process.ask(
                "measure",
                batch_size=size,
                sequence_length=settings.sequence_length,
                vocabulary=run.vocabulary,
                seed=settings.seed,
                warmup=settings.warmup if turn == 0 else 0,
                minimum_time_s=settings.minimum_time_s,
            )
            run.seconds[size] += answer["seconds"]
            bar.update()
    for run, process in zip(runs, processes, strict=True):
        for figure, peak in process.ask("memory").items():
            run.memory[figure] = max(peak, run.memory.get(figure, 0.0))


def _backend(name: str) -> Backend:
    if name not in BACKENDS:
        raise UserError(f"speed: no such backend: {name}; {', '.join(BACKENDS)} are known")
    return BACKENDS[name]
