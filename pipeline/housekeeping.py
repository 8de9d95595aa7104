"""`distilrubert status` and `distilrubert clean`: the stages of a run directory and the disk that they take."""

import argparse
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from distilrubert.common.errors import UserError
from distilrubert.common.training.live_progress import read_live_progress
from distilrubert.model_card.formatting import counted, duration
from distilrubert.pipeline.run import locked
from distilrubert.pipeline.stage_folders import StageFolder, StageFolders, size_of
from distilrubert.pipeline.terminal import format_size, new_table, print_table

NOT_BEGUN = "no stage has begun yet"


def status(options: argparse.Namespace) -> None:
    """Print the stages of a run directory, their state and their size on disk, also while it runs."""
    folders = _folders(options.run_dir)
    current = {folder.path for folder in folders.current()}
    found = sorted(folders.all(), key=lambda folder: (folder.path not in current, folder.path.name))
    if options.json:
        stages = [_described(folder, is_current=folder.path in current) for folder in found]
        print(json.dumps({"stages": stages, "bytes": size_of([options.run_dir])}))
        return
    if not found:
        print(f"{options.run_dir}: {NOT_BEGUN}")
        return
    print_table(_table(found, current))
    for folder in found:
        training = _newest_training(folder)
        if not folder.is_complete and (progress := read_live_progress(training)):
            print(f"{folder.stage}: {_progress_line(progress, _newest_checkpoint(training), time.time())}")
    kept = [folder.path for folder in found if folder.path not in current]
    sizes = f"{format_size(size_of([options.run_dir]))} in {options.run_dir}"
    if kept:
        sizes += f", {_own_size(folders, kept)} of it in results of other settings (`distilrubert clean` removes them)"
    print(sizes)


def _described(folder: StageFolder, *, is_current: bool) -> dict[str, Any]:
    """A stage for machines."""
    training = _newest_training(folder)
    checkpoint = _newest_checkpoint(training)
    return {
        "stage": folder.stage,
        "folder": str(folder.path),
        "is_complete": folder.is_complete,
        "is_current": is_current,
        "missing": folder.missing(),
        "bytes": size_of([folder.path]),
        "seconds": folder.seconds,
        "progress": read_live_progress(training),
        "checkpoint": None if checkpoint is None else str(checkpoint),
    }


def _newest_training(folder: StageFolder) -> Path:
    """The folder of its training; of a task, which is trained on at each learning rate, that of the latest."""
    places = [folder.path, *folder.path.glob("training/rate-*")]
    return max(places, key=lambda place: (read_live_progress(place) or {}).get("written_at", 0.0))


def _newest_checkpoint(training: Path) -> Path | None:
    found = [path for path in training.glob("checkpoints/checkpoint-*") if path.name.rpartition("-")[2].isdecimal()]
    return max(found, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def _progress_line(progress: Mapping[str, Any], checkpoint: Path | None, now: float) -> str:
    """How far a training stage is, and how old that is."""
    losses = ", ".join(f"{name} {value:.4g}" for name, value in progress["losses"].items())
    kept = f"newest checkpoint: {checkpoint.name}" if checkpoint else "no checkpoint yet"
    return (
        f"step {progress['step']} of {progress['total_steps']}, {progress['tokens_per_s']:.0f} tokens/s, "
        f"{duration(progress['left_s'])} left; {losses}; {kept}; as of {duration(now - progress['written_at'])} ago"
    )


def clean(options: argparse.Namespace) -> None:
    """List what does not belong to the latest settings of a run, and remove it if the user says so."""
    folders = _folders(options.run_dir)
    if not any(folders.folder.iterdir()):
        print(f"{options.run_dir}: {NOT_BEGUN}")
        return
    with locked(options.run_dir):
        current = {folder.path for folder in folders.current()}
        others = [folder for folder in folders.all() if folder.path not in current]
        known = {folder.path for folder in folders.all()}
        remains = [path for path in folders.folder.glob("*/") if path not in known]
        if not (others or remains):
            print(f"{options.run_dir}: everything belongs to the latest settings; there is nothing to remove")
            return
        if others:
            print_table(_table(others, current))
        for path in remains:
            print(f"{path}: belongs to no stage, for example what a removal that was interrupted has left")
        size = _own_size(folders, [folder.path for folder in others] + remains)
        if not options.yes:
            print(f"{size} would be free. Nothing was removed; add --yes to remove these")
            return
        for folder in others:
            folders.remove(folder)
        for path in remains:
            shutil.rmtree(path, ignore_errors=True)
        print(f"Removed {counted(len(others) + len(remains), 'folder')}, {size}")


def _folders(run_dir: Path) -> StageFolders:
    folders = StageFolders(run_dir)
    if not folders.folder.is_dir():
        raise UserError(f"{run_dir}: not a run directory: there is no folder stages in it")
    return folders


def _own_size(folders: StageFolders, removed: list[Path]) -> str:
    """Bytes that are free once these are removed: files that others have links to stay."""
    kept = [path for path in folders.folder.iterdir() if path not in removed]
    return format_size(size_of([*kept, *removed]) - size_of(kept))


def _table(found: list[StageFolder], current: set[Path]) -> Table:
    table = new_table(None, ["stage", "folder", "state"], ["size"])
    for folder in found:
        state = "complete" if folder.is_complete else "begun"
        state += "" if folder.path in current else ", of other settings"
        if missing := folder.missing():
            state = f"{missing} is missing"
        table.add_row(folder.stage, folder.path.name, state, format_size(size_of([folder.path])))
    return table
