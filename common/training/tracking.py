"""Experiment trackers: TensorBoard, Weights & Biases, trackio and whatever else accelerate knows."""

from typing import Any

from accelerate import Accelerator
from accelerate.tracking import get_available_trackers

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


def start_trackers(accelerator: Accelerator, project: str, settings: dict[str, Any]) -> None:
    """Start the accelerator's trackers; those that write files do so in its project folder."""
    # Trackers take plain values only.
    config = {name: value for name, value in settings.items() if isinstance(value, str | int | float)}
    folder = accelerator.project_dir
    accelerator.init_trackers(project, config, init_kwargs={"wandb": {"dir": folder}} if folder else {})


def finish_trackers(accelerator: Accelerator) -> None:
    """Let the trackers write what they hold (accelerate's own end would end the process group, too)."""
    for tracker in accelerator.trackers:
        tracker.finish()
