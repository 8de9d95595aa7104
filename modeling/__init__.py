"""What a teacher and a student are: architectures, loading, initialisation, vocabularies.

The lowest room: it imports no other. It also holds what every room stands on: the user's error
(:mod:`~distilrubert.modeling.errors`), files that appear whole or not at all
(:mod:`~distilrubert.modeling.persistence`), the base of configuration sections
(:mod:`~distilrubert.modeling.configuration`) and the common form of measurements
(:mod:`~distilrubert.modeling.reports`).
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distilrubert.modeling.configuration import NameOrPath, RecipePath, Section
    from distilrubert.modeling.errors import UserError
    from distilrubert.modeling.heads import MlmHead, encoder_of, mlm_head_of
    from distilrubert.modeling.presets import (
        PRESETS,
        ResolvedArchitecture,
        StudentArchitecture,
        spread_layers,
        student_config,
    )
    from distilrubert.modeling.reports import Environment, Measurements, Row
    from distilrubert.modeling.student import Student, build_student, load_student, save_student
    from distilrubert.modeling.teacher import Teacher, load_teacher, new_teacher, save_teacher
    from distilrubert.modeling.tokenizer_files import save_tokenizer, student_tokenizer
    from distilrubert.modeling.vocabulary import train_wordpiece

__all__ = [
    "PRESETS",
    "Environment",
    "Measurements",
    "MlmHead",
    "NameOrPath",
    "RecipePath",
    "ResolvedArchitecture",
    "Row",
    "Section",
    "Student",
    "StudentArchitecture",
    "Teacher",
    "UserError",
    "build_student",
    "encoder_of",
    "load_student",
    "load_teacher",
    "mlm_head_of",
    "new_teacher",
    "save_student",
    "save_teacher",
    "save_tokenizer",
    "spread_layers",
    "student_config",
    "student_tokenizer",
    "train_wordpiece",
]

# Loading BERT's and DistilBERT's code takes seconds, which `--help` and a mistyped recipe must not cost.
_HOMES = {
    "Environment": "reports",
    "Measurements": "reports",
    "MlmHead": "heads",
    "NameOrPath": "configuration",
    "PRESETS": "presets",
    "RecipePath": "configuration",
    "ResolvedArchitecture": "presets",
    "Row": "reports",
    "Section": "configuration",
    "Student": "student",
    "StudentArchitecture": "presets",
    "Teacher": "teacher",
    "UserError": "errors",
    "build_student": "student",
    "encoder_of": "heads",
    "load_student": "student",
    "load_teacher": "teacher",
    "mlm_head_of": "heads",
    "new_teacher": "teacher",
    "save_student": "student",
    "save_teacher": "teacher",
    "save_tokenizer": "tokenizer_files",
    "spread_layers": "presets",
    "student_config": "presets",
    "student_tokenizer": "tokenizer_files",
    "train_wordpiece": "vocabulary",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
