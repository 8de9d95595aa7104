"""The front matter of a card, as every room reads it."""

import re
from typing import Any

import yaml

_FORM = re.compile(r"\A---[ \t]*\r?\n(.*?\n)---[ \t]*(?:\r?\n|\Z)(.*)", re.DOTALL)


def split_card(text: str) -> tuple[dict[str, Any], str]:
    """The front matter of a card, and the text below it.

    Raises:
        ValueError: in one line, if it has none of this form.
    """
    found = _FORM.match(text)
    if found is None:
        raise ValueError("has no front matter; it starts with a line ---, YAML, and another line ---")
    try:
        metadata = yaml.safe_load(found[1])
    # A date that does not exist is a ValueError.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"its front matter is not YAML: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(metadata, dict):
        raise ValueError("its front matter is not a mapping of keys to values")
    return metadata, found[2]
