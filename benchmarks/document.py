"""Write the tables of README and docs/ from the committed results: ``python benchmarks/document.py``.

A page asks for a table by a comment, ``<!-- table: inference.rows -->``, which names a file of benchmarks/results and a
view of it in benchmarks/documented. The text between it and ``<!-- end -->`` is replaced. The file of another machine
or model has that after a hyphen, ``inference-amx.rows``, and the same views. A test keeps pages and results together.
"""

import re
from pathlib import Path

from documented import inference_tables, scale_tables, score_tables, training_tables
from documented.view import Table

from distilrubert.common.measurements import Measurements
from distilrubert.common.persistence import write_text

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
REQUEST = re.compile(r"(<!-- table: ([\w/]+)((?:-[\w-]+)?)\.(\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
VIEWS: dict[tuple[str, str], Table] = {
    **inference_tables.VIEWS, **scale_tables.VIEWS, **score_tables.VIEWS, **training_tables.VIEWS,
}  # fmt: skip
"""By the name of the file and that of the view."""


def with_tables(page: str) -> str:
    """The text of a page, its tables made from the results."""

    def replace(request: re.Match[str]) -> str:
        beginning, name, variant, view, end = request.groups()
        return beginning + VIEWS[name, view](Measurements.load(RESULTS / f"{name}{variant}.json")) + end

    return REQUEST.sub(replace, page)


def main() -> None:
    """Rewrite the pages."""
    for page in PAGES:
        write_text(page, with_tables(page.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
