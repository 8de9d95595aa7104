"""`distilrubert compare`: several finished runs side by side."""

import argparse
from pathlib import Path

from distilrubert.common.errors import UserError
from distilrubert.common.persistence import atomic_file, check_writable
from distilrubert.model_card.comparison import comparison_table, differences, draw_comparison, quality_of, read_runs
from distilrubert.model_card.drawing import to_png
from distilrubert.pipeline.summary import print_card_table


def compare(options: argparse.Namespace) -> None:
    """Print what runs measured and how their recipes differ, and draw quality over speed and size."""
    output: Path = options.output
    if output.suffix.lower() != ".png":
        raise UserError(f"--output {output}: a picture is written; its name ends in .png")
    check_writable(output)
    runs = read_runs(options.run_dirs)
    quality = quality_of(runs)
    print_card_table("Files", comparison_table(runs, quality))
    print_card_table("Fields of the recipes that differ", differences(runs))
    picture = draw_comparison(runs, quality)
    if picture is None:
        print("No picture: the runs have no measure of quality, or no speed, in common")
        return
    with atomic_file(output) as beside:
        beside.write_bytes(to_png(picture))
    print(f"The picture is in {output}")
