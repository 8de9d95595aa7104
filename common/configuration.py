"""The base of every configuration section of a recipe, and the kinds of path that one may hold."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationInfo

from distilrubert.common.errors import UserError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_VARIABLE = re.compile(r"\$\{(\w+)\}")
# A recipe can come from a stranger: a path with any other variable in it could carry a token away.
_PREFIX = "DISTILRUBERT_"


class Section(BaseModel):
    """A group of settings: immutable, unknown keys refused, every field described with its unit.

    Each room defines its own sections, so that it can be driven alone; the recipe only puts them together,
    and the reference page of the documentation is made from the descriptions.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())


def flattened(values: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings and lists as one mapping with dotted keys; an empty one in another is a value."""
    if isinstance(values, Mapping) and (values or not prefix):
        items = list(values.items())
    elif isinstance(values, list) and values:
        items = list(enumerate(values))
    else:
        return {prefix.removesuffix("."): values}
    return {key: value for name, inner in items for key, value in flattened(inner, f"{prefix}{name}.").items()}


def is_url(path: str) -> bool:
    """Whether a path is on a file system of fsspec: ``s3://bucket/folder``."""
    return _URL.match(path) is not None


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

    if is_url(text):
        return _VARIABLE.sub(value_of, text)
    return str(expand_home(_VARIABLE.sub(value_of, text)))


def _recipe_folder(info: ValidationInfo) -> Path | None:
    context: Mapping[str, Any] = info.context or {}
    return context.get("folder")


def _resolve_path(text: str, info: ValidationInfo) -> str:
    expanded = _expand_variables(text)
    folder = _recipe_folder(info)
    return str(folder / expanded) if folder and not is_url(expanded) else expanded


def _resolve_name_or_path(text: str, info: ValidationInfo) -> str:
    expanded = _expand_variables(text)
    folder = _recipe_folder(info)
    if folder and (expanded != text or text.startswith(".") or (folder / expanded).exists()):
        return str(folder / expanded)
    return expanded


RecipePath = Annotated[str, AfterValidator(_resolve_path)]
"""A path or glob: ``${DISTILRUBERT_NAME}`` is an environment variable; a relative path starts at the recipe's folder.

A path that begins with a variable starts at the working directory instead, and a URL stays as it is. The folder comes
as pydantic's validation context, ``{"folder": Path}``; without it a path stays as it is.
"""

NameOrPath = Annotated[str, AfterValidator(_resolve_name_or_path)]
"""A name (a Hub id, a shipped task) or a path: a path where it starts with a dot, names a variable, or exists."""
