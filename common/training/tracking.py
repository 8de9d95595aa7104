"""Experiment trackers: TensorBoard, Weights & Biases, MLflow, trackio and the others that accelerate knows."""

import json
import uuid
from collections.abc import Mapping
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import get_available_trackers

from distilrubert.common.configuration import flattened
from distilrubert.common.errors import UserError


def check_trackers(names: list[str], field: str) -> None:
    """See that every tracker is installed; accelerate itself would leave out the others silently.

    Raises:
        UserError: naming `field` and the one that is not.
    """
    installed = sorted(str(name) for name in get_available_trackers())
    for name in names:
        if name not in installed:
            raise UserError(f"{field}: {name} is not installed; installed are {', '.join(installed) or 'none'}")


def start_trackers(
    accelerator: Accelerator, project: str, name: str, settings: Mapping[str, Any], step: int, run_ids: dict[str, str]
) -> dict[str, str]:
    """Start the accelerator's trackers; those that write files do so in its project folder.

    Args:
        accelerator: made with ``log_with``.
        project: groups the runs of one recipe.
        name: of the run in the project.
        settings: shown with the run; nested ones get dotted names.
        step: updates that are done.
        run_ids: what the call before has returned, where the run is resumed, so that a tracker continues it; or empty.

    Returns:
        How the trackers call the run, to be kept with the checkpoints.
    """
    is_new = not run_ids
    run_ids = run_ids or {"run": uuid.uuid4().hex}
    run_id = run_ids["run"]
    name = f"{name}-{run_id[:8]}"
    options: dict[str, dict[str, Any]] = {
        # A killed run may have logged updates that are now done again.
        "tensorboard": {"purge_step": step + 1},
        "wandb": {"dir": accelerator.project_dir, "id": run_id, "name": name, "resume": "allow"},
        "trackio": {"name": name, "resume": "allow"},
        "mlflow": {"run_id": run_ids.get("mlflow"), "run_name": name},
    }
    # Written a second time, the settings would appear as a second run in TensorBoard.
    config = {key: _plain(value) for key, value in flattened(settings).items()} if is_new else None
    accelerator.init_trackers(project, config, init_kwargs=options)
    for tracker in accelerator.trackers:
        # MLflow gives its runs ids of its own.
        if tracker.name == "mlflow" and accelerator.is_main_process:
            run_ids = {**run_ids, "mlflow": tracker.tracker.info.run_id}
    return run_ids


def finish_trackers(accelerator: Accelerator) -> None:
    """Let the trackers write what they hold (accelerate's own end would end the process group, too)."""
    for tracker in accelerator.trackers:
        tracker.finish()


def _plain(value: Any) -> str | int | float:
    """A value as every tracker takes it."""
    return value if isinstance(value, str | int | float) else json.dumps(value)
