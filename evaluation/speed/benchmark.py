"""Latency and throughput of models: on random sequences, as the reference card measures them, or on real texts.

Each case runs in a process of its own, with its own threads, memory and state of the runtime. The cases take turns, so
that a machine that becomes slower or faster meanwhile does so for all of them. The processes begin anew several times,
because the passes of one process agree better than processes do: six processes of an int8 file of tiny shapes took from
11.3 to 13.0 ms on one thread, each within a few per cent of its own median. The time of a start is the median of its
passes, so that a fast start, which makes more passes, has no more weight than a slow one. Processes that wait for their
turn stay loaded, which costs memory only: each took at most 1 % of a core (PyTorch and ONNX Runtime, base shapes, with
ONNX Runtime's spinning left on as users have it). A pass is timed from inputs that are on the device to the finished
output; of texts, from the text.
"""

import contextlib
import dataclasses
import logging
import os
import statistics
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from tqdm import tqdm

from distilrubert.common.bars import progress_bar
from distilrubert.common.errors import UserError
from distilrubert.common.formats import CASES, CHECKPOINT, FORMATS, FormatCase, measured_cases
from distilrubert.common.measurements import Environment, Measurements, Row
from distilrubert.common.persistence import read_json
from distilrubert.common.sampling import evenly
from distilrubert.evaluation.speed.parameter_count import count_parameters
from distilrubert.evaluation.speed.speed_process import WORKER, SpeedProcess
from distilrubert.evaluation.speed.speed_settings import SpeedSettings
from distilrubert.modeling.checkpoints import read_fast_tokenizer
from distilrubert.modeling.downloads import checkpoint_folder
from distilrubert.modeling.families import longest_input
from distilrubert.modeling.runtimes import devices_of

logger = logging.getLogger(__name__)

Text = str | Sequence[str]
"""A text, or a pair of texts."""

VERSION = 1
"""To be raised with every change by which the same settings measure otherwise: runs measure speed again then."""


@dataclasses.dataclass(frozen=True)
class SpeedCase:
    """A model file to measure."""

    name: str  # of the row, for example student-onnx-int8
    folder: str | os.PathLike[str]  # of the model, or its Hub id where the file is the checkpoint
    case: str  # a key of CASES
    task: str = "feature-extraction"  # what its file returns: a key of OUTPUTS


