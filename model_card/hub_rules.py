"""What the Hub accepts in a card, so that a card is checked without asking it."""

import re

import langcodes
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

# huggingface.co/docs/hub/repositories-licenses
LICENSES = frozenset(
    """
    apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m
    afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5
    cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0
    cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0
    cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0
    lgpl lgpl-2.1 lgpl-3.0 lgpl-lr isc lppl-1.3c ms-pl mpl-2.0 odc-by odbl openrail++ osl-3.0 postgresql ofl-1.1 ncsa
    unlicense zlib pddl deepfloyd-if-license llama2 gemma unknown other
    """.split()  # noqa: SIM905
)

# What the Hub takes in place of a language.
NO_LANGUAGES = {"multilingual": "several languages", "code": "program code"}


def is_language(code: str) -> bool:
    """Whether the Hub takes it as a language: two or three letters of ISO 639, or :data:`NO_LANGUAGES`."""
    return code in NO_LANGUAGES or (re.fullmatch(r"[a-z]{2,3}", code) is not None and langcodes.tag_is_valid(code))


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
