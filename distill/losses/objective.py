"""What training minimises: the weighted losses of a student against its teacher.

Axes: B batch, L tokens, V vocabulary, D width.
"""

import functools
import importlib
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from distilrubert.common.errors import UserError
from distilrubert.common.sentence_files import PoolingMode
from distilrubert.common.training.loss_module import Batch, LossModule, Prepared, prepared
from distilrubert.distill.losses import LOSSES, Vocabularies, losses_for
from distilrubert.distill.losses.encoding import FrozenModel, encode, recompute_layers
from distilrubert.distill.losses.layer_map import LayerPair, compared_layers
from distilrubert.distill.losses.rows import PLACES, Rows
from distilrubert.distill.losses.term import Need, Outputs, Setup, Term, Tokenizers
from distilrubert.distill.losses.tied import TiedWeight
from distilrubert.distill.objective_settings import ComparisonSettings, ObjectiveSettings
from distilrubert.modeling.families import takes_token_types
from distilrubert.modeling.heads import has_head, mlm_head_of


class Objective(LossModule):
    """The losses of a batch, each divided by its number of rows in the whole update.

    The teacher runs once, then the student, then each term. Registered are the student and what is trained with it.
    The teacher is not: it is in no checkpoint, in no parameter list and not wrapped by DDP, but it moves along with
    :meth:`~torch.nn.Module.to`.

    Args:
        student_model: trained; a masked language model, an encoder where no loss needs a head, or a model with the head
            of a task.
        teacher_model: in evaluation mode, without gradients; None where the weights need no teacher.
        settings: which losses.
        peak_rates: peak learning rates of parameters of the student that have their own, by name.
        tokenizers: of both, where the student has a vocabulary of its own; its batches then come from
            :class:`~distilrubert.distill.batches.span_masking.SpanMasker`.
        pooling: what the vector of a sentence is, for losses over these.

    Attributes:
        terms: what computes the losses.
        uses_head: whether a loss reaches the output layer.

    Raises:
        UserError: if all weights are 0, or student and teacher do not fit a loss or the layer map.
    """

    def __init__(
        self,
        student_model: PreTrainedModel,
        teacher_model: PreTrainedModel | None,
        settings: ComparisonSettings,
        tokenizers: Tokenizers | None = None,
        pooling: PoolingMode = "mean",
        peak_rates: Mapping[str, float] = types.MappingProxyType({}),
    ) -> None:
        super().__init__(student_model)
        self._peak_rates = {f"model.{name}": rate for name, rate in peak_rates.items()}
        self._weights = positive_weights(settings)
        setup = Setup(settings, student_model.config, teacher_model and teacher_model.config, tokenizers, pooling)
        _check(self._weights, setup)
        for model, whose in ((teacher_model, "the teacher"), (student_model, "the student")):
            check_heads(self._weights, has_head=model is None or has_head(model), whose=whose)
        self._setup = setup
        self._terms = build_terms(self._weights, setup)
        self.terms = nn.ModuleDict(self._terms)
        self._needs: frozenset[Need] = frozenset().union(*(term.needs for term in self._terms.values()))
        self.uses_head = "head" in self._needs
        self._pairs: tuple[LayerPair, ...] = setup.pairs if "hidden_states" in self._needs else ()
        needs_teacher = any(LOSSES[name].needs_teacher for name in self._weights)
        self._teacher = FrozenModel(teacher_model) if teacher_model and needs_teacher else None

    def counts(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return _counts(self._terms.values(), self._weights, batch)

    def preparation(self) -> Callable[[Batch], Prepared]:
        return functools.partial(_prepared, tuple(self._terms.values()), tuple(self._weights))

    def forward(self, batch: Mapping[str, Tensor], denominators: Mapping[str, Tensor | float]) -> dict[str, Tensor]:
        """The losses of a batch, as those of :class:`LossModule`.

        The batch has ``input_ids``, ``attention_mask`` and ``labels`` (-100 where nothing is to be predicted), each
        (B, L); with two vocabularies, what ``SpanMasker`` makes; of a task, the fields of
        :class:`~distilrubert.distill.losses.rows.Decisions`. Padding is in no loss, whatever its labels. Plain
        numbers as denominators spare a GPU from waiting.
        """
        numbers = {name: float(denominators[name]) for name in self._weights}
        parts = {name: 1 / number if number else 0.0 for name, number in numbers.items()}
        scales = {name: self._weights[name] * part for name, part in parts.items()}
        rows = Rows.of(batch)
        teacher = self._run_teacher(batch)
        student = encode(self.model, batch, self._needs, tied=self._tied_weight())
        student = student.compared([pair.student for pair in self._pairs])
        total = torch.zeros((), device=rows.student.mask_BL.device)
        losses: dict[str, Tensor] = {}
        for term in self._terms.values():
            term_total, sums = term(student, teacher, rows, scales)
            total = total + term_total
            losses |= {name: (parts[name] * value).detach() for name, value in sums.items()}
        return {**{name: losses[name] for name in self._weights}, "loss": total}

    def peak_rates(self) -> dict[str, float]:
        return self._peak_rates

    def describe(self) -> dict[str, dict[str, Any]]:
        setup = self._setup
        said: dict[str, Any] = {
            "temperature": setup.settings.temperature,
            "pooling": "the first" if setup.pooling == "cls" else "the mean",
            "positions": "the masked" if getattr(setup.settings, "kl_positions", None) == "masked" else "all",
        }
        if setup.teacher is not None:
            layers = setup.student.num_hidden_layers, setup.teacher.num_hidden_layers
            for key, what in (("hidden_states", "hidden state"), ("attention_maps", "attention map")):
                said[key] = compared_layers(what, setup.settings.layer_map, *layers)
            if setup.tokenizers is not None:
                said["hidden_states"] += ", averaged over the tokens of a span of text"
        return {
            name: {"weight": weight, "title": LOSSES[name].title, "meaning": LOSSES[name].meaning.format(**said)}
            for name, weight in self._weights.items()
        }

    def set_training(self, *, dropout: bool, gradient_checkpointing: bool) -> None:
        self.train(dropout)
        if gradient_checkpointing:
            recompute_layers(self.model, training=dropout)

    def set_compiled(self, *, compiled: bool) -> None:
        """Compile the encoders of student and teacher, and what the terms make of whole predictions.

        Raises:
            UserError: if a loss looks into their attention, which is then no part of what is compiled.
        """
        if compiled and "attention" in self._needs:
            section = self._setup.settings.section
            raise UserError(f"{section}.compile: not with the loss attention, which reads the attention of every layer")
        super().set_compiled(compiled=compiled)
        if self._teacher:
            self._teacher.set_compiled(compiled=compiled)
        for term in self._terms.values():
            term.set_compiled(compiled=compiled)

    def end_training(self) -> None:
        super().end_training()
        if self.model.is_gradient_checkpointing:
            self.model.gradient_checkpointing_disable()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self._teacher:
            self._teacher.apply(fn)
        return self

    def _tied_weight(self) -> TiedWeight | None:
        """The holder of tied embeddings, where exactly one term makes a gradient for the output layer."""
        if sum("head" in term.needs for term in self._terms.values()) != 1:
            return None
        weight_VD = self.model.get_input_embeddings().weight
        return TiedWeight(weight_VD) if weight_VD is mlm_head_of(self.model).weight_VD else None

    @torch.no_grad()
    def _run_teacher(self, batch: Mapping[str, Tensor]) -> Outputs | None:
        if self._teacher is None or "teacher_vectors" in batch:
            return None
        model, head = self._teacher.get()
        types = ["token_type_ids"] if takes_token_types(model.config) else []
        fields = ("input_ids", "attention_mask", *(name for name in ("padded", *types) if name in batch))
        inputs = {name: batch.get(f"teacher_{name}", batch[name]) for name in fields}
        return encode(model, inputs, self._needs, head=head).compared([pair.teacher for pair in self._pairs])


def _counts(terms: Iterable[Term], names: Iterable[str], batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    rows, counts = Rows.of(batch), dict[str, Tensor]()
    for term in terms:
        counts |= term.counts(rows)
    return {name: counts[name] for name in names}


def _prepared(terms: Sequence[Term], names: Sequence[str], batch: Batch) -> Prepared:
    """A batch with the places that the terms read, and with ``padded`` fields, whose length says if there is padding.

    Terms and not the objective, so that a worker process gets no model.
    """
    rows, made = Rows.of(batch), dict(batch)
    for key, places in {**rows.places_of_sides(), **{term.key: term.places(rows) for term in terms}}.items():
        made |= {f"{PLACES}{key}.{name}": tensor for name, tensor in places.items()}
    for name in ("attention_mask", "teacher_attention_mask"):
        if name in batch:
            made[name.replace("attention_mask", "padded")] = torch.empty(int(not batch[name].all()))
    return prepared(functools.partial(_counts, terms, names), made)


def positive_weights(settings: ComparisonSettings) -> dict[str, float]:
    """The weights of the losses that are to be computed.

    Raises:
        UserError: if all are 0.
    """
    weights = {name: weight for name, weight in settings.weights if weight > 0}
    if not weights:
        raise UserError(f"{settings.section}.weights: all are 0; at least one loss must have a weight above 0")
    return weights


def build_terms(weights: Mapping[str, float], setup: Setup) -> dict[str, Term]:
    """The terms that compute these losses, by the name of the loss or of the group that one term computes.

    Raises:
        UserError: if student and teacher do not fit a loss or the layer map.
    """
    groups: dict[str, list[str]] = {}
    for name in weights:
        groups.setdefault(LOSSES[name].group or name, []).append(name)
    return {group: _term_class(names[0])(names, setup, **LOSSES[names[0]].options) for group, names in groups.items()}


def predicting(weights: Iterable[str]) -> list[str]:
    """The losses among these that compare predictions, and so need a head."""
    return [name for name in weights if "head" in _term_class(name).needs]


def check_vocabularies(weights: Iterable[str], kind: Vocabularies) -> None:
    """Refuse losses that cannot compare a student of one vocabulary with its teacher, or of two.

    Raises:
        UserError: naming the losses.
    """
    if strange := [name for name in weights if kind not in LOSSES[name].vocabularies]:
        why = (
            "token by token, but the student has a vocabulary of its own"
            if kind == "two"
            else "two vocabularies, but the student has its teacher's"
        )
        raise UserError(
            f"distillation.weights: {', '.join(strange)} {'compares' if len(strange) == 1 else 'compare'} {why}; for "
            f"that there are {', '.join(losses_for(kind))}"
        )


def check_heads(weights: Iterable[str], *, has_head: bool, whose: str = "the teacher") -> None:
    """Refuse losses over predictions where a model has no head.

    Raises:
        UserError: naming the losses.
    """
    if (found := predicting(weights)) and not has_head:
        verb = "compares" if len(found) == 1 else "compare"
        others = [name for name, loss in LOSSES.items() if loss.vocabularies and name not in predicting([name])]
        raise UserError(
            f"distillation.weights: {', '.join(found)} {verb} predictions, but {whose} is an encoder without "
            f"a masked-language head; for that there are {', '.join(others)}"
        )


def check_layers(settings: ComparisonSettings, student: PretrainedConfig, teacher: PretrainedConfig) -> None:
    """Refuse, before either model is there, a student and a teacher that do not fit a loss over layers.

    Raises:
        UserError: naming the loss or the layer map.
    """
    weights = positive_weights(settings)
    over_layers = {name: weight for name, weight in weights.items() if name not in predicting(weights)}
    build_terms(over_layers, Setup(settings, student, teacher, None))


def _term_class(name: str) -> type[Term]:
    module, kind = LOSSES[name].term.split(".")
    found: type[Term] = getattr(importlib.import_module(f"distilrubert.distill.losses.{module}"), kind)
    return found


def _check(weights: Mapping[str, float], setup: Setup) -> None:
    section = setup.settings.section
    is_task = not isinstance(setup.settings, ObjectiveSettings)
    if not is_task:
        check_vocabularies(weights, "two" if setup.tokenizers else "one")
    if setup.teacher is None:
        if any(LOSSES[name].needs_teacher for name in weights):
            without = "logits and labels work" if is_task else "mlm works"
            raise UserError(f"{section}.weights: of {', '.join(weights)} only {without} without a teacher")
    elif setup.tokenizers is None and setup.student.vocab_size != setup.teacher.vocab_size:
        raise UserError(
            f"student.vocabulary: the losses in {section}.weights compare both models on the same tokens, but the "
            f"student has {setup.student.vocab_size} tokens and the teacher {setup.teacher.vocab_size}"
        )
