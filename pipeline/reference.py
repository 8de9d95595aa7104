"""The reference page of the recipe and of task files, docs/recipe.md, made from the descriptions of their fields.

``python -m distilrubert.pipeline.reference`` prints it; a test keeps the committed page equal to it.
"""

import json
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from distilrubert.common.checked_settings import sections_in
from distilrubert.evaluation.tasks.task import TaskDefinition
from distilrubert.pipeline.recipe import Recipe

INTRODUCTION = """\
# The recipe

One YAML file says everything that a run needs. Unknown keys are refused. A relative path starts at the recipe's folder.
A path can name `${DISTILRUBERT_NAME}`, an environment variable; no other variable is expanded, because a recipe
can come from someone else. If the variable holds a relative path, that path starts where the command is run.
`--set KEY=VALUE` on the command line changes one field; dots separate the levels: `--set distillation.max_steps=200`. A
[task of your own](evaluation.md#a-task-of-your-own) is a YAML file by itself: the last three sections.

`recipes/demo.yaml` is a small complete example. This page is generated from the code:
`python -m distilrubert.pipeline.reference > docs/recipe.md`.
"""


def reference_page() -> str:
    """The page, in Markdown: a table for each section, in the order in which a recipe and a task's file have them.

    A section that several keys hold is printed once, and all of them link to it.
    """
    paths: dict[type[BaseModel], str] = {}
    _find(Recipe, "", paths)
    _find(TaskDefinition, "task-file", paths)
    return "\n".join([INTRODUCTION, *(_table(section, paths) for section in paths)])


def _find(section: type[BaseModel], path: str, paths: dict[type[BaseModel], str]) -> None:
    if section not in paths:
        paths[section] = path
        for key, field in section.model_fields.items():
            for inner in sections_in(field.annotation):
                _find(inner, f"{path}.{key}".removeprefix("."), paths)


def _table(section: type[BaseModel], paths: Mapping[type[BaseModel], str]) -> str:
    summary = (section.__doc__ or "").strip().partition("\n\n")[0]
    lines = [f"## {paths[section] or 'top level'}\n", f"{' '.join(summary.split())}\n"]
    lines += ["| key | kind | default | meaning |", "|---|---|---|---|"]
    for key, field in section.model_fields.items():
        kind = _kind(field.annotation, paths)
        lines.append(f"| `{key}` | {kind} | {_default(field)} | {_escaped(field.description or '')} |")
    return "\n".join([*lines, ""])


def _kind(annotation: Any, paths: Mapping[type[BaseModel], str]) -> str:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"[section](#{paths[annotation].replace('.', '')})"
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _kind(arguments[0], paths)
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join("null" if kind is type(None) else _kind(kind, paths) for kind in arguments)
    if origin in (list, tuple):
        return f"list of {_kind(arguments[0], paths)}"
    if origin is dict:
        return f"mapping to {_kind(arguments[1], paths)}"
    return {"str": "text", "int": "whole number", "float": "number", "bool": "true or false"}[annotation.__name__]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True)
    if isinstance(default, BaseModel):
        default = default.model_dump(exclude_defaults=True) or PydanticUndefined
    if default is PydanticUndefined:
        return ""
    return f"`{_escaped(json.dumps(default, ensure_ascii=False))}`"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    sys.stdout.write(reference_page())
