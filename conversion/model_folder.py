"""A checkpoint in, a folder out that every runtime loads; nothing appears in it that was not proved to agree."""

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from distilrubert.common.errors import UserError
from distilrubert.common.measurements import Measurements
from distilrubert.common.persistence import sha256_of
from distilrubert.conversion.checkpoint import load_checkpoint
from distilrubert.conversion.conversion_settings import ConversionSettings
from distilrubert.conversion.formats import FORMATS, Format
from distilrubert.conversion.material import Material
from distilrubert.conversion.parity import check_parity, measure_parity
from distilrubert.conversion.sentence_transformers import write_sentence_transformers_files

# Files and folders that `convert` may leave in its output beside model.safetensors, whatever the settings.
CONVERTED = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.txt", "modules.json", "1_Pooling", "sentence_bert_config.json", "onnx", "openvino",
)  # fmt: skip
# The same by their paths, without the files of :data:`FORMATS`.
CONVERTED_FILES = (*(name for name in CONVERTED if Path(name).suffix), "1_Pooling/config.json")


def convert(
    model: str | os.PathLike[str],
    output: str | os.PathLike[str],
    settings: ConversionSettings,
    sentences: Sequence[str],
    calibration: Sequence[str] = (),
) -> Measurements:
    """Write the files of a model into `output` and return how closely they agree with it.

    They are made in a folder beside `output` and moved, each by a rename, when all of them hold the tolerances.
    Files of formats that are not asked for, and those of :data:`CONVERTED` that this model does not have, are removed
    from `output`; everything else there is left alone. The same model gives the same bytes again.

    Args:
        model: folder or Hub id of a BERT or DistilBERT with its masked-language head. Weights become fp32.
        output: the folder; made where it is missing.
        settings: the files wanted, and how closely they must agree.
        sentences: real text to compare on.
        calibration: real text to see the ranges of activations on, best none of `sentences`; where none is given,
            those.

    Returns:
        A row for each file, see :func:`~distilrubert.conversion.parity.measure_parity`. ``details`` has the tolerances
        too, and the ``sha256`` of every file that belongs to all of them: configuration, tokenizer, pooling.

    Raises:
        UserError: if there is no such model, a package is missing, the output cannot be written, or a file differs
            from the model by more than is allowed; `output` is then as it was.
    """
    output = Path(output)
    wanted = _wanted(settings)
    for entry in wanted:
        entry.require()
    checkpoint = load_checkpoint(model)
    material = Material.of_text(checkpoint, settings, calibration or sentences)
    with _folder_beside(output) as work:
        for entry in wanted:
            entry.write(material, work)
        config = checkpoint.model.config
        write_sentence_transformers_files(
            work,
            dim=config.hidden_size,
            max_length=min(checkpoint.tokenizer.model_max_length, config.max_position_embeddings),
        )
        measurements = measure_parity(checkpoint, work, wanted, sentences, settings.task)
        measurements.details["tolerance"] = settings.tolerance.model_dump()
        others = [name for name in CONVERTED_FILES if (work / name).is_file()]
        measurements.details["sha256"] = {name: sha256_of(work / name) for name in others}
        if any(entry.precision == "int8" for entry in wanted):
            measurements.details["int8"] = material.report()
        check_parity(measurements, wanted, settings.tolerance)
        _move(work, output, wanted)
    return measurements


def _wanted(settings: ConversionSettings) -> list[Format]:
    """The formats asked for, each once, in the order of the list."""
    cases = {f"onnx-{name}" for name in settings.onnx} | {f"openvino-{name}" for name in settings.openvino}
    return [entry for case, entry in FORMATS.items() if case in cases | {"pytorch-fp32"}]


def files_of(settings: ConversionSettings) -> list[str]:
    """The paths that :func:`convert` writes for these settings, but for those that not every model has."""
    models = [path for entry in _wanted(settings) for path in (entry.path, *entry.companions)]
    return [*models, "config.json", "tokenizer.json", "tokenizer_config.json"]


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
    unwanted = [path for entry in FORMATS.values() if entry not in wanted for path in (entry.path, *entry.companions)]
    scratch = {entry.scratch for entry in FORMATS.values()}
    # Left by another model: pieces beside the new tokenizer would be read by whoever prefers that form of them.
    unwanted += [name for name in CONVERTED if (output / name).is_file() and not (work / name).exists()]
    for path in unwanted:
        (output / path).unlink(missing_ok=True)
    for source in sorted(path for path in work.rglob("*") if path.is_file()):
        relative = source.relative_to(work)
        if relative.as_posix() not in scratch:
            (output / relative).parent.mkdir(exist_ok=True)
            source.replace(output / relative)
