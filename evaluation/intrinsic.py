"""How well a masked language model predicts hidden pieces of held-out text, and how close it is to its teacher.

Axes: B sequences, L positions, N predicted positions, D width, V vocabulary.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distilrubert.evaluation.settings import IntrinsicSettings
from distilrubert.modeling.heads import encoder_of, mlm_head_of

Ids = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True)
class MaskedSequence:
    """A sequence with some pieces hidden.

    Attributes:
        ids_L: its ids, special ones included.
        positions_N: where pieces are hidden.
    """

    ids_L: Ids
    positions_N: Ids


def measure_intrinsic(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sequences: Sequence[Ids],
    settings: IntrinsicSettings,
    teacher: PreTrainedModel | None = None,
) -> dict[str, Any]:
    """Measure a model on held-out text.

    Args:
        model: a BERT or DistilBERT masked language model.
        tokenizer: its tokenizer, for the special ids.
        sequences: held-out sequences of ids, each with its special tokens.
        settings: how many, and how they are masked.
        teacher: a model with the same vocabulary to compare with.

    Returns:
        ``masked_accuracy`` (share of hidden pieces that are the model's first choice), ``masked_cross_entropy_nats``,
        ``pseudo_perplexity`` (exp of the mean of −log p of each piece masked in turn: Salazar et al., "Masked
        Language Model Scoring", 2020), ``masked_pieces``; with a teacher also ``kl_to_teacher_nats`` (mean of
        KL(teacher‖model) at the hidden pieces), ``teacher_agreement`` (share of them with the same first choice) and,
        where the widths are equal and the layers divide, ``hidden_cosine``: for every layer k of K the mean cosine
        with the mean of the teacher's block (k−1)·L/K+1 … k·L/K, over all real positions.
    """
    order = np.random.default_rng(settings.seed).permutation(len(sequences))
    special = set(tokenizer.all_special_ids)
    hidden = list(random_masks(sequences, order[: settings.sequences], special, settings))
    singly = list(single_masks(sequences, order[: settings.sentences], special))
    if not hidden:
        return {}
    batches = _Batches(tokenizer, settings.batch_size, next(model.parameters()).device)
    figures = _masked_figures(model, teacher, batches, hidden)
    if singly:
        figures["pseudo_perplexity"] = math.exp(_cross_entropy(model, batches, singly))
    return figures


def random_masks(
    sequences: Sequence[Ids], chosen: Ids, special: set[int], settings: IntrinsicSettings
) -> Iterator[MaskedSequence]:
    """Hide a share of each chosen sequence's pieces, at least one, uniformly: a function of the seed and the index."""
    for index in chosen.tolist():
        ids_L = np.asarray(sequences[index])
        candidates = _ordinary(ids_L, special)
        if len(candidates):
            count = max(1, round(settings.probability * len(candidates)))
            generator = np.random.default_rng([settings.seed, index])
            yield MaskedSequence(ids_L, np.sort(generator.choice(candidates, count, replace=False)))


def single_masks(sequences: Sequence[Ids], chosen: Ids, special: set[int]) -> Iterator[MaskedSequence]:
    """Each ordinary piece of each chosen sequence, hidden alone."""
    for index in chosen.tolist():
        ids_L = np.asarray(sequences[index])
        for position in _ordinary(ids_L, special):
            yield MaskedSequence(ids_L, np.array([position]))


def _ordinary(ids_L: Ids, special: set[int]) -> Ids:
    return np.flatnonzero(~np.isin(ids_L, list(special)))


@dataclasses.dataclass(frozen=True)
class _Batch:
    input_ids_BL: Tensor
    attention_mask_BL: Tensor
    hidden_BL: Tensor  # where a piece is hidden
    labels_N: Tensor  # the hidden pieces, row by row
    pieces: int  # of the vocabulary


@dataclasses.dataclass(frozen=True)
class _Batches:
    """Makes padded batches of sequences that are alike in length."""

    tokenizer: PreTrainedTokenizerBase
    batch_size: int
    device: torch.device

    def __call__(self, masked: Sequence[MaskedSequence]) -> Iterator[_Batch]:
        alike = sorted(masked, key=lambda sequence: len(sequence.ids_L))
        starts = range(0, len(alike), self.batch_size)
        for start in tqdm(starts, desc="held-out text", unit="batch", leave=False, disable=None):
            yield self._pad(alike[start : start + self.batch_size])

    def _pad(self, masked: Sequence[MaskedSequence]) -> _Batch:
        shape = len(masked), max(len(sequence.ids_L) for sequence in masked)
        ids_BL = np.full(shape, self.tokenizer.pad_token_id, dtype=np.int64)
        real_BL, hidden_BL = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=bool)
        for row, sequence in enumerate(masked):
            ids_BL[row, : len(sequence.ids_L)] = sequence.ids_L
            real_BL[row, : len(sequence.ids_L)] = 1
            hidden_BL[row, sequence.positions_N] = True
        labels_N = ids_BL[hidden_BL]
        ids_BL[hidden_BL] = self.tokenizer.mask_token_id
        arrays = (ids_BL, real_BL, hidden_BL, labels_N)
        input_ids, attention_mask, hidden, labels = (torch.from_numpy(array).to(self.device) for array in arrays)
        return _Batch(input_ids, attention_mask, hidden, labels, len(self.tokenizer))


