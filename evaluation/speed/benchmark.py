"""Latency and throughput of models on random sequences, as the reference card measures them.

Each case runs in a process of its own, with its own threads, memory and state of the runtime. The cases take turns, so
that a machine that becomes slower or faster meanwhile does so for all of them. The processes begin anew several times,
because the passes of one process agree better than processes do: six processes of an int8 file of tiny shapes took from
11.3 to 13.0 ms on one thread, each within a few per cent of its own median. Processes that wait for their turn stay
loaded, which costs memory only: each took at most 1 % of a core (PyTorch and ONNX Runtime, base shapes, with ONNX
Runtime's spinning left on as users have it). A pass is timed from inputs that are on the device to the finished output.
"""

import contextlib
import dataclasses
import itertools
import logging
import os
from collections.abc import Sequence
from typing import NoReturn

import torch
from tqdm import tqdm

from distilrubert.common.errors import UserError
from distilrubert.common.formats import CASES, CHECKPOINT, FORMATS, FormatCase, measured_cases
from distilrubert.common.measurements import Environment, Measurements
from distilrubert.common.persistence import read_json
from distilrubert.evaluation.speed.parameter_count import count_parameters
from distilrubert.evaluation.speed.speed_process import WORKER, SpeedProcess
from distilrubert.evaluation.speed.speed_rows import Run, speed_rows
from distilrubert.evaluation.speed.speed_settings import SpeedSettings
from distilrubert.modeling.downloads import checkpoint_folder
from distilrubert.modeling.runtimes import devices_of

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class SpeedCase:
    """A model file to measure."""

    name: str  # of the row, for example student-onnx-int8
    folder: str | os.PathLike[str]  # of the model, or its Hub id where the file is the checkpoint
    case: str  # a key of CASES


def cases_of(name: str, model: str | os.PathLike[str], cases: Sequence[str] | None = None) -> list[SpeedCase]:
    """A case for each file that a model has, named ``<name>-<case>``.

    Files that are made for another kind of processor, or always compute more than the encoder, are left out. Of a Hub
    id only the checkpoint is used. `cases` are keys of :data:`~distilrubert.common.formats.CASES`; None takes those of
    :func:`~distilrubert.common.formats.measured_cases`.

    Raises:
        UserError: if there is no such model or case, or no file of any of the cases.
    """
    folder = checkpoint_folder(model)
    wanted = (
        measured_cases(
            (entry for entry in FORMATS.values() if entry.task is None), Environment.capture().instruction_sets
        )
        if cases is None
        else [_case(case) for case in cases]
    )
    found = [case for case in wanted if case.format.runs_here and case.format.is_in(folder)]
    if not found:
        raise UserError(f"{model}: has no file for {', '.join(case.name for case in wanted)}")
    return [SpeedCase(f"{name}-{case.name}", folder, case.name) for case in found]


def measure_speed(cases: Sequence[SpeedCase], settings: SpeedSettings, program: Sequence[str] = WORKER) -> Measurements:
    """Measure the cases against each other.

    Args:
        cases: the first one is the baseline (the teacher in PyTorch fp32, in a report for the card). On a GPU only
            those that can run there are measured, as rows ``<name>-cuda``.
        settings: how.
        program: what Python runs for a case; another one knows cases that are added to the list.

    Returns:
        A row for each, with the values of :func:`~distilrubert.evaluation.speed.speed_rows.speed_rows`; details hold
        the settings that were in effect.

    Raises:
        UserError: if a case's model or file is missing, there is no GPU where one is asked for, or a process dies.
    """
    if not cases:
        raise UserError("speed: there is nothing to measure")
    threads = settings.threads or torch.get_num_threads()
    runs = [run for device in _devices(settings) for case in cases if (run := _prepare(case, device))]
    if not runs:
        raise UserError(f"speed: none of {', '.join(case.case for case in cases)} runs on {settings.device}")
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
    opened = _case(case.case)
    if device not in devices_of(opened.format):
        return None
    folder = checkpoint_folder(case.folder)
    opened.format.find(folder)
    name = case.name if device == "cpu" else f"{case.name}-{device}"
    config = read_json(folder / "config.json")
    for key in ("vocab_size", "max_position_embeddings"):
        if not isinstance(config, dict) or not isinstance(config.get(key), int):
            raise UserError(f"{case.folder}: config.json has no {key}; a BERT-like encoder is needed")
    # A checkpoint that cannot be read is reported before anything is measured.
    parameters = count_parameters(folder) if CHECKPOINT.is_in(folder) else None
    positions = config["max_position_embeddings"]
    return Run(name, folder, opened, device, config["vocab_size"], positions, parameters)


def _sequence_length(runs: Sequence[Run], settings: SpeedSettings) -> int:
    """One length for all, so that their times can be compared."""
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
        process.send("open", folder=str(run.folder), case=run.case.name, device=run.device, threads=settings.threads)
    for process in processes:
        process.receive()
    for run, size in itertools.product(runs, settings.batch_sizes):
        run.seconds[size].append([])
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
                warmup=settings.warmup,
                minimum_time_s=settings.minimum_time_s,
            )
            run.seconds[size][-1] += answer["seconds"]
            bar.update()
    for run, process in zip(runs, processes, strict=True):
        for kind, peak in process.ask("memory").items():
            run.memory[kind] = max(peak, run.memory.get(kind, 0.0))


def _case(name: str) -> FormatCase:
    if name not in CASES:
        raise UserError(f"speed: no such file format: {name}; {', '.join(CASES)} are known")
    return CASES[name]
