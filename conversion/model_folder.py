"""A checkpoint in, a folder out that every runtime loads; nothing appears in it that was not proved to agree."""

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from distilrubert.conversion.checkpoint import load_checkpoint
from distilrubert.conversion.formats import FORMATS, Format
from distilrubert.conversion.onnx import require_onnx
from distilrubert.conversion.parity import check_parity, measure_parity
from distilrubert.conversion.sentence_transformers import write_sentence_transformers_files
from distilrubert.conversion.settings import ConversionSettings
from distilrubert.modeling.errors import UserError
from distilrubert.modeling.reports import Measurements


def convert(
    model: str | os.PathLike[str],
    output: str | os.PathLike[str],
    settings: ConversionSettings,
    sentences: Sequence[str],
) -> Measurements:
    """Write the files of a model into `output` and return how closely they agree with it.

    They are made in a folder beside `output` and moved, each by a rename, when all of them hold the tolerances.
    Files of formats that are not asked for are removed from `output`; everything else there is left alone. The same
    model gives the same bytes again.

    Args:
        model: folder or Hub id of a BERT or DistilBERT with its masked-language head. Weights become fp32.
        output: the folder; made where it is missing.
        settings: the files wanted, and how closely they must agree.
        sentences: real text to compare on.

    Returns:
        A row for each file, see :func:`~distilrubert.conversion.parity.measure_parity`.

    Raises:
        UserError: if there is no such model, a package is missing, the output cannot be written, or a file differs
            from the model by more than is allowed; `output` is then as it was.
    """
    output = Path(output)
    wanted = [FORMATS["pytorch-fp32"], *(FORMATS[f"onnx-{precision}"] for precision in dict.fromkeys(settings.onnx))]
    if settings.onnx:
        require_onnx()
    checkpoint = load_checkpoint(model)
    with _folder_beside(output) as work:
        for entry in _with_sources(wanted):
            entry.write(checkpoint, work)
        config = checkpoint.model.config
        write_sentence_transformers_files(
            work,
            dim=config.hidden_size,
            max_length=min(checkpoint.tokenizer.model_max_length, config.max_position_embeddings),
        )
        measurements = measure_parity(checkpoint, work, wanted, sentences)
        check_parity(measurements, wanted, settings.tolerance)
        _move(work, output, wanted)
    return measurements


def _with_sources(formats: Sequence[Format]) -> list[Format]:
    """The formats and what they are made of, each once, in an order in which they can be written."""
    needed = {entry.case for entry in formats} | {entry.source for entry in formats}
    return [entry for case, entry in FORMATS.items() if case in needed]


@contextlib.contextmanager
def _folder_beside(output: Path) -> Iterator[Path]:
    # Beside and not inside: what a SIGKILL leaves must never lie in a folder that is published.
    try:
        if output.exists() and not output.is_dir():
            raise UserError(f"{output}: cannot be written: it is a file; a folder is needed")
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{output.name}.", suffix=".tmp", dir=output.parent) as work:
            yield Path(work)
    except OSError as error:
        raise UserError(f"{output}: cannot be written: {error.strerror or error}") from error


def _move(work: Path, output: Path, wanted: Sequence[Format]) -> None:
    output.mkdir(exist_ok=True)
    unwanted = [entry.path for entry in FORMATS.values() if entry not in wanted]
    for path in unwanted:
        (output / path).unlink(missing_ok=True)
    for source in sorted(path for path in work.rglob("*") if path.is_file()):
        relative = source.relative_to(work)
        if relative.as_posix() not in unwanted:
            (output / relative).parent.mkdir(exist_ok=True)
            source.replace(output / relative)
