"""The set of texts that were seen."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from distilrubert.distill.corpus.deduplication import SeenKeys, as_fraction, text_keys


@given(st.lists(st.lists(st.integers(0, 40), max_size=30), max_size=20))
@settings(max_examples=200)
def test_it_is_a_set(batches: list[list[int]]) -> None:
    seen, expected = SeenKeys(), set[int]()
    for batch in batches:
        new = seen.add(np.array(batch, dtype=np.uint64))
        for key, is_new in zip(batch, new, strict=True):
            assert is_new == (key not in expected)
            expected.add(key)


def test_memory_is_eight_bytes_a_key_in_few_runs() -> None:
    seen = SeenKeys()
    generator = np.random.default_rng(1)
    for _ in range(300):
        seen.add(generator.integers(0, 2**64, 1000, dtype=np.uint64))
    assert sum(run.nbytes for run in seen._runs) == 8 * 300_000
    assert len(seen._runs) <= np.log2(300) + 1


def test_the_three_keys_of_a_text_depend_on_text_and_seed_alone() -> None:
    texts = ["да", "нет", "да", "ДА"]
    keys = text_keys(texts, seed=1)
    assert (keys[0] == keys[2]).all()
    assert (keys == text_keys(texts[::-1], seed=1)[::-1]).all()
    assert len(np.unique(np.concatenate([keys, text_keys(texts, seed=2)]))) == 3 * 2 * 3


def test_keys_as_fractions_are_uniform_and_independent() -> None:
    fractions = as_fraction(text_keys([str(n) for n in range(20_000)], seed=3))
    assert fractions.min() >= 0
    assert fractions.max() < 1
    counts = np.histogramdd(fractions, bins=(4, 4, 4))[0]
    expected = 20_000 / 64
    # Chi squared with 63 degrees of freedom: above 120 once in 50,000 times, and the seed is fixed.
    assert ((counts - expected) ** 2 / expected).sum() < 120
    assert as_fraction(np.array([2**64 - 1], dtype=np.uint64))[0] < 1
