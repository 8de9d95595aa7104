"""Exported files against the checkpoint, and their sizes and checksums against the parity report."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from distilrubert.common.checked_settings import stated_settings
from distilrubert.common.errors import UserError
from distilrubert.common.formats import CASES, FORMATS, SHARED_FILES, FileFormat, FormatCase
from distilrubert.common.measurements import Measurements, Row
from distilrubert.common.persistence import sha256_of
from distilrubert.conversion.conversion_settings import Tolerances
from distilrubert.conversion.parity import bounds_of, measure_parity, tolerance_name
from distilrubert.conversion.writers import require_packages
from distilrubert.modeling.checkpoints import Checkpoint, load_pretrained
from distilrubert.pipeline.verification.statement import Statement, checked, unchecked

TASKS = ("feature-extraction", "fill-mask")
UNSTATED = "reports/parity.json has no row for it"
# Of files that may hold weights or graphs.
MODEL_SUFFIXES = frozenset(
    {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack", ".onnx", ".xml", ".tflite", ".gguf"}
)


def check_files(folder: Path, parity: Measurements | None, sentences: Sequence[str]) -> Iterator[Statement]:
    """Check each file of the parity report, and each file of a known format that the report does not have.

    Size and SHA-256 must be the stated ones, SHA-256 also for shared files such as the tokenizer. The sentences of the
    report are not published, so agreement is measured on others. It must be within the tolerances of the report, or
    the default ones if it has none. Model files of other formats are listed.

    Raises:
        UserError: if the report's tolerances or checksums are not valid.
    """
    details = parity.details if parity else {}
    tolerances = stated_settings(
        Tolerances, details.get("tolerance", {}), folder / "reports" / "parity.json", "details.tolerance"
    )
    # Older reports do not have the task. Without a report a file may be for either.
    tasks = [details.get("task", TASKS[0])] if parity else TASKS
    agreement = functools.partial(_check_agreement, folder, _load(folder), tolerances, sentences, tasks)
    rows = parity.rows if parity else []
    yield from _check_others(folder, details.get("sha256", {}))
    for row in rows:
        if row.case not in CASES:
            yield unchecked(row.case, "file", None, f"no such format is known; known: {', '.join(CASES)}")
            continue
        entry = CASES[row.case].format
        if lost := [path for path in entry.paths if not (folder / path).is_file()]:
            yield checked(entry.path, "file", "is there", None, f"{', '.join(lost)} is missing", holds=False)
        else:
            yield from _check_bytes(folder, entry, row)
            yield from agreement(CASES[row.case])
    stated = {row.case for row in rows}
    for entry in FORMATS.values():
        if entry.case not in stated and (folder / entry.path).is_file():
            yield from agreement(FormatCase(entry), UNSTATED)
    yield from _name_unknown(folder)


def _name_unknown(folder: Path) -> Iterator[Statement]:
    known = {path for entry in FORMATS.values() for path in entry.paths}
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix in MODEL_SUFFIXES)
    for path in files:
        if path not in known:
            yield unchecked(path, "file", None, "a model file of an unknown format")


def _check_others(folder: Path, stated: Any) -> Iterator[Statement]:
    """The shared files. Other paths of the report, which may lead out of the folder, are ignored."""
    if not isinstance(stated, Mapping):
        raise UserError(f"{folder / 'reports' / 'parity.json'}: details.sha256: a checksum by file is needed")
    for path in (path for path in SHARED_FILES if path in stated):
        found = sha256_of(folder / path) if (folder / path).is_file() else None
        yield checked(
            path, "sha256", str(stated[path]), found, "" if found else "is missing", holds=found == stated[path]
        )


def _load(folder: Path) -> Checkpoint | UserError:
    try:
        return load_pretrained(folder)
    except UserError as error:
        return error


def _check_bytes(folder: Path, entry: FileFormat, row: Row) -> Iterator[Statement]:
    if (stated_size := row.values.get("size_mib")) is not None:
        size = entry.size_mib(folder)
        yield checked(entry.path, "size_mib", stated_size, size, holds=stated_size == size)
    digests = row.values.get("sha256", {})
    # Older reports have the checksum of the main file alone.
    stated = digests if isinstance(digests, Mapping) else {entry.path: digests}
    found = entry.digests(folder)
    for path in found.keys() & stated.keys():
        yield checked(path, "sha256", stated[path], found[path], holds=stated[path] == found[path])


def _check_agreement(
    folder: Path,
    checkpoint: Checkpoint | UserError,
    tolerances: Tolerances,
    sentences: Sequence[str],
    tasks: Sequence[str],
    case: FormatCase,
    reason: str = "",
) -> Iterator[Statement]:
    entry = case.format
    if isinstance(checkpoint, UserError):
        yield checked(entry.path, "agreement", "with the checkpoint", None, str(checkpoint), holds=False)
        return
    try:
        require_packages(entry.runtime)
    except UserError as error:
        yield unchecked(entry.path, "agreement", "with the checkpoint", str(error))
        return
    for task in tasks:
        try:
            figures = measure_parity(checkpoint, folder, [case], sentences, task).rows[0].values
            break
        # A damaged file can make a runtime raise anything.
        except Exception as error:
            failure = f"cannot be run: {error}"
    else:
        yield checked(entry.path, "agreement", "with the checkpoint", None, failure, holds=False)
        return
    usual = {bound.metric: bound for bound in bounds_of(getattr(Tolerances(), tolerance_name(case)), figures)}
    for bound in bounds_of(getattr(tolerances, tolerance_name(case)), figures):
        value = bound.worst(figures)
        # A report cannot widen its own tolerances.
        if bound.holds(value) and bound.metric in usual and not usual[bound.metric].holds(value):
            lenient = f"within what the report allows, but not within the default {usual[bound.metric].sign}"
            yield unchecked(entry.path, bound.metric, bound.sign, lenient, value)
        else:
            yield checked(entry.path, bound.metric, bound.sign, value, reason, holds=bound.holds(value))
