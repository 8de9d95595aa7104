"""Exported files against what the parity report states: size, checksum, agreement with the checkpoint."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from distilrubert.conversion.checkpoint import Checkpoint, load_checkpoint
from distilrubert.conversion.formats import FORMATS, Format
from distilrubert.conversion.parity import bounds_of, measure_parity
from distilrubert.conversion.settings import Tolerances
from distilrubert.modeling.claims import Claim, judged, unchecked
from distilrubert.modeling.configuration import stated_settings
from distilrubert.modeling.errors import UserError
from distilrubert.modeling.persistence import sha256_of
from distilrubert.modeling.reports import Measurements, Row


def check_files(folder: Path, parity: Measurements, sentences: Sequence[str]) -> Iterator[Claim]:
    """Look at each file of a parity report again.

    Size and SHA-256 must be the stated ones. The sentences of the report are not published, so agreement is measured
    on others, and has to be within the tolerances that the report states, or the usual ones where it states none.

    Args:
        folder: the model repository.
        parity: its report.
        sentences: real text to compare on.

    Raises:
        UserError: if the report states tolerances that are none.
    """
    tolerances = stated_settings(
        Tolerances, parity.details.get("tolerance", {}), folder / "reports" / "parity.json", "details.tolerance"
    )
    checkpoint = _load(folder)
    for row in parity.rows:
        entry = FORMATS.get(row.case)
        if entry is None:
            yield unchecked(row.case, "file", None, f"no such format is known; known: {', '.join(FORMATS)}")
        elif lost := [path for path in (entry.path, *entry.companions) if not (folder / path).is_file()]:
            yield judged(entry.path, "file", "is there", None, f"{', '.join(lost)} is missing", holds=False)
        else:
            yield from _check_bytes(folder, entry, row)
            if isinstance(checkpoint, UserError):
                yield judged(entry.path, "agreement", "with the checkpoint", None, str(checkpoint), holds=False)
            else:
                task = parity.details.get("task", "feature-extraction")
                yield from _check_agreement(folder, entry, checkpoint, tolerances, sentences, task)


def _load(folder: Path) -> Checkpoint | UserError:
    try:
        return load_checkpoint(folder)
    except UserError as error:
        return error


def _check_bytes(folder: Path, entry: Format, row: Row) -> Iterator[Claim]:
    found: dict[str, float | str] = {"size_mib": entry.size_mib(folder), "sha256": sha256_of(folder / entry.path)}
    for figure, value in found.items():
        if (claimed := row.figures.get(figure)) is not None:
            yield judged(entry.path, figure, claimed, value, holds=claimed == value)


def _check_agreement(
    folder: Path, entry: Format, checkpoint: Checkpoint, tolerances: Tolerances, sentences: Sequence[str], task: str
) -> Iterator[Claim]:
    bounds = bounds_of(getattr(tolerances, entry.precision))
    try:
        entry.require()
    except UserError as error:
        yield unchecked(entry.path, "agreement", ", ".join(bound.sign for bound in bounds), str(error))
        return
    try:
        figures = measure_parity(checkpoint, folder, [entry], sentences, task).rows[0].figures
    # What a damaged file makes the runtimes raise is not one family.
    except Exception as error:
        yield judged(entry.path, "agreement", "with the checkpoint", None, f"cannot be run: {error}", holds=False)
        return
    for bound in bounds:
        value = bound.worst(figures)
        yield judged(entry.path, bound.figure, bound.sign, value, holds=bound.holds(value))
