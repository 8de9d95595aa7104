"""What a visitor of a demo page downloads, as it was measured."""

from pathlib import Path

import pytest

from distilrubert.common.measurements import Measurements

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("name", "megabytes"), [("tiny", 20), ("tiny-5k", 6)])
def test_a_page_is_small(name: str, megabytes: float) -> None:
    values = Measurements.load(ROOT / "benchmarks/results/page_sizes.json")[name].values
    parts = ("page_bytes", "tokenizer_and_config_bytes", "graph_bytes")
    assert values["total_bytes"] == sum(values[part] for part in parts) <= megabytes * 1e6
