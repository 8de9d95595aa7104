"""All checks of a folder before it is published, offline."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from distilrubert.pipeline.hub.check_card import check_card
from distilrubert.pipeline.hub.check_exports import check_exports
from distilrubert.pipeline.hub.check_files import check_files
from distilrubert.pipeline.hub.check_model import check_model
from distilrubert.pipeline.hub.check_references import check_references
from distilrubert.pipeline.hub.files import ModelFolder
from distilrubert.pipeline.statement import Statement

Check = Callable[[ModelFolder], Iterator[Statement]]

CHECKS: tuple[Check, ...] = (
    check_files,
    check_references,
    check_card,
    check_model,
    check_exports,
)
PAGE_CHECKS = (check_files, check_references)


def preflight(folder: Path, checks: Sequence[Check] = CHECKS) -> list[Statement]:
    """All that must be corrected before a folder may be published, sorted by file.

    Raises:
        UserError: if there is no such folder.
    """
    model_folder = ModelFolder(folder)
    return sorted({problem for check in checks for problem in check(model_folder)}, key=str)