def _run(model: PreTrainedModel, batch: _Batch) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Log-probabilities at the hidden pieces, (N, V), and the states of all layers, each (B, L, D)."""
    output = encoder_of(model)(
        input_ids=batch.input_ids_BL, attention_mask=batch.attention_mask_BL, output_hidden_states=True
    )
    head = mlm_head_of(model)
    hidden_ND = output.last_hidden_state[batch.hidden_BL]
    # A model may have rows that no piece of its tokenizer uses.
    weight_VD, bias_V = head.weight_VD[: batch.pieces], head.bias_V[: batch.pieces]
    # Only the rows that are asked for meet the vocabulary: the product is the largest of the model.
    return F.log_softmax(F.linear(head.transform(hidden_ND), weight_VD, bias_V), -1), output.hidden_states


@torch.inference_mode()
def _masked_figures(
    model: PreTrainedModel, teacher: PreTrainedModel | None, batches: _Batches, hidden: Sequence[MaskedSequence]
) -> dict[str, Any]:
    pieces = sum(len(sequence.positions_N) for sequence in hidden)
    correct = loss = kl = agreement = positions = 0.0
    cosine_K: Tensor | None = None
    for batch in batches(hidden):
        log_p_NV, states = _run(model, batch)
        first_N = log_p_NV.argmax(-1)
        correct += (first_N == batch.labels_N).sum().item()
        loss += F.nll_loss(log_p_NV, batch.labels_N, reduction="sum").item()
        if teacher is None:
            continue
        log_q_NV, teacher_states = _run(teacher, batch)
        kl += F.kl_div(log_p_NV, log_q_NV, log_target=True, reduction="sum").item()
        agreement += (first_N == log_q_NV.argmax(-1)).sum().item()
        if _comparable(states, teacher_states):
            sums_K = _cosines(states, teacher_states, batch.attention_mask_BL.bool())
            cosine_K = sums_K if cosine_K is None else cosine_K + sums_K
            positions += batch.attention_mask_BL.sum().item()
    figures = {"masked_accuracy": correct / pieces, "masked_cross_entropy_nats": loss / pieces, "masked_pieces": pieces}
    if teacher is not None:
        figures |= {"kl_to_teacher_nats": kl / pieces, "teacher_agreement": agreement / pieces}
    return figures if cosine_K is None else {**figures, "hidden_cosine": (cosine_K / positions).tolist()}


def _comparable(states: Sequence[Tensor], teacher_states: Sequence[Tensor]) -> bool:
    same_width = states[0].shape == teacher_states[0].shape
    return same_width and (len(teacher_states) - 1) % (len(states) - 1) == 0


def _cosines(states: Sequence[Tensor], teacher_states: Sequence[Tensor], real_BL: Tensor) -> Tensor:
    """Sum over the real positions of each layer's cosine with the mean of its block of teacher layers."""
    block = (len(teacher_states) - 1) // (len(states) - 1)
    return torch.stack(
        [
            F.cosine_similarity(
                state_BLD[real_BL],
                torch.stack(tuple(teacher_states[1 + layer * block : 1 + (layer + 1) * block])).mean(0)[real_BL],
            ).sum()
            for layer, state_BLD in enumerate(states[1:])
        ]
    )


@torch.inference_mode()
def _cross_entropy(model: PreTrainedModel, batches: _Batches, masked: Sequence[MaskedSequence]) -> float:
    total = sum(F.nll_loss(_run(model, batch)[0], batch.labels_N, reduction="sum").item() for batch in batches(masked))
    return total / sum(len(sequence.positions_N) for sequence in masked)
