"""The masks: right on average, and the same wherever and whenever they are drawn."""

import numpy as np
import pytest
from pydantic import ValidationError

from distilrubert.common.training.padding import IGNORED
from distilrubert.distill.batches.masking import Masker
from distilrubert.distill.batches.masking_settings import MaskingSettings

PAD, UNK, CLS, SEP, MASK = SPECIAL = range(5)
V = 40


def masker(seed: int = 1, counts: np.ndarray | None = None, **settings: float) -> Masker:
    counts = np.full(V, 100) if counts is None else counts
    return Masker(MaskingSettings(**settings), counts, list(SPECIAL), MASK, seed)


def sentence(*tokens: int) -> np.ndarray:
    return np.array([CLS, *tokens, SEP], dtype=np.int32)


def draw(masker: Masker, ids: np.ndarray, times: int) -> tuple[np.ndarray, np.ndarray]:
    """Masked ids and labels of the same example at many places of the corpus, (times, L) both."""
    masked, labels = masker.mask_batch([ids] * times, epoch=0, indices=range(times))
    return masked.reshape(times, -1), labels.reshape(times, -1)


def test_labels_are_the_original_ids_where_something_is_to_be_predicted() -> None:
    ids = sentence(*range(5, 35))
    masked, labels = masker().mask_batch([ids], 0, [0])
    assert masked.shape == labels.shape == ids.shape
    is_target = labels != IGNORED
    assert (labels[is_target] == ids[is_target]).all()
    assert (masked[~is_target] == ids[~is_target]).all()
    assert is_target.sum() in (4, 5)


@pytest.mark.parametrize("length", [3, 4, 7, 20, 27])
def test_the_number_of_targets_is_right_on_average_and_off_by_less_than_one(length: int) -> None:
    _, labels = draw(masker(), sentence(*[7] * (length - 2)), times=4000)
    counts = (labels != IGNORED).sum(axis=1)
    expected = 0.15 * length
    assert set(np.unique(counts)) <= {int(expected), int(expected) + 1}
    # Four standard deviations of the mean of a rounded number.
    assert abs(counts.mean() - expected) < 4 * 0.5 / np.sqrt(4000)


def test_targets_become_mask_stay_or_become_random_tokens_in_the_given_shares() -> None:
    ids = sentence(*range(5, 35))
    masked, labels = draw(masker(), ids, times=4000)
    is_target = labels != IGNORED
    seen, original = masked[is_target], labels[is_target]
    n = len(seen)
    assert abs((seen == MASK).mean() - 0.8) < 4 * np.sqrt(0.16 / n)
    # One in 35 random tokens is the original by chance.
    assert abs((seen == original).mean() - (0.1 + 0.1 / 35)) < 4 * np.sqrt(0.09 / n)
    random = seen[(seen != MASK) & (seen != original)]
    counts = np.bincount(random, minlength=V)
    assert not counts[list(SPECIAL)].any()
    expected = len(random) / 35
    assert ((counts[5:] - expected) ** 2 / expected).sum() < 75  # chi squared, 34 degrees of freedom


def test_rare_tokens_are_drawn_first_by_the_power_of_their_counts() -> None:
    counts = np.full(V, 1)
    counts[5], counts[6] = 1000, 10
    # One target of two tokens: [CLS] 5 6 [SEP] has 0.6 of one, so look at those that have one.
    _, labels = draw(masker(counts=counts, smoothing=0.7), sentence(5, 6), times=20_000)
    rare, frequent = (labels == 6).sum(), (labels == 5).sum()
    assert abs(rare / (rare + frequent) - 100**0.7 / (1 + 100**0.7)) < 4 * 0.5 / np.sqrt(rare + frequent)
    assert rare > 20 * frequent


def test_without_smoothing_all_tokens_are_equal() -> None:
    counts = np.full(V, 1)
    counts[5] = 10**6
    _, labels = draw(masker(counts=counts), sentence(5, 6), times=10_000)
    assert abs((labels == 5).sum() / (labels != IGNORED).sum() - 0.5) < 4 * 0.5 / np.sqrt(6000)


def test_draws_without_replacement_follow_the_weights_at_each_step() -> None:
    counts = np.full(V, 1)
    counts[[5, 6, 7]] = [1, 8, 64]
    weights = counts[[5, 6, 7]] ** -0.7
    # Two of three, always: 0.4 of five tokens is 2.
    _, labels = draw(masker(counts=counts, probability=0.4, smoothing=0.7), sentence(5, 6, 7), times=20_000)
    left_out = [(labels != token).all(axis=1).mean() for token in (5, 6, 7)]
    total = weights.sum()
    for which, share in enumerate(left_out):
        one, other = np.delete(weights, which)
        expected = one / total * other / (total - one) + other / total * one / (total - other)
        assert abs(share - expected) < 4 * 0.5 / np.sqrt(20_000)


@pytest.mark.parametrize("ids", [sentence(), sentence(UNK, UNK, UNK), sentence(MASK, PAD)])
def test_nothing_to_predict_is_no_error(ids: np.ndarray) -> None:
    masked, labels = draw(masker(probability=0.9), ids, times=50)
    assert (labels == IGNORED).all()
    assert (masked == ids).all()


def test_never_more_targets_than_ordinary_tokens_and_never_a_special_one() -> None:
    _, labels = draw(masker(probability=0.9), sentence(UNK, 9, SEP, 10, UNK, UNK), times=200)
    assert set(np.unique(labels)) == {IGNORED, 9, 10}
    assert ((labels != IGNORED).sum(axis=1) == 2).all()


def test_a_mask_depends_on_seed_epoch_and_index_and_on_nothing_else() -> None:
    ids = sentence(*range(5, 35))
    one = masker()
    first = one.mask_batch([ids], 2, [11])
    streams = ((0, 0), (2, 11), (2, 12), (3, 11), (-1, 11), (-2, 11))
    masks = {tuple(one.mask_batch([ids], epoch, [index])[1].tolist()) for epoch, index in streams}
    assert len(masks) == len(streams)
    assert not np.array_equal(masker(seed=2).mask_batch([ids], 2, [11])[1], first[1])
    for again in (one.mask_batch([ids], 2, [11]), masker().mask_batch([ids], 2, [11])):
        assert all(np.array_equal(a, b) for a, b in zip(again, first, strict=True))


def test_neighbours_in_a_batch_change_nothing() -> None:
    generator = np.random.default_rng(3)
    one = masker(counts=generator.integers(0, 10**6, V))
    examples = [sentence(*generator.integers(0, V, n)) for n in generator.integers(0, 40, 60)]
    order = generator.permutation(60)
    together = one.mask_batch([examples[i] for i in order], 4, order.tolist())
    ends = np.cumsum([len(examples[i]) for i in order])[:-1]
    for number, masked, labels in zip(order, *(np.split(part, ends) for part in together), strict=True):
        alone = one.mask_batch([examples[number]], 4, [int(number)])
        assert np.array_equal(alone[0], masked)
        assert np.array_equal(alone[1], labels)


def test_an_example_is_left_as_it_is() -> None:
    ids = sentence(*range(5, 35))
    ids.flags.writeable = False
    masked, _ = masker(replace=1, keep=0).mask_batch([ids], 0, [0])
    assert (masked == MASK).any()
    assert (ids == sentence(*range(5, 35))).all()


def test_shares_of_more_than_all_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"replace 0\.8 and keep 0\.3 are more than 1"):
        MaskingSettings(keep=0.3)
