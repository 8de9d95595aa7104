"""How close our int8 files and the peers' come to the checkpoint that they were made of, on real text.

    DISTILRUBERT_DATA=FOLDER python benchmarks/inference/file_parity.py --output FILE.json

Of the reference teacher (12 layers, 384 wide), calibrated on 128 texts of its corpus, ours and NNCF's alike. `rows` has
each file's figures on texts as they are (``short-…``) and joined to as many tokens as the model takes (``long-…``),
as in a published parity.json. About six minutes.
"""

import argparse
import dataclasses
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from datasets import load_dataset
from peers import PEERS, register_peers, write_peers
from variants import VARIANTS

from distilrubert.common.derived import derive
from distilrubert.common.formats import CASES, FORMATS, FormatCase
from distilrubert.common.measurements import Environment, Measurements, Row
from distilrubert.conversion.conversion_settings import ConversionSettings
from distilrubert.conversion.export_source import ExportSource
from distilrubert.conversion.parity import measure_parity
from distilrubert.conversion.writers import write_file
from distilrubert.modeling.checkpoints import Checkpoint, load_pretrained

OURS = ("pytorch-fp32", "onnx-int8", "onnx-int8-avx512-vnni", "openvino-int8")
COMPARED_PEERS = ("peer-ortquantizer-int8", "peer-nncf-int8")
TEXTS = {"short": 150, "long": 12}


def main() -> None:
    """Make the files, compare them and write the report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="JSON file to write")
    options = parser.parse_args()
    if not (data := Path(os.environ.get("DISTILRUBERT_DATA", ""))).joinpath("teacher").is_dir():
        parser.error("DISTILRUBERT_DATA does not name the folder with the reference data")
    register_peers()
    checkpoint = load_pretrained(data / "teacher")
    settings = ConversionSettings()
    files = str(data / "corpus/*.parquet")
    corpus = load_dataset("parquet", data_files=files, columns=["text"], split="train").shuffle(seed=0)[:20_000]["text"]
    calibration, rest = corpus[: settings.calibration_sentences], corpus[settings.calibration_sentences :]
    texts = {"short": rest[: TEXTS["short"]], "long": _joined(checkpoint, rest[TEXTS["short"] :], TEXTS["long"])}
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        cases = _write(ExportSource.of_text(checkpoint, settings, calibration), folder)
        measured = {name: derive(measure_parity(checkpoint, folder, cases, chosen)) for name, chosen in texts.items()}
    rows = [Row(f"{name}-{row.case}", row.values) for name, found in measured.items() for row in found.rows]
    for row in rows:
        print(
            row.case, *(f"{row.values[key]:.5f}" for key in ("token_cosine", "minimal_token_cosine", "pooled_cosine"))
        )
    details = {name: found.details for name, found in measured.items()}
    Measurements(Environment.capture(), rows, details=details).save(options.output)


def _joined(checkpoint: Checkpoint, texts: Sequence[str], count: int) -> list[str]:
    """Texts in a row, each of more characters than the tokens that the model takes can have."""
    enough = 8 * checkpoint.model.config.max_position_embeddings
    joined = [""]
    for text in texts:
        if len(joined[-1]) > enough:
            if len(joined) == count:
                break
            joined.append("")
        joined[-1] += f"{text} "
    return joined


def _write(source: ExportSource, folder: Path) -> list[FormatCase]:
    for case in OURS:
        write_file(case, source, folder)
    write_peers(source, folder)
    return [*(CASES[case] for case in OURS), *(PEERS[case] for case in COMPARED_PEERS), _scores_in_float(folder)]


def _scores_in_float(folder: Path) -> FormatCase:
    import openvino

    ours = FORMATS["openvino-int8"]
    graph = openvino.Core().read_model(ours.opened_in(folder))
    VARIANTS["scores-in-float"].change(graph, 0)
    openvino.save_model(graph, folder / "scores_in_float.xml", compress_to_fp16=False)
    changed = dataclasses.replace(
        ours, name="int8-scores-in-float", path="scores_in_float.bin", companions=("scores_in_float.xml",)
    )
    return FormatCase(changed)


if __name__ == "__main__":
    main()
