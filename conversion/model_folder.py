"""A checkpoint in, a folder out that every runtime loads; nothing appears in it that was not proved to agree."""

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from distilrubert.common.bars import tracked
from distilrubert.common.errors import UserError
from distilrubert.common.formats import CHECKPOINT, FORMATS, SHARED_FILES, FileFormat, measured_cases
from distilrubert.common.measurements import Environment, Measurements
from distilrubert.common.persistence import clear_write_errors, sha256_of
from distilrubert.common.sentence_files import MODULES_FILE
from distilrubert.conversion.conversion_settings import ConversionSettings
from distilrubert.conversion.export_source import ExportSource
from distilrubert.conversion.parity import check_parity, measure_parity
from distilrubert.conversion.sentence_transformers import write_sentence_transformers_files
from distilrubert.conversion.writers import require_packages, write_file
from distilrubert.modeling.checkpoints import Checkpoint, load_pretrained
from distilrubert.modeling.downloads import module_folder
from distilrubert.modeling.families import takes_token_types
from distilrubert.modeling.heads import has_head
from distilrubert.modeling.sentence_modules import SentenceModules
from distilrubert.modeling.tokenizer_files import student_tokenizer
from distilrubert.modeling.trimmed_checkpoint import copy_surroundings

CONVERTED = tuple(
    dict.fromkeys(path.partition("/")[0] for path in [*SHARED_FILES, *(entry.path for entry in FORMATS.values())])
)
"""Files and folders that :func:`convert` may write into its output, whatever the settings."""


def convert(
    model: str | os.PathLike[str],
    output: str | os.PathLike[str],
    settings: ConversionSettings,
    sentences: Sequence[str],
    calibration: Sequence[str] = (),
    encoder: SentenceModules | None = None,
) -> Measurements:
    """Write the files of a model into `output` and return how closely they agree with it.

    They are made in a folder beside `output` and moved, each by a rename, when all of them hold the tolerances.
    Files of formats that are not asked for, and those of :data:`CONVERTED` that this model does not have, are removed
    from `output`; everything else there is left alone. The same model gives the same bytes again.

    Args:
        model: folder or Hub id of a masked language model, or of an encoder, of a family that is
            taken. Weights become fp32.
        output: the folder; made where it is missing.
        settings: the files wanted, and how closely they must agree.
        sentences: real text to compare on.
        calibration: real text on which the ranges of activations are measured for int8, best none of `sentences`.
        encoder: of an encoder of sentences, what its vectors are; the texts then have its prompts in them. The files of
            sentence-transformers that `model` has are copied as they are.

    Returns:
        A row for each file, see :func:`~distilrubert.conversion.parity.measure_parity`. ``details`` has the tolerances
        too, and the ``sha256`` of every file that belongs to all of them: configuration, tokenizer, pooling.

    Raises:
        UserError: if there is no such model, a package is missing, the output cannot be written, or a file differs
            from the model by more than is allowed; `output` is then as it was.
    """
    output = Path(output)
    wanted = [CHECKPOINT, *(FORMATS[case] for case in settings.cases)]
    for entry in wanted:
        require_packages(entry.runtime)
    if not sentences:
        raise UserError("conversion: no sentences to compare the files on; at least one is needed")
    is_quantized = any(entry.precision == "int8" for entry in wanted)
    if is_quantized and not calibration:
        raise UserError("conversion: no text to calibrate int8 files on; give some, best other than it is compared on")
    checkpoint = _load(model)
    if (headed := [entry.path for entry in wanted if entry.task == "fill-mask"]) and not has_head(checkpoint.model):
        raise UserError(f"{model}: has no masked-language-modelling head, which {headed[0]} needs")
    source = ExportSource.of_text(checkpoint, settings, calibration)
    with _folder_beside(output) as work:
        for entry in tracked(wanted, "exporting and quantising", unit="file"):
            write_file(entry.case, source, work)
        _write_sentence_files(module_folder(model), checkpoint, encoder, work)
        cases = measured_cases(wanted, Environment.capture().instruction_sets)
        measurements = measure_parity(
            checkpoint, work, cases, sentences, settings.task, encoder.pooling if encoder else None
        )
        measurements.details["tolerance"] = settings.tolerance.model_dump()
        others = [name for name in SHARED_FILES if (work / name).is_file()]
        measurements.details["sha256"] = {name: sha256_of(work / name) for name in others}
        if is_quantized:
            measurements.details["int8"] = source.report()
        check_parity(measurements, cases, settings.tolerance)
        _move(work, output, wanted)
    return measurements


def _load(model: str | os.PathLike[str]) -> Checkpoint:
    """The checkpoint, its tokenizer giving only inputs that the model takes."""
    checkpoint = load_pretrained(model)
    gives_types = "token_type_ids" in checkpoint.tokenizer.model_input_names
    if gives_types and not takes_token_types(checkpoint.model.config):
        return checkpoint._replace(tokenizer=student_tokenizer(checkpoint.tokenizer))
    return checkpoint


def _write_sentence_files(model: Path, checkpoint: Checkpoint, encoder: SentenceModules | None, folder: Path) -> None:
    """The files of sentence-transformers: the model's own, which say what its vectors are, or new ones."""
    if (model / MODULES_FILE).is_file():
        copy_surroundings(model, folder)
        return
    write_sentence_transformers_files(
        folder,
        dim=checkpoint.model.config.hidden_size,
        max_length=checkpoint.tokenizer.model_max_length,
        sentences=encoder,
    )


@contextlib.contextmanager
def _folder_beside(output: Path) -> Iterator[Path]:
    # Beside and not inside: what a SIGKILL leaves must never lie in a folder that is published.
    with clear_write_errors(output):
        if output.exists() and not output.is_dir():
            raise UserError(f"{output}: cannot be written: it is a file; a folder is needed")
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{output.name}.", suffix=".tmp", dir=output.parent) as work:
            yield Path(work)


def _move(work: Path, output: Path, wanted: Sequence[FileFormat]) -> None:
    output.mkdir(exist_ok=True)
    unwanted = [path for entry in FORMATS.values() if entry not in wanted for path in entry.paths]
    # Left by another model: libraries that prefer the other form of the vocabulary would read it.
    unwanted += [name for name in CONVERTED if (output / name).is_file() and not (work / name).exists()]
    for path in unwanted:
        (output / path).unlink(missing_ok=True)
    for source in sorted(path for path in work.rglob("*") if path.is_file()):
        target = output / source.relative_to(work)
        target.parent.mkdir(exist_ok=True)
        source.replace(target)
