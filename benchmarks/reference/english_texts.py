"""English text for the recipes reference-e5-small and reference-e5-tiny, from clones of two public data sets.

    git clone https://github.com/clinc/oos-eval
    git clone https://github.com/snipsco/nlu-benchmark
    python benchmarks/reference/english_texts.py --clinc oos-eval --snips nlu-benchmark --output english.txt

clinc/oos-eval (CC BY 3.0) has requests to assistants of ten domains, and sentences of Wikipedia; snipsco/nlu-benchmark
(CC0) has requests of seven kinds. The file has one text a line, each once, in the order of the data sets.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from distilrubert.common.errors import UserError
from distilrubert.common.persistence import write_text
from distilrubert.pipeline.exit_statuses import DONE, USER_ERROR


def main() -> int:
    """Write the file; the exit status as the command line has it."""
    parser = argparse.ArgumentParser(description="Collect English texts of two public data sets, one a line.")
    parser.add_argument("--clinc", type=Path, required=True, metavar="FOLDER", help="clone of clinc/oos-eval")
    parser.add_argument("--snips", type=Path, required=True, metavar="FOLDER", help="clone of snipsco/nlu-benchmark")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="the file to write, .txt")
    options = parser.parse_args()
    try:
        texts = dict.fromkeys([*clinc_texts(options.clinc), *snips_texts(options.snips)])
        write_text(options.output, "".join(f"{text}\n" for text in texts))
    except (OSError, UserError) as error:
        print(f"english_texts.py: {error}", file=sys.stderr)
        return USER_ERROR
    print(f"{len(texts):,} texts written to {options.output}")
    return DONE


def clinc_texts(clone: Path) -> Iterator[str]:
    """Yield the requests of all parts, then the sentences of Wikipedia."""
    parts = json.loads((clone / "data" / "data_full.json").read_text("utf-8"))
    for part in parts.values():
        for text, _intent in part:
            yield text
    yield from (clone / "data" / "all_wiki_sents.txt").read_text("utf-8").splitlines()


def snips_texts(clone: Path) -> Iterator[str]:
    """Yield the requests of the training parts; a request comes in pieces, one for each slot and between them."""
    folder = clone / "2017-06-custom-intent-engines"
    for kind in sorted(path for path in folder.iterdir() if path.is_dir()):
        path = kind / f"train_{kind.name}_full.json"
        # Some files are not in UTF-8.
        (requests,) = json.loads(path.read_text("utf-8", errors="replace")).values()
        for request in requests:
            yield " ".join("".join(piece["text"] for piece in request["data"]).split())


if __name__ == "__main__":
    sys.exit(main())
