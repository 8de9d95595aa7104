"""Exported files against the checkpoint, and their sizes and checksums against the parity report."""

import functools
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from distilrubert.common.checked_settings import stated_settings
from distilrubert.common.errors import UserError
from distilrubert.common.formats import CASES, CHECKPOINT, FORMATS, SHARED_FILES, FileFormat, FormatCase
from distilrubert.common.measurements import Measurements, Row
from distilrubert.common.persistence import sha256_of
from distilrubert.conversion.conversion_settings import Tolerances
from distilrubert.conversion.parity import bounds_of, measure_parity, tolerance_name
from distilrubert.conversion.writers import require_packages
from distilrubert.modeling.checkpoints import Checkpoint, load_pretrained
from distilrubert.modeling.sentence_modules import encoder_in
from distilrubert.pipeline.statement import Statement, checked, unchecked

# Of files that may hold weights or graphs.
MODEL_SUFFIXES = frozenset(
    {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack", ".onnx", ".xml", ".tflite", ".gguf"}
)


def check_files(folder: Path, parity: Measurements | None, sentences: Sequence[str]) -> Iterator[Statement]:
    """Check each file of the parity report, and each file of a known format beside them; list other model files.

    Size and SHA-256 must be the stated ones, SHA-256 also for shared files such as the tokenizer. The sentences of the
    report are not published, so agreement is measured on others. It must be within the tolerances of the report, or
    the default ones if it has none.

    Raises:
        UserError: if the report's tolerances are not valid.
    """
    rows, details = (parity.rows, parity.details) if parity else ([], {})
    source = folder / "reports" / "parity.json"
    tolerances = stated_settings(Tolerances, details.get("tolerance", {}), source, "details.tolerance")
    yield from check_shared_files(folder, details)
    task = details.get("task", "feature-extraction")
    checkpoint = _load(folder)
    if isinstance(checkpoint, UserError) and rows:
        yield checked(CHECKPOINT.path, "weights", None, None, str(checkpoint), holds=False)
    agreement = functools.partial(_check_agreement, folder, checkpoint, tolerances, sentences, task)
    known: set[str] = set()
    for row in rows:
        if (case := CASES.get(row.case)) is None:
            yield unchecked(row.case, "file", None, f"no such format is known; known: {', '.join(CASES)}")
            continue
        known |= {*case.format.paths}
        if lost := [path for path in case.format.paths if not (folder / path).is_file()]:
            yield checked(case.format.path, "file", None, None, f"{', '.join(lost)} is missing", holds=False)
        else:
            yield from check_bytes(folder, case.format, row)
            yield from agreement(case)
    stated = {row.case for row in rows}
    for entry in FORMATS.values() if parity else ():
        if entry.case not in stated and (folder / entry.path).is_file():
            known |= {*entry.paths}
            yield from agreement(FormatCase(entry), "reports/parity.json has no row for it")
    yield from list_other_files(folder, known, "reports/parity.json")


def check_shared_files(folder: Path, details: Mapping[str, Any]) -> Iterator[Statement]:
    """Check the SHA-256 that a report's details state of files that all formats share: configuration and tokenizer."""
    # Other paths of the report may lead out of the folder.
    for path in (path for path in SHARED_FILES if path in details.get("sha256", {})):
        yield _check_digest(folder, path, details["sha256"][path])


def list_other_files(folder: Path, known: Set[str], report: str) -> Iterator[Statement]:
    """A statement for each file that may hold weights or graphs and is not among the known ones of a report."""
    for found in sorted(folder.rglob("*")):
        if found.suffix in MODEL_SUFFIXES and (name := found.relative_to(folder).as_posix()) not in known:
            yield unchecked(name, "file", None, f"a model file that {report} does not have")


def _load(folder: Path) -> Checkpoint | UserError:
    try:
        return load_pretrained(folder)
    except UserError as error:
        return error


def check_bytes(folder: Path, entry: FileFormat, row: Row) -> Iterator[Statement]:
    """Compare size and SHA-256 of a file with a report's row on it."""
    if (stated := row.values.get("size_mib")) is not None:
        size = entry.size_mib(folder)
        yield checked(entry.path, "size_mib", stated, size, holds=stated == size)
    for path, digest in row.values.get("sha256", {}).items():
        if path in entry.paths:
            yield _check_digest(folder, path, digest)


def _check_digest(folder: Path, path: str, stated: Any) -> Statement:
    found = sha256_of(folder / path) if (folder / path).is_file() else None
    return checked(path, "sha256", str(stated), found, "" if found else "is missing", holds=found == stated)


def _check_agreement(
    folder: Path,
    checkpoint: Checkpoint | UserError,
    tolerances: Tolerances,
    sentences: Sequence[str],
    task: str,
    case: FormatCase,
    reason: str = "",
) -> Iterator[Statement]:
    path, name = case.format.path, tolerance_name(case)
    if isinstance(checkpoint, UserError):
        yield unchecked(path, "agreement", None, "the checkpoint cannot be loaded")
        return
    try:
        require_packages(case.format.runtime)
    except UserError as error:
        yield unchecked(path, "agreement", None, str(error))
        return
    try:
        encoder = encoder_in(folder)
        parity = measure_parity(checkpoint, folder, [case], sentences, task, encoder.pooling if encoder else None)
        values: Mapping[str, Any] = parity.rows[0].values
    # A damaged file can make a runtime raise anything.
    except Exception as error:
        yield checked(path, "agreement", None, None, f"cannot be run: {error}", holds=False)
        return
    usual, stated = (
        {bound.metric: bound for bound in bounds_of(getattr(each, name), values)} for each in (Tolerances(), tolerances)
    )
    for metric, bound in (usual | stated).items():
        value = bound.worst(values)
        # A report can neither widen its own tolerances nor leave one out.
        if metric in usual and not usual[metric].holds(value) and (metric not in stated or bound.holds(value)):
            lenient = f"within what the report allows, but not within the default {usual[metric].sign}"
            yield unchecked(path, metric, stated[metric].sign if metric in stated else None, lenient, value)
        else:
            yield checked(path, metric, bound.sign, value, reason, holds=bound.holds(value))
