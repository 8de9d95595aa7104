"""How fast and how good a model is: speed, prediction of held-out text, labelled tasks."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distilrubert.evaluation.quality import measure_quality
    from distilrubert.evaluation.settings import FinetuningSettings, IntrinsicSettings, QualitySettings
    from distilrubert.evaluation.speed import SpeedCase, SpeedSettings, measure_speed
    from distilrubert.evaluation.task import TaskDefinition, known_tasks, load_task

__all__ = [
    "FinetuningSettings",
    "IntrinsicSettings",
    "QualitySettings",
    "SpeedCase",
    "SpeedSettings",
    "TaskDefinition",
    "known_tasks",
    "load_task",
    "measure_quality",
    "measure_speed",
]

# The models' and metrics' code takes seconds to load, which `--help` and a mistyped recipe must not cost.
_HOMES = {
    "FinetuningSettings": "settings",
    "IntrinsicSettings": "settings",
    "QualitySettings": "settings",
    "SpeedCase": "speed",
    "SpeedSettings": "speed",
    "TaskDefinition": "task",
    "known_tasks": "task",
    "load_task": "task",
    "measure_quality": "quality",
    "measure_speed": "speed",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
