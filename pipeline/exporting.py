"""The meeting of two rooms: evaluation scores files, conversion makes them."""

import functools
from collections.abc import Iterable, Sequence
from typing import Any

from distilrubert.common.errors import UserError
from distilrubert.common.formats import FORMATS
from distilrubert.conversion.conversion_settings import ConversionSettings
from distilrubert.conversion.writers import VERSION, export_finetuned, require_packages
from distilrubert.evaluation.tasks.exported import Exporter
from distilrubert.evaluation.tasks.task import TaskDefinition
from distilrubert.modeling.families import MODEL_TYPES


def exporters_of(cases: Sequence[str], settings: ConversionSettings | None = None) -> dict[str, Exporter]:
    """What makes files of fine-tuned models, by case, which is a key of FORMATS.

    Raises:
        UserError: if packages are missing.
    """
    how = settings or ConversionSettings()
    for case in cases:
        require_packages(FORMATS[case].runtime)
    decisive = decisive_settings(how)
    return {case: Exporter(functools.partial(export_finetuned, case, how), decisive) for case in cases}


def check_exported(cases: Sequence[str], tasks: Iterable[TaskDefinition], model_type: str) -> None:
    """Refuse files of fine-tuned models that cannot be made.

    Raises:
        UserError: naming the task and the model's type.
    """
    family = MODEL_TYPES.get(model_type)
    impossible = family.not_exported if family and cases else ()
    for task in tasks:
        if task.task_kind.export_task in impossible:
            raise UserError(
                f"task {task.name}: is {task.kind}, of which no ONNX or OpenVINO file of a {model_type} can be made; "
                "leave these files out, or the task"
            )


def decisive_settings(settings: ConversionSettings) -> dict[str, Any]:
    """What decides an exported file of a fine-tuned model besides the model, as plain JSON values."""
    fields = {"calibration_sentences", "embedding_bits", "largest_layer_error"}
    decisive = settings.model_dump(mode="json", include=fields)
    return {**decisive, "conversion_version": VERSION}
