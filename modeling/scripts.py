"""Scripts of Unicode: which characters are Cyrillic, Latin, Han, and so on."""

import difflib
import functools
from collections.abc import Collection
from typing import Annotated

from fontTools import unicodedata
from pydantic import AfterValidator

# Of characters that texts of any script have: digits, punctuation, combining marks.
SHARED = frozenset({"Common", "Inherited"})
NAMES = sorted(unicodedata.Scripts.NAMES.values())


def _known(name: str) -> str:
    if name in NAMES:
        return name
    nearest = difflib.get_close_matches(name.title(), NAMES)
    advice = f"did you mean {' or '.join(nearest)}?" if nearest else "for example, Cyrillic, Latin and Greek are"
    raise ValueError(f"is no script of Unicode ({advice})")


ScriptName = Annotated[str, AfterValidator(_known)]
"""The name of a script as Unicode has it, in a section of settings."""


@functools.cache
def script_of(character: str) -> str:
    """The script of a character: Cyrillic for "я", Common for "7"."""
    name: str = unicodedata.script_name(unicodedata.script(character))
    return name


def is_of_scripts(text: str, scripts: Collection[str]) -> bool:
    """Whether a text has characters of the scripts, and besides these only such as texts of any script have."""
    found = {script_of(character) for character in text}
    return bool(found & {*scripts}) and found <= SHARED | {*scripts}
