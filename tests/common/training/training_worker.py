"""Tiny training runs in forked processes, so that torch is imported once for many of them.

``python training_worker.py SCENARIO FOLDER`` leaves what happened in FOLDER/results.json.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny_run import digest, poison, run, sine_of_weights, weights_of

from distilrubert.common.errors import UserError
from distilrubert.common.persistence import write_json
from distilrubert.common.training import run_checkpoints as checkpoints
from distilrubert.common.training import trainer
from distilrubert.common.training.training_run import EpochEvaluation, TrainingRun
from distilrubert.common.training.update import Updater
from distilrubert.distill import distillation
from distilrubert.distill.batches.masking import Masker
from distilrubert.distill.losses.objective import Objective

# Processes


def start(action: Callable[[], object], **environment: str) -> int:
    """Fork a process that does `action`; its exit status is as the command line's would be."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        os.environ.update(environment)
        torch.set_num_threads(1)
        action()
        status = 0
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        status = 2
    except KeyboardInterrupt:
        status = 130
    except BaseException:
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(status)


def wait(child: int, seconds: float = 120) -> int:
    """The exit status of a child, negative for a signal; it must end in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise TimeoutError("the process hangs")


def alone(action: Callable[[], object]) -> int:
    return wait(start(action))


def start_together(action: Callable[[int], object], processes: int) -> list[int]:
    """Fork processes that do `action` as a group, set up as by torchrun."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    group = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes), "OMP_NUM_THREADS": "1"}
    group |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks = range(processes)
    return [start(partial(action, rank), **group, RANK=str(rank), LOCAL_RANK=str(rank)) for rank in ranks]


def together(action: Callable[[int], object], processes: int = 2) -> list[int]:
    return [wait(child) for child in start_together(action, processes)]


# What they do


def record(folder: Path, rank: int = 0, **overrides: Any) -> None:
    """Run, and leave the outcome in the folder."""
    visits = _note_visits()
    if overrides.pop("poisoned", False):
        poison(Objective)
    if overrides.pop("evaluated", False):
        distillation.TrainingRun = _evaluated_run
    student, report = run(folder, **overrides)
    figures = {key: report.rows[0].values[key] for key in ("resumes", "tokens", "steps", "skipped_updates")}
    curves = {key: report.details.get(key, []) for key in ("curves", "validation", "evaluations")}
    write_json(folder / f"outcome-{rank}.json", {"digest": digest(student), **curves, **figures, "visits": visits})
    np.save(folder / f"weights-{rank}.npy", weights_of(student))


def _evaluated_run(*, objective: Objective, **options: Any) -> TrainingRun:
    evaluation = EpochEvaluation(lambda: {"score": sine_of_weights(objective)}, "score", patience=1)
    return TrainingRun(objective=objective, **options, evaluation=evaluation)


def _note_visits() -> list[tuple[int, int]]:
    """Which examples are masked in which epoch, from now on."""
    original = Masker.mask_batch
    visits: list[tuple[int, int]] = []

    def noting(self: Masker, examples: Any, epoch: int, indices: list[int]) -> Any:
        visits.extend((epoch, index) for index in indices)
        return original(self, examples, epoch, indices)

    Masker.mask_batch = noting
    return visits


def outcome(folder: Path, rank: int = 0) -> dict[str, Any]:
    return json.loads((folder / f"outcome-{rank}.json").read_text())


def difference(left: Path, right: Path) -> float:
    return float(np.abs(np.load(left / "weights-0.npy") - np.load(right / "weights-0.npy")).max())


