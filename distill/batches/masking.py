"""Which tokens are to be predicted, drawn anew for every example and epoch and yet reproducible.

Legend: L tokens of one example, B examples, N tokens of them all, n targets among these, V vocabulary.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from distilrubert.common.training.padding import IGNORED, collate
from distilrubert.distill.batches.masking_settings import MaskingSettings


class Masker:
    """Draws the targets of an example: a pure function of (seed, epoch, index), the same on any rank or worker.

    The number of targets is `probability · L`, rounded down or up at random such that it is right on average. The
    reference rounds once for a whole batch and draws the targets across it; then an example's mask would depend on
    its neighbours. Targets are drawn without replacement with weights `max(count, 1)^-smoothing`; special tokens have
    weight 0, and where there are fewer other tokens than targets, all of them are taken. A random token is any of the
    vocabulary but the special ones (in the reference it may be one of these too: noise that no text contains).

    Args:
        settings: shares and smoothing.
        token_counts: how often each id stands in the training text, (V,).
        special_ids: ids that are never predicted nor put in: padding, [CLS], [SEP], [MASK], [UNK].
        mask_id: id of [MASK]; None for a model that is not to predict anything.
        seed: not negative.
        pad_id: id at padded positions. Attention leaves them out, but a RoBERTa counts its positions by it.
    """

    def __init__(
        self,
        settings: MaskingSettings,
        token_counts: NDArray[np.int64],
        special_ids: Sequence[int],
        mask_id: int | None,
        seed: int,
        pad_id: int = 0,
    ) -> None:
        assert mask_id is not None or not settings.probability
        self._settings = settings
        self._mask_id = 0 if mask_id is None else mask_id
        self._pad_id = pad_id
        self._seed = seed
        # The sign matters: with +smoothing the most frequent tokens would be masked most.
        self._weights_V = np.maximum(token_counts, 1).astype(np.float64) ** -settings.smoothing
        self._weights_V[list(special_ids)] = 0.0
        self._ordinary = np.flatnonzero(self._weights_V)

    def collate(self, examples: Sequence[NDArray[np.int32]], epoch: int, indices: Sequence[int]) -> dict[str, Tensor]:
        """`mask_batch`, padded: `input_ids`, `attention_mask` and `labels` as :func:`.padding.collate` makes them."""
        masked_N, labels_N = self.mask_batch(examples, epoch, indices)
        return collate(masked_N, labels_N, np.array([len(ids) for ids in examples]), self._pad_id)

    def mask_batch(
        self, examples: Sequence[NDArray[np.int32]], epoch: int, indices: Sequence[int]
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Mask examples, each as if it were alone.

        Args:
            examples: their ids.
            epoch: pass over the corpus; negative ones are streams of their own.
            indices: each example's place in the corpus.

        Returns:
            The ids that the model sees, and the labels: the original ids at the targets and -100 elsewhere; (N,) both,
            one example after another.
        """
        lengths_B = np.array([len(ids) for ids in examples])
        ids_N = np.concatenate(examples)
        rounding_B, uniform_N3 = draw_uniform(self._seed, lengths_B, epoch, indices)
        target_n = np.flatnonzero(self._is_target(ids_N, lengths_B, uniform_N3[:, 0], rounding_B))
        action_n, substitute_n = uniform_N3[target_n, 1], uniform_N3[target_n, 2]
        masked_N, labels_N = ids_N.copy(), np.full_like(ids_N, IGNORED)
        labels_N[target_n] = ids_N[target_n]
        masked_N[target_n] = disguise(
            ids_N[target_n], action_n, substitute_n, self._settings, self._mask_id, self._ordinary
        )
        return masked_N, labels_N

    def _is_target(
        self,
        ids_N: NDArray[np.int32],
        lengths_B: NDArray[np.int64],
        uniform_N: NDArray[np.float64],
        rounding_B: NDArray[np.float64],
    ) -> NDArray[np.bool_]:
        weights_N = self._weights_V[ids_N]
        example_N = np.repeat(np.arange(len(lengths_B)), lengths_B)
        eligible_B = np.bincount(example_N[weights_N > 0], minlength=len(lengths_B))
        count_B = np.minimum((self._settings.probability * lengths_B + rounding_B).astype(np.int64), eligible_B)
        first_B = np.cumsum(lengths_B) - lengths_B
        is_target_N = np.zeros(len(ids_N), dtype=bool)
        is_target_N[drawing_order(uniform_N, weights_N, example_N)] = (
            np.arange(len(ids_N)) - first_B[example_N] < count_B[example_N]
        )
        return is_target_N


def disguise(
    ids_n: NDArray[np.int32],
    action_n: NDArray[np.float64],
    substitute_n: NDArray[np.float64],
    settings: MaskingSettings,
    mask_id: int,
    ordinary: NDArray[np.int64],
) -> NDArray[np.int32]:
    """What the model sees of targets: [MASK], the token itself, or one of the `ordinary` tokens, as the draws say."""
    seen_n = np.where(action_n < settings.replace, mask_id, ids_n).astype(np.int32)
    is_random_n = action_n >= settings.replace + settings.keep
    seen_n[is_random_n] = ordinary[(substitute_n[is_random_n] * len(ordinary)).astype(np.int64)]
    return seen_n


def draw_uniform(
    seed: int, lengths_B: NDArray[np.int64], epoch: int, indices: Sequence[int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """One number an example and three for each of its rows, from the streams that belong to (seed, epoch, index)."""
    stream = np.random.Philox(key=np.array([seed, epoch % 2**64], dtype=np.uint64))
    generator = np.random.Generator(stream)
    state = stream.state
    end_B = np.cumsum(lengths_B + 1)
    uniform = np.empty((end_B[-1], 3))
    for end, length, index in zip(end_B.tolist(), lengths_B.tolist(), indices, strict=True):
        # Moving one stream costs a tenth of making a new one; starts are 2^192 blocks apart.
        state["state"]["counter"][3] = index
        stream.state = state
        generator.random(out=uniform[end - length - 1 : end])
    is_token = np.ones(len(uniform), dtype=bool)
    is_token[end_B - lengths_B - 1] = False
    return uniform[~is_token, 0], uniform[is_token]


def drawing_order(
    uniform: NDArray[np.float64], weights: NDArray[np.float64], example: NDArray[np.int64]
) -> NDArray[np.intp]:
    """Example by example the order in which its items are drawn, without replacement; those of weight 0 come last.

    First arrivals at the rates of the weights are such a draw (Efraimidis and Spirakis 2006). Each item has a number
    `uniform` on [0, 1) and belongs to an `example`; these ascend.
    """
    arrival = np.full(len(weights), np.inf)
    np.divide(-np.log1p(-uniform), weights, out=arrival, where=weights > 0)
    return np.lexsort((arrival, example))
