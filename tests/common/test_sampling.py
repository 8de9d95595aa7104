"""Parts of sequences."""

import numpy as np

from distilrubert.common.sampling import evenly, sampled


def test_even_distances_from_the_first_to_the_last() -> None:
    assert evenly(range(9), 3) == [0, 4, 8]
    assert evenly("абв", 5) == ["а", "б", "в"]


def test_a_sample_has_the_order_of_the_items_and_no_preference() -> None:
    assert sampled(iter("абв"), 5) == ["а", "б", "в"]
    found = sampled(iter(range(1000)), 100)
    assert found == sorted(set(found)) == sampled(range(1000), 100)
    assert len(found) == 100
    # Each tenth of the items gives about a tenth.
    assert np.histogram(found, bins=4, range=(0, 1000))[0].min() > 12
