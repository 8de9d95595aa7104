"""Settings out of files that people wrote, or that come from elsewhere: what is wrong with them is told in one line."""

import difflib
import os
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from distilrubert.common.errors import UserError

S = TypeVar("S", bound=BaseModel)

# Keys of older recipes, by which their errors name the key of today.
RENAMED_KEYS = {"clip": "max_grad_norm"}


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that stands twice in a mapping, of which PyYAML takes the last without a word."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value} is there twice", key.start_mark
                    )
                seen.add(key.value)
        return node


def load_yaml(text: str) -> Any:
    """The plain values of a YAML document that somebody wrote by hand.

    Raises:
        yaml.YAMLError: if it is not YAML, or a mapping has a key twice.
    """
    try:
        return yaml.load(text, _StrictLoader)  # noqa: S506  (a safe loader)
    except ValueError as error:
        # Of a value that looks like a date and is none.
        raise yaml.YAMLError(str(error)) from error


def read_yaml(path: Path, what: str) -> dict[str, Any]:
    """The mapping in a YAML file; `what` it is, for messages.

    Raises:
        UserError: if the file cannot be read, is not YAML, or holds no mapping.
    """
    try:
        values = load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UserError(f"{path}: the {what} cannot be read: {reason}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path}: {_yaml_problem(error)}") from error
    except RecursionError:
        raise UserError(f"{path}: invalid YAML: nested too deeply") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: a {what} is a mapping of keys to values, found {kind_of(values)}")
    return values


def _yaml_problem(error: yaml.YAMLError) -> str:
    said = f"invalid YAML: {getattr(error, 'problem', None) or error}"
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return said
    hint = '; a value with ${…} is put in quotes: "${DISTILRUBERT_NAME}/…"' if "${" in mark.get_snippet() else ""
    return f"line {mark.line + 1}, column {mark.column + 1}: {said}{hint}"


def kind_of(value: Any) -> str:
    """What a plain value is, for messages."""
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false", list: "a list"}
    return "nothing" if value is None else names.get(type(value), f"a {type(value).__name__}")


def validated(section: type[S], values: Any, folder: Path | None = None, where: str = "") -> S:
    """A section with these plain values by key; relative paths start at `folder`, and `where` is the section's place.

    Raises:
        UserError: naming the field that is missing, unknown or of the wrong kind.
    """
    try:
        return section.model_validate(values, context={"folder": folder})
    except ValidationError as error:
        raise UserError(_one_line(error, section, where)) from None


def stated_settings(
    section: type[S], values: Any, file: str | os.PathLike[str], where: str = "", folder: Path | None = None
) -> S:
    """Settings out of a file, which may come from anywhere.

    Args:
        section: what they have to be.
        values: what is there.
        file: where they were read, for the message.
        where: their place in it, as a dotted path.
        folder: where relative paths start.

    Raises:
        UserError: if they are none.
    """
    try:
        return validated(section, values, folder, where)
    except UserError as error:
        raise UserError(f"{os.fspath(file)}: {error}") from None


def _one_line(error: ValidationError, model: type[BaseModel], place: str) -> str:
    """The first problem of a validation in one line: where, what is wrong, what is allowed."""
    # A misspelt key often causes a missing one too: the misspelling is the better thing to say.
    problems = sorted(error.errors(include_url=False), key=lambda problem: problem["type"] != "extra_forbidden")
    problem = problems[0]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{_describe(problem, model, place)}{more}"


def _describe(problem: ErrorDetails, model: type[BaseModel], place: str) -> str:
    # What is unknown is a key that somebody wrote, whatever it looks like.
    unknown = problem["loc"][-1:] if problem["type"] == "extra_forbidden" else ()
    location = [part for part in problem["loc"] if part in unknown or not _is_union_tag(part)]
    where = ".".join(str(part) for part in [place, *location] if part != "")
    if problem["type"] == "extra_forbidden":
        return f"unknown key {where}{_suggestion(location, model)}"
    if problem["type"] == "missing":
        return f"{where} is missing"
    if problem["type"] == "model_type":
        said = f"a section is needed, of {', '.join(_keys_at(location, model))}, found {problem['input']!r}"
    else:
        message, found = problem["msg"].removeprefix("Value error, "), problem["input"]
        said = message[:1].lower() + message[1:]
        said += "" if isinstance(found, dict | list) else f", found {found!r}"
    return f"{where}: {said}" if where else said


def _is_union_tag(part: int | str) -> bool:
    """Whether pydantic put `part` into a location to name a member of a union, not a key."""
    return isinstance(part, str) and ("[" in part or part in ("str", "int", "float", "bool", "list"))


def _suggestion(location: Sequence[int | str], model: type[BaseModel]) -> str:
    known = _keys_at(location[:-1], model)
    key = str(location[-1])
    nearest = difflib.get_close_matches(RENAMED_KEYS.get(key, key), known, n=1, cutoff=0.5)
    return f": did you mean {nearest[0]}?" if nearest else f"; known here: {', '.join(known)}"


def _keys_at(location: Sequence[int | str], model: type[BaseModel]) -> list[str]:
    """The keys of the section at `location` below `model`."""
    for part in location:
        if isinstance(part, str) and part in model.model_fields:
            model = next(sections_in(model.model_fields[part].annotation), model)
    return list(model.model_fields)


def sections_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections named in a field's type, also inside lists and optional types."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is not None:
        for argument in typing.get_args(annotation):
            yield from sections_in(argument)
