"""What the Hub accepts in a card, so that a card is checked without asking it."""

import re

import langcodes
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

# What the Hub takes in place of a language.
NO_LANGUAGES = {"multilingual": "several languages", "code": "program code"}


def is_language(code: str) -> bool:
    """Whether the Hub takes it as a language: two or three letters of ISO 639, or :data:`NO_LANGUAGES`."""
    return code in NO_LANGUAGES or (re.fullmatch(r"[a-z]{2,3}", code) is not None and langcodes.tag_is_valid(code))


def is_license(identifier: str) -> bool:
    """Whether it has the form of an identifier of huggingface.co/docs/hub/repositories-licenses; the list grows."""
    return re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", identifier) is not None


def language_name(code: str) -> str:
    """The English name of a language; its code in quotes if there is no name."""
    name = NO_LANGUAGES.get(code) or langcodes.Language.get(code).display_name()
    return f"'{code}'" if name.startswith("Unknown language") else name


def is_repo_id(name: str) -> bool:
    """Whether `name` can be the id of a repository."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True