def cases_of(
    name: str,
    model: str | os.PathLike[str],
    cases: Sequence[str] | None = None,
    task: str = "feature-extraction",
) -> list[SpeedCase]:
    """A case for each file that a model has, named ``<name>-<case>``.

    Files that are made for another kind of processor, or always compute more than the encoder, are left out. Of a Hub
    id only the checkpoint is used. `cases` are keys of :data:`~distilrubert.common.formats.CASES`; None takes those of
    :func:`~distilrubert.common.formats.measured_cases`. `task` is what the files return.

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
    if not found and cases is None:
        raise UserError(f"{model}: holds no weights: neither model.safetensors nor ONNX or OpenVINO files")
    if not found:
        raise UserError(f"{model}: has no file for {', '.join(case.name for case in wanted)}")
    return [SpeedCase(f"{name}-{case.name}", folder, case.name, task) for case in found]


def measure_speed(
    cases: Sequence[SpeedCase], settings: SpeedSettings, program: Sequence[str] = WORKER, texts: Sequence[Text] = ()
) -> Measurements:
    """Measure the cases against each other.

    Args:
        cases: the first one is the baseline (the teacher in PyTorch fp32, in a report for the card). On a GPU only
            those that can run there are measured, as rows ``<name>-cuda``.
        settings: how.
        program: what Python runs for a case; another one knows cases that are added to the list.
        texts: to measure on in place of random sequences, each model with its own tokenizer; of them as many as
            `settings.texts` says, evenly out of all, or all.

    Returns:
        A row for each. Its raw values are in ``batches``: for each batch size ``starts_s``, the median seconds of a
        batch in each start, and ``passes``, their number in each start. Times and ratios are derived from them, see
        :mod:`distilrubert.common.derived`. Besides a row has device, threads, hint (the number format of the
        arithmetic), parameters (None without a checkpoint), size_mib of the files, peak_memory_mib of the process and
        gpu_peak_memory_mib of its tensors, the largest of all starts; and where it was measured on texts
        tokens_per_text, the mean in its own tokens. Details hold the settings that were in effect.

    Raises:
        UserError: if a case's model or file is missing, two cases have one name, there is no GPU where one is asked
            for, or a process dies.
    """
    (found,) = measure_speeds(
        cases, [settings.model_copy(update={"texts": settings.texts or len(texts) or None})], program, texts
    )
    return found


def measure_speeds(
    cases: Sequence[SpeedCase],
    kinds: Sequence[SpeedSettings],
    program: Sequence[str] = WORKER,
    texts: Sequence[Text] = (),
) -> list[Measurements]:
    """Measure the cases on several kinds of input, one after another in the same processes.

    Args:
        cases: as for :func:`measure_speed`.
        kinds: how each kind is measured; one with `texts` on so many of the texts. Device, threads and starts are
            those of the first.
        program: as for :func:`measure_speed`.
        texts: as for :func:`measure_speed`.

    Returns:
        A report for each kind. Memory is that of a process which ran all of them.
    """
    if not cases:
        raise UserError("speed: there is nothing to measure")
    if twice := [name for name, number in Counter(case.name for case in cases).items() if number > 1]:
        raise UserError(f"speed: {twice[0]} is to be measured twice; name each model once")
    shared = {"device": kinds[0].device, "starts": kinds[0].starts}
    shared["threads"] = threads = kinds[0].threads or torch.get_num_threads()
    with tempfile.TemporaryDirectory(prefix="distilrubert-speed-") as work:
        groups = [_prepare_all(cases, kind.model_copy(update=shared), texts, Path(work)) for kind in kinds]
        total = sum(kind.starts * kind.rounds * len(kind.batch_sizes) * len(runs) for kind, runs in groups)
        with progress_bar("speed", total, unit="turn") as bar:
            for start in range(kinds[0].starts):
                _measure_start(groups, start, program, bar)
    environment = Environment.capture(threads)
    return [
        Measurements(environment, [Row(run.name, run.values) for run in runs], runs[0].name, kind.model_dump())
        for kind, runs in groups
    ]


@dataclasses.dataclass(frozen=True)
class _Run:
    """A case on a device: what its process is told, and the values of its row."""

    name: str
    opened: dict[str, Any]
    command: str  # that measures it
    inputs: dict[str, Any]  # of that command
    positions: int  # of the longest sequence that the model takes
    values: dict[str, Any]


def _devices(settings: SpeedSettings) -> list[str]:
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise UserError("speed.device: cuda was asked for, and this machine has no GPU that torch can use; cpu or auto")
    if settings.device == "auto":
        return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    return [settings.device]


def _prepare_all(
    cases: Sequence[SpeedCase], settings: SpeedSettings, texts: Sequence[Text], work: Path
) -> tuple[SpeedSettings, list[_Run]]:
    """The settings that are in effect, and a run for each case on each device."""
    chosen = evenly(texts, settings.texts) if texts and settings.texts else []
    settings = settings.model_copy(update={"texts": len(chosen) or None})
    found = (
        _prepare(case, device, settings, chosen, work / f"{number}.json")
        for device in _devices(settings)
        for number, case in enumerate(cases)
    )
    runs = [run for run in found if run]
    if not runs:
        raise UserError(f"speed: none of {', '.join(case.case for case in cases)} runs on {settings.device}")
    return settings.model_copy(update={"sequence_length": _sequence_length(runs, settings)}), runs


def _prepare(
    case: SpeedCase, device: str, settings: SpeedSettings, texts: Sequence[Text], tokenizer_path: Path
) -> _Run | None:
    measured = _case(case.case)
    if device not in devices_of(measured.format):
        return None
    folder = checkpoint_folder(case.folder)
    measured.format.find(folder)
    config = read_json(folder / "config.json")
    for key in ("vocab_size", "max_position_embeddings"):
        if not isinstance(config, dict) or not isinstance(config.get(key), int):
            raise UserError(f"{case.folder}: config.json has no {key}; a BERT-like encoder is needed")
    values: dict[str, Any] = {
        "batches": {str(size): {"starts_s": [], "passes": []} for size in settings.batch_sizes},
        "device": device,
        "threads": settings.threads,
        "hint": measured.hint,
        # A checkpoint that cannot be read is reported before anything is measured.
        "parameters": count_parameters(folder) if CHECKPOINT.is_in(folder) else None,
        "size_mib": measured.format.size_mib(folder),
    }
    opened = {"folder": str(folder), "case": case.case, "device": device, "threads": settings.threads}
    opened |= {"task": case.task} if case.task != SpeedCase.task else {}
    name = case.name if device == "cpu" else f"{case.name}-{device}"
    command, inputs = "measure", {"vocabulary": config["vocab_size"], "seed": settings.seed}
    if texts:
        tokenizer = read_fast_tokenizer(folder, str(case.folder))
        tokenizer.backend_tokenizer.save(str(tokenizer_path))
        command, inputs = "measure_texts", {"texts": texts, "tokenizer": str(tokenizer_path)}
        inputs["padding_id"] = tokenizer.pad_token_id or 0
    return _Run(name, opened, command, inputs, longest_input(config), values)


def _sequence_length(runs: Sequence[_Run], settings: SpeedSettings) -> int:
    """One length for all, so that their times can be compared."""
    longest = min(run.positions for run in runs)
    if settings.sequence_length > longest:
        logger.warning(
            "speed is measured on sequences of %d tokens, not %d: a model has no more positions",
            longest,
            settings.sequence_length,
        )
    return min(settings.sequence_length, longest)


def _measure_start(
    groups: Sequence[tuple[SpeedSettings, Sequence[_Run]]], start: int, program: Sequence[str], bar: "tqdm[NoReturn]"
) -> None:
    """Let the new process of each case take its turns, and add their times to the values of the runs."""
    settings, cases = groups[0]
    assert settings.threads is not None
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(SpeedProcess(run.name, settings.threads, program)) for run in cases]
        # Loading overlaps, measuring never does.
        for run, process in zip(cases, processes, strict=True):
            process.send("open", **run.opened)
        for process in processes:
            process.receive()
        for settings, runs in groups:
            _take_turns(list(zip(runs, processes, strict=True)), settings, start, bar)
        for index, process in enumerate(processes):
            for kind, peak in process.ask("memory").items():
                for _, runs in groups:
                    runs[index].values[kind] = max(peak, runs[index].values.get(kind, 0.0))


def _take_turns(
    pairs: Sequence[tuple[_Run, SpeedProcess]], settings: SpeedSettings, start: int, bar: "tqdm[NoReturn]"
) -> None:
    how = settings.model_dump(include={"sequence_length", "warmup", "minimum_time_s"})
    inputs = "texts" if settings.texts else f"{settings.sequence_length} tokens"
    for size in settings.batch_sizes:
        seconds: dict[str, list[float]] = {run.name: [] for run, _ in pairs}
        for turn in range(settings.rounds):
            # There and back, so that no case always follows the same other one.
            for run, process in pairs[:: 1 if (start + turn) % 2 == 0 else -1]:
                bar.set_postfix_str(f"{run.name}, {inputs}, batch {size}")
                answer = process.ask(run.command, batch_size=size, **run.inputs, **how)
                seconds[run.name] += answer.pop("seconds")
                run.values.update(answer)
                bar.update()
        for run, _ in pairs:
            run.values["batches"][str(size)]["starts_s"].append(statistics.median(seconds[run.name]))
            run.values["batches"][str(size)]["passes"].append(len(seconds[run.name]))


def _case(name: str) -> FormatCase:
    if name not in CASES:
        raise UserError(f"speed: no such file format: {name}; {', '.join(CASES)} are known")
    return CASES[name]
