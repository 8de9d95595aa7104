"""The base of every configuration section of a recipe, and the kinds of path that one may hold."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, ValidationInfo

from distilrubert.common.errors import UserError

S = TypeVar("S", bound=BaseModel)

_VARIABLE = re.compile(r"\$\{(\w+)\}")
# A recipe can come from a stranger: a path with any other variable in it could carry a token away.
_PREFIX = "DISTILRUBERT_"


class Section(BaseModel):
    """A group of settings: immutable, unknown keys refused, every field described with its unit.

    Each room defines its own sections, so that it can be driven alone; the recipe only puts them together,
    and the reference page of the documentation is made from the descriptions.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())


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
    return yaml.load(text, _StrictLoader)  # noqa: S506  (a safe loader)


def flattened(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The entries of nested mappings with dotted keys; an empty mapping has none."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def stated_settings(section: type[S], values: Any, file: str | os.PathLike[str], where: str) -> S:
    """Settings out of a report or a resolved recipe, which may come from anywhere.

    Args:
        section: what they have to be.
        values: what is there.
        file: where they were read, for the message.
        where: their place in it, as a dotted path; empty for the whole file.

    Raises:
        UserError: if they are none.
    """
    try:
        return section.model_validate(values)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in (where, *problem["loc"]) if part != "")
        raise UserError(": ".join(filter(None, (os.fspath(file), field, problem["msg"])))) from None


def expand_home(path: str | os.PathLike[str]) -> Path:
    """The path with the folder of a user in place of ``~`` or ``~user``.

    Raises:
        UserError: if there is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"{os.fspath(path)}: there is no such user") from error


def _expand_variables(text: str) -> str:
    def value_of(match: re.Match[str]) -> str:
        name = match.group(1)
        if not name.startswith(_PREFIX):
            raise ValueError(
                f"only variables named {_PREFIX}… are expanded, because others can hold secrets; rename {name}"
            )
        if name not in os.environ:
            raise ValueError(f"the environment variable {name} is not set")
        # The shell that set it knows the working directory, not the recipe's folder.
        return os.environ[name] if match.start() else str(expand_home(os.environ[name]).absolute())

    return str(expand_home(_VARIABLE.sub(value_of, text)))


def _recipe_folder(info: ValidationInfo) -> Path | None:
    context: Mapping[str, Any] = info.context or {}
    return context.get("folder")


def _resolve_path(text: str, info: ValidationInfo) -> str:
    expanded = _expand_variables(text)
    folder = _recipe_folder(info)
    return str(folder / expanded) if folder else expanded


def _resolve_name_or_path(text: str, info: ValidationInfo) -> str:
    expanded = _expand_variables(text)
    folder = _recipe_folder(info)
    if folder and (expanded != text or text.startswith(".") or (folder / expanded).exists()):
        return str(folder / expanded)
    return expanded


RecipePath = Annotated[str, AfterValidator(_resolve_path)]
"""A path or glob: ``${DISTILRUBERT_NAME}`` is an environment variable; a relative path starts at the recipe's folder.

A path that begins with a variable starts at the working directory instead. The folder comes as pydantic's validation
context, ``{"folder": Path}``; without it a path stays as it is.
"""

NameOrPath = Annotated[str, AfterValidator(_resolve_name_or_path)]
"""A name (a Hub id, a shipped task) or a path: a path where it starts with a dot, names a variable, or exists."""
