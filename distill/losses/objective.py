"""What training minimises: the weighted losses of a student against its teacher.

Axes: B batch, L tokens, N rows (chosen tokens), M labelled rows, D width, V vocabulary.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from distilrubert.common.errors import UserError
from distilrubert.common.training.loss_module import LossModule
from distilrubert.common.training.padding import IGNORED
from distilrubert.distill.losses import LOSSES
from distilrubert.distill.losses.attention import AttentionLoss
from distilrubert.distill.losses.cosine import CosineLoss
from distilrubert.distill.losses.encoding import FrozenModel, encode, recompute_blocks, word_embeddings_of
from distilrubert.distill.losses.hidden import HiddenLoss
from distilrubert.distill.losses.layer import Activations, LayerLoss, averaged, paired_states
from distilrubert.distill.losses.layer_map import LayerPair, compared_layers, pair_layers
from distilrubert.distill.losses.reduce import ReduceCosineLoss, ReduceLoss
from distilrubert.distill.losses.tied import TiedWeight
from distilrubert.distill.losses.vocabulary import Predictor, VocabularyLoss
from distilrubert.distill.objective_settings import ObjectiveSettings
from distilrubert.modeling.heads import MlmHead, mlm_head_of

LAYER_LOSSES: dict[str, type[LayerLoss]] = {"cosine": CosineLoss, "attention": AttentionLoss, "hidden": HiddenLoss}
PAIRED_LAYER_LOSSES: dict[str, type[LayerLoss]] = {"reduce": ReduceLoss, "reduce_cosine": ReduceCosineLoss}


def positive_weights(settings: ObjectiveSettings) -> dict[str, float]:
    """The weights of the losses that are to be computed.

    Raises:
        UserError: if all are 0.
    """
    weights = {name: weight for name, weight in settings.weights if weight > 0}
    if not weights:
        raise UserError("distillation.weights: all are 0; at least one loss must have a weight above 0")
    return weights


def build_layer_losses(
    kinds: Mapping[str, type[LayerLoss]],
    student: PretrainedConfig,
    teacher: PretrainedConfig,
    settings: ObjectiveSettings,
) -> dict[str, LayerLoss]:
    """Those of these losses over layers that have a weight.

    Args:
        kinds: the losses by name.
        student: its configuration.
        teacher: its configuration.
        settings: which losses, and on which layers.

    Raises:
        UserError: if student and teacher do not fit a loss or the layer map.
    """
    weights = positive_weights(settings)
    wanted = {name: kind for name, kind in kinds.items() if name in weights}
    if not wanted:
        return {}
    pairs = pair_layers(
        settings.layer_map, student.num_hidden_layers, teacher.num_hidden_layers, settings.embeddings_pair
    )
    return {name: kind(student, teacher, pairs) for name, kind in wanted.items()}


def state_pairs(losses: Iterable[LayerLoss]) -> tuple[LayerPair, ...]:
    """The pairs of layers whose states are compared: the same in every loss on states, none without such a loss."""
    return next((loss.pairs for loss in losses if loss.needs == "hidden_states"), ())


class MlmLossModule(LossModule):
    """A masked language model in training, whose layers may be computed again in the backward pass."""

    def __init__(self, model: PreTrainedModel, settings: ObjectiveSettings, teacher: PretrainedConfig | None) -> None:
        super().__init__(model)
        self._weights = positive_weights(settings)
        layers = teacher and (settings.layer_map, model.config.num_hidden_layers, teacher.num_hidden_layers)
        self._wording = {
            "temperature": settings.temperature,
            "positions": "the masked" if settings.kl_positions == "masked" else "all",
            "hidden_states": layers and compared_layers("hidden state", *layers),
            "attention_maps": layers and compared_layers("attention map", *layers),
        }

    def describe(self) -> dict[str, dict[str, Any]]:
        """See :class:`~distilrubert.common.training.loss_module.LossModule`."""
        return {
            name: {
                "weight": weight,
                "title": LOSSES[name].title,
                "meaning": LOSSES[name].meaning.format(**self._wording),
            }
            for name, weight in self._weights.items()
        }

    def set_training(self, *, dropout: bool, gradient_checkpointing: bool) -> None:
        """See :class:`~distilrubert.common.training.loss_module.LossModule`."""
        self.train(dropout)
        if gradient_checkpointing:
            recompute_blocks(self.model, training=dropout)

    def end_training(self) -> None:
        """See :class:`~distilrubert.common.training.loss_module.LossModule`."""
        super().end_training()
        if self.model.is_gradient_checkpointing:
            self.model.gradient_checkpointing_disable()


class Objective(MlmLossModule):
    """The losses of a batch, each divided by its number of rows in the whole update.

    Registered are the student and what is trained with it. The teacher is not: it is in no checkpoint, in no
    parameter list and not wrapped by DDP, but it moves along with :meth:`~torch.nn.Module.to`.

    Args:
        student_model: trained; ``BertForMaskedLM`` or ``DistilBertForMaskedLM``.
        teacher_model: in evaluation mode, without gradients; None where the weights need no teacher.
        settings: which losses.

    Raises:
        UserError: if all weights are 0, or student and teacher do not fit a loss or the layer map.
    """

    def __init__(
        self, student_model: PreTrainedModel, teacher_model: PreTrainedModel | None, settings: ObjectiveSettings
    ) -> None:
        super().__init__(student_model, settings, teacher_model and teacher_model.config)
        self._uses_vocabulary = "kl" in self._weights or "mlm" in self._weights
        self._averages = settings.layer_map == "all-mean"
        self._kl_everywhere = settings.kl_positions == "all"
        self._vocabulary = VocabularyLoss(settings.temperature, settings.vocabulary_chunk)
        self._teacher: FrozenModel | None = None
        if strange := [name for name in self._weights if name not in ("kl", "mlm", *LAYER_LOSSES)]:
            raise UserError(
                f"distillation.weights: {', '.join(strange)} compare two vocabularies, but the student has its "
                f"teacher's; for that there are kl, mlm, {', '.join(LAYER_LOSSES)}"
            )
        if set(self._weights) != {"mlm"}:
            if teacher_model is None:
                raise UserError(f"distillation.weights: of {', '.join(self._weights)} only mlm works without a teacher")
            _check_vocabularies(student_model.config, teacher_model.config)
            self._teacher = FrozenModel(teacher_model)
        self._layer_losses: dict[str, LayerLoss] = {}
        if teacher_model:
            self._layer_losses = build_layer_losses(LAYER_LOSSES, student_model.config, teacher_model.config, settings)
        self.layer_losses = nn.ModuleDict(self._layer_losses)
        self._needs = {loss.needs for loss in self._layer_losses.values()}
        self._state_pairs = state_pairs(self._layer_losses.values())

    def counts(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The number of rows of each loss in a batch, to be summed into the denominators of the update.

        Args:
            batch: as in :meth:`forward`, on any device.
        """
        mask_BL, labelled_BL = _selections(batch)
        rows = {"kl": mask_BL if self._kl_everywhere else labelled_BL, "mlm": labelled_BL}
        counts = {name: rows[name].sum() for name in self._weights if name in rows}
        return counts | {name: loss.count(mask_BL) for name, loss in self._layer_losses.items()}

    def forward(self, batch: Mapping[str, Tensor], denominators: Mapping[str, Tensor | float]) -> dict[str, Tensor]:
        """The losses of a batch.

        Args:
            batch: ``input_ids``, ``attention_mask`` and ``labels`` (-100 where nothing is to be predicted), each
                (B, L). Padding is in no loss, whatever its labels.
            denominators: for each loss what its sum over rows is divided by: the :meth:`counts` of all batches of
                the update. Where it is 0, the loss and its gradients are 0. Plain numbers spare a GPU from waiting.

        Returns:
            each loss that has a weight, detached, and their weighted sum as ``loss``.
        """
        scales = {name: inverse(float(denominators[name])) for name in self._weights}
        mask_BL, labelled_BL = _selections(batch)
        rows_N, labels_M = self._vocabulary_rows(batch["labels"], mask_BL, labelled_BL)
        teacher, teacher_rows = self._run_teacher(batch, rows_N)
        tied = self._tied_weight()
        student = encode(self.model, batch, self._needs, tied)
        total = torch.zeros((), device=mask_BL.device)
        means = {}
        with torch.autocast(mask_BL.device.type, enabled=False):
            if self._averages:
                student = averaged(student)
            for name, loss in self._layer_losses.items():
                means[name] = scales[name] * loss(student, teacher, mask_BL)
                total = total + self._weights[name] * means[name]
        if self._uses_vocabulary:
            student_rows = _predictor(mlm_head_of(self.model), student, rows_N)
            if tied is not None:
                student_rows = dataclasses.replace(student_rows, weight_VD=tied.weight_VD)
            kl_scale, mlm_scale = (self._weights.get(name, 0.0) * scales.get(name, 0.0) for name in ("kl", "mlm"))
            sums = self._vocabulary(student_rows, teacher_rows, labels_M, kl_scale, mlm_scale, tied)
            means |= {"kl": scales.get("kl", 0.0) * sums.kl, "mlm": scales.get("mlm", 0.0) * sums.mlm}
            total = total + sums.total
        return {**{name: means[name].detach() for name in self._weights}, "loss": total}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self._teacher:
            self._teacher.apply(fn)
        return self

    def _tied_weight(self) -> TiedWeight | None:
        weight_VD = word_embeddings_of(self.model).weight
        is_tied = self._uses_vocabulary and weight_VD is mlm_head_of(self.model).weight_VD
        return TiedWeight(weight_VD) if is_tied else None

    def _vocabulary_rows(self, labels_BL: Tensor, mask_BL: Tensor, labelled_BL: Tensor) -> tuple[Tensor, Tensor]:
        """Places, in the flattened batch, of all tokens that predict a piece, and the labels that the first M have."""
        labelled_M = labelled_BL.flatten().nonzero().squeeze(1)
        labels_M = labels_BL.flatten()[labelled_M]
        if "kl" not in self._weights or not self._kl_everywhere:
            return labelled_M, labels_M
        others = (mask_BL & ~labelled_BL).flatten().nonzero().squeeze(1)
        return torch.cat([labelled_M, others]), labels_M

    @torch.no_grad()
    def _run_teacher(self, batch: Mapping[str, Tensor], rows_N: Tensor) -> tuple[Activations | None, Predictor | None]:
        if self._teacher is None:
            return None, None
        model, head = self._teacher.get()
        activations = encode(model, batch, self._needs)
        rows = _predictor(head, activations, rows_N) if "kl" in self._weights else None
        if self._averages:
            activations = averaged(activations)
        return paired_states(activations, self._state_pairs), rows


def _predictor(head: MlmHead, activations: Activations, rows_N: Tensor) -> Predictor:
    # Rows are chosen before the head: neither its transform nor the vocabulary sees any other.
    hidden_ND = activations.last_BLD.flatten(0, 1).index_select(0, rows_N)
    return Predictor(head.transform(hidden_ND), head.weight_VD, head.bias_V)


def _selections(batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """True for real tokens, and for those of them that are to be predicted."""
    mask_BL = batch["attention_mask"].bool()
    return mask_BL, mask_BL & (batch["labels"] != IGNORED)


def inverse(number: float) -> float:
    """1 / `number`, and 0 where there is nothing to divide among."""
    return 1 / number if number else 0.0


def _check_vocabularies(student: PretrainedConfig, teacher: PretrainedConfig) -> None:
    if student.vocab_size != teacher.vocab_size:
        raise UserError(
            f"student.vocabulary: the losses in distillation.weights compare both models on the same tokens, but the "
            f"student has {student.vocab_size} pieces and the teacher {teacher.vocab_size}"
        )
