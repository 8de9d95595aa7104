"""What is left of a multilingual encoder when its vocabulary is trimmed, and that its vectors stay the same.

    python benchmarks/distillation/trimmed_sizes.py --model FOLDER --corpus FOLDER \
        --output benchmarks/results/trimming.json

The model is multilingual-e5-small, whose texts begin with "query: "; the corpus is Parquet files with a column `text`.
Every fiftieth text is held out. What is tokenised differently of it is measured with a vocabulary for which only the
others were counted. Sizes are those of the vocabulary for which all were counted. In the first case all texts are
tokenised again, of which none may be tokenised differently, and vectors of `--lines` texts, evenly out of all, are
compared: vocabularies with more tokens read the texts as this one does.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import pyarrow.parquet
import torch
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

from distilrubert.common.measurements import Environment, Measurements, Row
from distilrubert.common.sampling import evenly
from distilrubert.modeling.checkpoints import quiet_transformers, read_model_config
from distilrubert.modeling.trimmed_checkpoint import read_weights, weight_files, write_trimmed
from distilrubert.modeling.trimming import count_needed, ids_in, measure_resplit, trim_tokenizer
from distilrubert.modeling.vocabulary_settings import TrimSettings

PREFIX = "query: "
WHOLE = "whole"
LETTERS = ["Cyrillic", "Latin"]
FIRST = "needed once"
CASES = {
    FIRST: TrimSettings(keep_letters=LETTERS),
    "needed 5 times": TrimSettings(keep_letters=LETTERS, minimum_count=5),
    "needed once, all of Cyrillic": TrimSettings(keep_letters=LETTERS, keep_scripts=["Cyrillic"]),
    "needed once, all single characters": TrimSettings(),
}


class Encoder:
    """A model that makes vectors of texts.

    Args:
        folder: where it is.
    """

    def __init__(self, folder: Path) -> None:
        with quiet_transformers():
            self._tokenizer = AutoTokenizer.from_pretrained(folder)
            self._model = AutoModel.from_pretrained(folder, add_pooling_layer=False).eval()

    @torch.inference_mode()
    def vectors(self, texts: list[str]) -> Tensor:
        """The normalised mean of each text's last hidden states, (B, D)."""
        inputs = self._tokenizer(texts, truncation=True, padding=True, return_tensors="pt")
        hidden_BLD, mask_BL1 = self._model(**inputs).last_hidden_state, inputs["attention_mask"][:, :, None]
        mean_BD = (hidden_BLD * mask_BL1).sum(dim=1) / mask_BL1.sum(dim=1)
        return torch.nn.functional.normalize(mean_BD)


def largest_difference(one: Path, other: Path, texts: list[str], batch: int = 64) -> float:
    """The largest difference between numbers of the vectors that two models make of the same texts."""
    encoders, largest = [Encoder(folder) for folder in (one, other)], 0.0
    ordered = sorted(texts, key=len)
    for start in range(0, len(ordered), batch):
        found_BD, expected_BD = (encoder.vectors(ordered[start : start + batch]) for encoder in encoders)
        largest = max(largest, float((found_BD - expected_BD).abs().max()))
        if start % (20 * batch) == 0:
            print(f"{start} of {len(ordered)} texts: {largest}", flush=True)
    return largest


def file_mib(folder: Path) -> float:
    """Size of the weights."""
    return sum(file.stat().st_size for file in weight_files(folder)) / 2**20


def texts_of(folder: Path) -> list[str]:
    """The corpus, each text with the prefix."""
    files = sorted(folder.glob("*.parquet"))
    columns = [pyarrow.parquet.read_table(file, columns=["text"])["text"].to_pylist() for file in files]
    return [PREFIX + text for column in columns for text in column]


def main() -> None:
    """Measure the cases and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--lines", type=int, default=10_000, help="texts whose vectors are compared")
    arguments = parser.parse_args()
    texts = texts_of(arguments.corpus)
    held_out, others = texts[::50], [text for number, text in enumerate(texts) if number % 50]
    with quiet_transformers():
        whole = AutoTokenizer.from_pretrained(arguments.model)
    config = read_model_config(arguments.model, str(arguments.model))
    weights = read_weights(arguments.model, str(arguments.model), config)
    counts_V, its_counts_V = count_needed(whole, others), count_needed(whole, held_out)
    print(f"{int((counts_V + its_counts_V > 0).sum())} of {len(whole)} tokens are needed", flush=True)
    lines = evenly(texts, arguments.lines)
    size = file_mib(arguments.model)
    rows = [Row(WHOLE, {"tokens": len(whole), "file_mib": size}, 1.0)]
    for case, settings in CASES.items():
        trimmed = trim_tokenizer(whole, counts_V + its_counts_V, settings)
        values: dict[str, Any] = {"tokens": len(trimmed)}
        measured = {"held_out": (held_out, trim_tokenizer(whole, counts_V, settings))}
        for part, (given, tokenizer) in (measured | ({"corpus": (texts, trimmed)} if case == FIRST else {})).items():
            found = measure_resplit(whole, tokenizer, given)
            values[f"{part}_resplit_token_share"] = found.dropped / found.tokens
            values[f"{part}_resplit_text_share"] = found.changed / found.texts
        with tempfile.TemporaryDirectory() as name:
            write_trimmed(arguments.model, weights, config, trimmed, ids_in(whole, trimmed), Path(name))
            values["file_mib"] = file_mib(Path(name))
            if case == FIRST:
                values["largest_difference"] = largest_difference(Path(name), arguments.model, lines)
        print(case, values, flush=True)
        rows.append(Row(case, values, size / values["file_mib"]))
    details = {
        "needed": int((counts_V + its_counts_V > 0).sum()),
        "texts": len(texts),
        "held_out_texts": len(held_out),
        "lines": len(lines),
        "corpus_tokens": int((counts_V + its_counts_V).sum()),
    }
    Measurements(Environment.capture(), rows, WHOLE, details).save(arguments.output)


if __name__ == "__main__":
    main()
