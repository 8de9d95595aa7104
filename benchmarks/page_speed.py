"""How soon the demo page of the smallest students answers: ``python benchmarks/page_speed.py [--starts 5]``.

The pages of benchmarks/page_sizes.py, with the library beside them, come from a server on this machine. The pages take
turns; each start is a headless Chromium of its own, so that nothing is kept from the one before. The first prediction
is counted from the beginning of the navigation, as the page's own clock has it, and the later ones are the time that
the page shows: tokenisation, model, and likeliest tokens. Needs Node 20, Chromium, and the packages of
tests/clients/node (``npm install`` there). The result is benchmarks/results/page_speed.json.
"""

import argparse
import json
import random
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from page_sizes import SIZES, random_model
from transformers import AutoTokenizer

from distilrubert.common.bars import progress_bar
from distilrubert.common.measurements import Environment, Measurements, Row
from distilrubert.model_card.space.demo_page import write_page

HERE = Path(__file__).parent
RESULT = HERE / "results" / "page_speed.json"
PACKAGES = HERE.parent / "tests/clients/node/node_modules"
# Words of a text beside the masked one, and how many such texts a start predicts.
WORDS = {"sentence": 8, "paragraph": 100}
TEXTS = 10


def texts_of(model: Path) -> dict[str, list[str]]:
    """Texts of each length out of whole words of the vocabulary, so that a word is a token."""
    vocabulary = AutoTokenizer.from_pretrained(model).get_vocab()
    words = sorted(token for token in vocabulary if token.isalpha() and len(token) > 2)
    drawn = random.Random(0)
    return {
        name: [" ".join(["[MASK]", *drawn.sample(words, count)]) for _ in range(TEXTS)] for name, count in WORDS.items()
    }


def start(pages: Path, name: str, texts: dict[str, list[str]]) -> dict[str, Any]:
    """Open a page in a new browser and let it predict; what was measured, and the version of the browser."""
    order = json.dumps({"folder": str(pages), "page": name, "texts": texts})
    done = subprocess.run(
        ["node", str(HERE / "page_speed.mjs")], input=order, stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--starts", type=int, default=5, help="browsers for each page (default: 5)")
    parser.add_argument("--output", type=Path, default=RESULT, help="the file to write")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        models, pages = Path(work) / "models", Path(work) / "pages"
        parameters = {name: random_model(models / name, name) for name in SIZES}
        for name in SIZES:
            write_page(models / name, pages / name, offline_assets=PACKAGES)
        texts = {name: texts_of(models / name) for name in SIZES}
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in SIZES}
        with progress_bar("pages", options.starts * len(SIZES), unit="start") as bar:
            for _ in range(options.starts):
                for name in SIZES:
                    found[name].append(start(pages, name, texts[name]))
                    bar.update()
    rows = [row_of(name, parameters[name], starts) for name, starts in found.items()]
    (browser,) = {one["browser"] for starts in found.values() for one in starts}
    details = {"browser": browser, "texts": TEXTS, "words": WORDS}
    Measurements(Environment.capture(threads=1), rows, details=details).save(options.output)
    for row in rows:
        print(
            f"{row.case}: first prediction after {max(row.values['first_prediction_s']):.2f} s at most, then "
            + ", ".join(f"{statistics.median(row.values[f'{kind}_ms']):.1f} ms for a {kind}" for kind in WORDS)
        )


def row_of(name: str, parameters: int, starts: list[dict[str, Any]]) -> Row:
    """The raw values: the first prediction of each start, and the median of each start's later ones."""
    later = {f"{kind}_ms": [statistics.median(one["milliseconds"][kind]) for one in starts] for kind in WORDS}
    longest = {f"{kind}_longest_ms": [max(one["milliseconds"][kind]) for one in starts] for kind in WORDS}
    first = [one["first_s"] for one in starts]
    return Row(name, {"parameters": parameters, "first_prediction_s": first, **later, **longest})


if __name__ == "__main__":
    main()
