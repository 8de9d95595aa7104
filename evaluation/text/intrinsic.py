"""How well a masked language model predicts masked tokens of held-out text, and how close it is to its teacher.

Axes: B sequences, L positions, N predicted positions, D width, V vocabulary.
"""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distilrubert.common.bars import tracked
from distilrubert.evaluation.evaluation_settings import IntrinsicSettings
from distilrubert.modeling.heads import mlm_head_of, states_of

Ids = np.ndarray[Any, Any]

# Parts of the text whose values are also reported one by one: models are compared on them in pairs.
FOLDS = 20
# Predictions of tokens, each as long as the vocabulary.
ROWS_AT_ONCE = 256


class MaskedSequence(NamedTuple):
    """A sequence with some tokens masked."""

    ids_L: Ids  # special ones included
    positions_N: Ids  # of the masked tokens
    fold: int  # the part of the text that it belongs to


def measure_intrinsic(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sequences: Sequence[Ids],
    settings: IntrinsicSettings,
    teacher: PreTrainedModel | None = None,
) -> dict[str, Any]:
    """Measure a model on held-out text.

    Args:
        model: a masked language model.
        tokenizer: its tokenizer, for the special ids.
        sequences: held-out sequences of ids, each with its special tokens.
        settings: how many, and how they are masked.
        teacher: a model with the same vocabulary to compare with.

    Returns:
        ``masked_accuracy`` (share of masked tokens that are the model's first choice), ``masked_cross_entropy_nats``,
        ``pseudo_perplexity`` (exp of the mean of −log p of each token masked in turn: Salazar et al., "Masked
        Language Model Scoring", 2020), ``masked_tokens``; with a teacher also ``kl_to_teacher_nats`` (mean of
        KL(teacher‖model) at the masked tokens), ``teacher_agreement`` (share of them with the same first choice) and,
        where the widths are equal and the layers divide, ``hidden_cosine``: for every layer k of K the mean cosine
        with the mean of the teacher's layers (k−1)·L/K+1 … k·L/K, over all real positions, and
        ``mean_hidden_cosine``, over the layers. ``by_fold`` has all these for each of :data:`FOLDS` parts of the text,
        of the cosines the mean over the layers.
    """
    order = np.random.default_rng(settings.seed).permutation(len(sequences))
    special = set(tokenizer.all_special_ids)
    masked = list(random_masks(sequences, order[: settings.sequences], special, settings))
    singly = list(single_masks(sequences, order[: settings.sentences], special))
    if not masked:
        return {}
    predictions, states = _predict(model, teacher, tokenizer, masked, settings.batch_size)
    figures, by_fold = predictions.means(), predictions.means_by_fold()
    figures["masked_tokens"] = sum(len(sequence.positions_N) for sequence in masked)
    if cosine_K := list(states.means().values()):
        figures |= {"hidden_cosine": cosine_K, "mean_hidden_cosine": statistics.fmean(cosine_K)}
        by_fold["hidden_cosine"] = np.mean(list(states.means_by_fold().values()), axis=0).tolist()
    if singly:
        losses, _ = _predict(model, None, tokenizer, singly, settings.batch_size)
        figures["pseudo_perplexity"] = math.exp(losses.means()["masked_cross_entropy_nats"])
        by_fold["pseudo_perplexity"] = np.exp(losses.means_by_fold()["masked_cross_entropy_nats"]).tolist()
    return {**figures, "by_fold": by_fold}


def random_masks(
    sequences: Sequence[Ids], chosen: Ids, special: set[int], settings: IntrinsicSettings
) -> Iterator[MaskedSequence]:
    """Mask a share of each chosen sequence's tokens, at least one, uniformly: a function of the seed and the index."""
    for rank, index in enumerate(chosen.tolist()):
        ids_L = np.asarray(sequences[index])
        candidates = _ordinary(ids_L, special)
        if len(candidates):
            count = max(1, round(settings.probability * len(candidates)))
            generator = np.random.default_rng([settings.seed, index])
            positions_N = np.sort(generator.choice(candidates, count, replace=False))
            yield MaskedSequence(ids_L, positions_N, rank % FOLDS)


def single_masks(sequences: Sequence[Ids], chosen: Ids, special: set[int]) -> Iterator[MaskedSequence]:
    """Each ordinary token of each chosen sequence, masked alone."""
    for rank, index in enumerate(chosen.tolist()):
        ids_L = np.asarray(sequences[index])
        for position in _ordinary(ids_L, special):
            yield MaskedSequence(ids_L, np.array([position]), rank % FOLDS)


def _ordinary(ids_L: Ids, special: set[int]) -> Ids:
    return np.flatnonzero(~np.isin(ids_L, list(special)))


class _Batch(NamedTuple):
    inputs: dict[str, Tensor]
    masked_BL: Tensor  # where a token is masked
    labels_N: Tensor  # the masked tokens, row by row
    folds_B: Ids