def record_with_fault(
    folder: Path, owner: Any, name: str, number: int, fault: Callable[[], None], rank: int = 0, **overrides: Any
) -> None:
    """Record, with a fault just before the trainer's or checkpoints' n-th call of `owner.name`."""
    original = getattr(owner, name)
    calls = iter(range(1, sys.maxsize))

    def replacement(*args: Any, **kwargs: Any) -> Any:
        caller = sys._getframe(1).f_globals["__name__"]
        if caller in (trainer.__name__, checkpoints.__name__) and next(calls) == number:
            fault()
        return original(*args, **kwargs)

    setattr(owner, name, replacement)
    record(folder, rank, **overrides)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def be_asked_to_stop(number: signal.Signals = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


def ask_the_group_to_stop() -> None:
    # As torchrun and service managers do: the processes that load data are asked too.
    os.killpg(0, signal.SIGTERM)


def in_a_group_of_its_own(action: Callable[[], object]) -> None:
    os.setpgrp()
    action()


def crash() -> None:
    raise RuntimeError("a fault on one process")


def checkpoints_in(folder: Path) -> dict[str, list[str]]:
    """The files of each visible checkpoint."""
    found = sorted((folder / "checkpoints").glob("checkpoint-*"))
    return {path.name: sorted(file.name for file in path.iterdir()) for path in found}


# Scenarios

# Where a process is killed: what it is about to do for the n-th time.
KILLS = {
    "in an update": (Updater, "__call__", 4),
    "before the moments are written": (checkpoints, "save_file", 2),
    "before the state is written": (Path, "write_text", 2),
    "before old checkpoints are removed": (checkpoints, "_remove", 1),
    "while an old checkpoint is removed": (shutil, "rmtree", 1),
}


def stops(folder: Path) -> dict[str, Any]:
    """One process, killed at each of `KILLS` or asked to stop in its fifth update, then resumed."""
    assert alone(partial(record, folder / "straight")) == 0
    results = {"straight": outcome(folder / "straight")}
    for name, (owner, attribute, number) in KILLS.items():
        place = folder / name.replace(" ", "-")
        status = alone(partial(record_with_fault, place, owner, attribute, number, die))
        left = checkpoints_in(place)
        resumed = alone(partial(record, place))
        hidden = [path.name for path in (place / "checkpoints").glob(".*")]
        results[name] = {**outcome(place), "status": status, "left": left, "resumed": resumed, "hidden": hidden}
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        place = folder / number.name
        fault = partial(be_asked_to_stop, number)
        status = alone(partial(record_with_fault, place, Updater, "__call__", 5, fault, checkpoint_every=None))
        left = checkpoints_in(place)
        resumed = alone(partial(record, place, checkpoint_every=None))
        results[number.name] = {**outcome(place), "status": status, "left": left, "resumed": resumed}
    place = folder / "group"
    asked = partial(record_with_fault, place, Updater, "__call__", 5, ask_the_group_to_stop, num_workers=2)
    status = alone(partial(in_a_group_of_its_own, partial(asked, checkpoint_every=None)))
    left = checkpoints_in(place)
    resumed = alone(partial(record, place, checkpoint_every=None))
    results["with the group"] = {**outcome(place), "status": status, "left": left, "resumed": resumed}
    # Asked before the first update that is left: what is saved already is not written again.
    place = folder / "twice"
    alone(partial(record_with_fault, place, Updater, "__call__", 5, be_asked_to_stop, checkpoint_every=None))
    (saved,) = (place / "checkpoints").iterdir()
    before = saved.stat().st_ino
    status = alone(partial(record_with_fault, place, Updater, "__call__", 1, be_asked_to_stop, checkpoint_every=None))
    results["twice"] = {"status": status, "same": before == saved.stat().st_ino, "left": checkpoints_in(place)}
    return results


def random_kills(folder: Path) -> dict[str, Any]:
    """One process and two; one is killed at random moments, as often as KILLS says, and all resumed."""
    times = int(os.environ.get("KILLS", "2"))
    return {name: _random_kills(folder / name, processes, times) for name, processes in (("one", 1), ("two", 2))}


def _random_kills(folder: Path, processes: int, times: int) -> dict[str, Any]:
    def act(place: Path) -> Callable[[int], None]:
        return partial(record, place)

    generator = random.Random(time.time_ns())
    started = time.monotonic()
    assert together(act(folder / "straight"), processes) == [0] * processes
    duration = time.monotonic() - started
    place, left, finished = folder / "killed", [], []
    while len(left) < times:
        children = start_together(act(place), processes)
        time.sleep(generator.uniform(0, duration))
        os.kill(generator.choice(children), signal.SIGKILL)
        for child in children:
            # While a group forms, only the launcher can tell that one is missing: as torchrun does, end the others.
            with contextlib.suppress(TimeoutError):
                wait(child, seconds=10)
        left.append(checkpoints_in(place))
        if (place / "outcome-0.json").exists():
            # It had finished: the next kills hit a run from the start.
            finished.append(outcome(place))
            shutil.rmtree(place)
    resumed = together(act(place), processes)
    finished.append(outcome(place))
    return {"straight": outcome(folder / "straight"), "finished": finished, "resumed": resumed, "left": left}


def ranks(folder: Path) -> dict[str, Any]:
    """Two processes: against one, without some weights, killed, stopped, crashed, and with mistakes of the user."""
    results: dict[str, Any] = {}
    for batches in (2, 4):
        one, two = folder / f"one-{batches}", folder / f"two-{batches}"
        changes = {"batches_per_update": batches, "weights": {"mlm": 1.0, "kl": 1.0}, "kl_positions": "masked"}
        assert alone(partial(record, one, **changes)) == 0
        assert together(partial(record, two, **changes)) == [0, 0]
        both = [outcome(two, rank) for rank in (0, 1)]
        results[f"{batches} batches"] = {"one": outcome(one), "two": both, "difference": difference(one, two)}

    recomputed = folder / "recomputed"
    assert together(partial(record, recomputed, gradient_checkpointing=True)) == [0, 0]
    results["recomputed"] = outcome(recomputed)

    for name, changes in UNTRAINED.items():
        both, its_one = folder / name, folder / f"{name}-one"
        assert alone(partial(record, its_one, **changes, batches_per_update=2)) == 0
        statuses = together(partial(record, both, **changes, batches_per_update=2))
        digests = [outcome(where, rank)["digest"] for where, rank in ((both, 0), (both, 1), (its_one, 0))]
        results[name] = {"statuses": statuses, "digests": digests}

    one, two = folder / "poisoned-one", folder / "poisoned-two"
    assert alone(partial(record, one, poisoned=True)) == 0
    assert together(partial(record, two, poisoned=True)) == [0, 0]
    results["poisoned"] = {"one": outcome(one), "two": [outcome(two, rank) for rank in (0, 1)]}

    one, two = folder / "evaluated-one", folder / "evaluated-two"
    assert alone(partial(record, one, evaluated=True, epochs=4)) == 0
    assert together(partial(record, two, evaluated=True, epochs=4)) == [0, 0]
    results["evaluated"] = {"one": outcome(one), "two": [outcome(two, rank) for rank in (0, 1)]}

    straight = folder / "straight"
    assert together(partial(record, straight)) == [0, 0]
    results["straight"] = outcome(straight)
    for fault in (die, be_asked_to_stop, crash):
        place = folder / fault.__name__
        statuses = together(partial(_with_fault_on_the_second, place, fault))
        left = checkpoints_in(place)
        resumed = together(partial(record, place))
        results[fault.__name__] = {**outcome(place), "statuses": statuses, "left": left, "resumed": resumed}

    # Of two numbers the sum is the same in either order; three show whether a resumed run adds as before.
    three, again = folder / "three", folder / "three-stopped"
    changes = {"batches_per_update": 3, "epochs": 4}
    assert together(partial(record, three, **changes), 3) == [0, 0, 0]
    statuses = together(partial(_with_fault_on_the_second, again, be_asked_to_stop, **changes), 3)
    assert together(partial(record, again, **changes), 3) == [0, 0, 0]
    results["three"] = {"straight": outcome(three), "resumed": outcome(again), "statuses": statuses}

    blocked = folder / "blocked"
    blocked.mkdir()
    (blocked / "checkpoints").write_text("a file where the folder should be")
    results["blocked"] = together(partial(record, blocked))
    results["odd"] = together(partial(record, folder / "odd", batches_per_update=3))

    place = folder / "passed-on"
    status = alone(partial(record_with_fault, place, Updater, "__call__", 4, be_asked_to_stop))
    resumed = together(partial(record, place))
    results["passed on"] = {**outcome(place), "status": status, "resumed": resumed}
    return results


def _with_fault_on_the_second(folder: Path, fault: Callable[[], None], rank: int, **overrides: Any) -> None:
    if rank == 1:
        record_with_fault(folder, Updater, "__call__", 4, fault, rank, **overrides)
    else:
        record(folder, rank, **overrides)


# Some weights that no loss reaches, and some that are not to be trained.
UNTRAINED: dict[str, dict[str, Any]] = {
    "headless": {"weights": {"cosine": 1.0}},
    "frozen": {"freeze_embeddings": True},
    "sentences": {"weights": {"sentence_cosine": 1.0, "similarity": 5.0}},
    "kept": {"weights": {"sentence_cosine": 1.0, "similarity": 5.0}, "cache_teacher_vectors": True},
}

if __name__ == "__main__":
    name, target = sys.argv[1], Path(sys.argv[2])
    if name == "record":
        # Under torchrun: the process is one of a group.
        record(target, int(os.environ["RANK"]))
    else:
        results = {"stops": stops, "random_kills": random_kills, "ranks": ranks}[name](target)
        (target / "results.json").write_text(json.dumps(results))