def _batches(
    masked: Sequence[MaskedSequence], tokenizer: PreTrainedTokenizerBase, batch_size: int, device: torch.device
) -> Iterator[_Batch]:
    """Padded batches of sequences that are alike in length."""
    alike = sorted(masked, key=lambda sequence: len(sequence.ids_L))
    starts = range(0, len(alike), batch_size)
    for start in tracked(starts, "held-out text", unit="batch"):
        chosen = alike[start : start + batch_size]
        padded = tokenizer.pad({"input_ids": [sequence.ids_L for sequence in chosen]}, return_tensors="pt").to(device)
        masked_BL = torch.zeros_like(padded["input_ids"], dtype=torch.bool)
        for row, sequence in enumerate(chosen):
            masked_BL[row, sequence.positions_N] = True
        labels_N = padded["input_ids"][masked_BL]
        padded["input_ids"][masked_BL] = tokenizer.mask_token_id
        inputs = {name: padded[name] for name in ("input_ids", "attention_mask")}
        yield _Batch(inputs, masked_BL, labels_N, np.array([sequence.fold for sequence in chosen]))


class _Sums:
    """Sums of values at some of the positions, fold by fold."""

    def __init__(self) -> None:
        self._sums: defaultdict[str, Ids] = defaultdict(lambda: np.zeros(FOLDS))
        self._positions = np.zeros(FOLDS)

    def add(self, folds_B: Ids, chosen_BL: Tensor, found: Mapping[str, Tensor]) -> None:
        """Add values at the chosen positions, in their order, by name."""
        folds = np.repeat(folds_B, chosen_BL.sum(1).cpu().numpy())
        self._positions += np.bincount(folds, minlength=FOLDS)
        for name, values in found.items():
            self._sums[name] += np.bincount(folds, values.double().cpu().numpy(), FOLDS)

    def means(self) -> dict[str, Any]:
        return {name: float(sums.sum() / self._positions.sum()) for name, sums in self._sums.items()}

    def means_by_fold(self) -> dict[str, list[float]]:
        """Without the folds that have no sequence."""
        used = self._positions > 0
        return {name: (sums[used] / self._positions[used]).tolist() for name, sums in self._sums.items()}


def _run(model: PreTrainedModel, batch: _Batch) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The last hidden states of the masked tokens, (N, D), and the states of all layers, each (B, L, D)."""
    output = model.base_model(**batch.inputs, output_hidden_states=True)
    return output.last_hidden_state[batch.masked_BL], states_of(output)


def _log_probabilities(model: PreTrainedModel, hidden_ND: Tensor, vocabulary: int) -> Tensor:
    return F.log_softmax(mlm_head_of(model).logits(hidden_ND, vocabulary), -1)


@torch.inference_mode()
def _predict(
    model: PreTrainedModel,
    teacher: PreTrainedModel | None,
    tokenizer: PreTrainedTokenizerBase,
    masked: Sequence[MaskedSequence],
    batch_size: int,
) -> tuple[_Sums, _Sums]:
    """The model's predictions of masked tokens, and the cosine of each layer with a comparable teacher's."""
    predictions, cosines = _Sums(), _Sums()
    for batch in _batches(masked, tokenizer, batch_size, model.device):
        hidden_ND, states = _run(model, batch)
        teacher_hidden_ND, teacher_states = _run(teacher, batch) if teacher is not None else (None, ())
        if teacher is not None and _comparable(states, teacher_states):
            real_BL = batch.inputs["attention_mask"].bool()
            cosines.add(batch.folds_B, real_BL, _cosines(states, teacher_states, real_BL))
        parts: defaultdict[str, list[Tensor]] = defaultdict(list)
        # Those of a whole batch of long texts would take gigabytes.
        for start in range(0, len(hidden_ND), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            log_p_NV = _log_probabilities(model, hidden_ND[rows], len(tokenizer))
            first_N, labels_N = log_p_NV.argmax(-1), batch.labels_N[rows]
            parts["masked_accuracy"].append(first_N == labels_N)
            parts["masked_cross_entropy_nats"].append(F.nll_loss(log_p_NV, labels_N, reduction="none"))
            if teacher is not None and teacher_hidden_ND is not None:
                log_q_NV = _log_probabilities(teacher, teacher_hidden_ND[rows], len(tokenizer))
                divergences_NV = F.kl_div(log_p_NV, log_q_NV, log_target=True, reduction="none")
                parts["kl_to_teacher_nats"].append(divergences_NV.sum(-1))
                parts["teacher_agreement"].append(first_N == log_q_NV.argmax(-1))
        predictions.add(batch.folds_B, batch.masked_BL, {name: torch.cat(found) for name, found in parts.items()})
    return predictions, cosines


def _comparable(states: Sequence[Tensor], teacher_states: Sequence[Tensor]) -> bool:
    same_width = states[0].shape == teacher_states[0].shape
    return same_width and (len(teacher_states) - 1) % (len(states) - 1) == 0


def _cosines(states: Sequence[Tensor], teacher_states: Sequence[Tensor], real_BL: Tensor) -> dict[str, Tensor]:
    """For each layer the cosine with the mean of its teacher layers at every real position."""
    block = (len(teacher_states) - 1) // (len(states) - 1)
    return {
        f"layer {layer + 1}": F.cosine_similarity(
            state_BLD[real_BL],
            torch.stack(tuple(teacher_states[1 + layer * block : 1 + (layer + 1) * block])).mean(0)[real_BL],
        )
        for layer, state_BLD in enumerate(states[1:])
    }
