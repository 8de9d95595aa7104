"""Losses over what a task asks: classes of a text, of some of its tokens, or a number.

    logits   T² Σ_n KL(softmax(t_n / T) || softmax(s_n / T))
    labels   Σ_m -log softmax(s_m)[y_m]

    several classes at once, σ the logistic function
    logits   T² / C Σ_n Σ_c KL(Bernoulli(σ(t_nc / T)) || Bernoulli(σ(s_nc / T)))
    labels   1 / C Σ_m Σ_c -y_mc log σ(s_mc) - (1 - y_mc) log σ(-s_mc)

    a number
    logits   Σ_n (s_n - t_n)²
    labels   Σ_m (s_m - y_m)²

where s are the logits of the student's head and t those of a teacher that was fine-tuned on the task (Hinton et al.,
"Distilling the Knowledge in a Neural Network", arXiv 1503.02531: the factor T² keeps the size of the gradient). Rows n
are those that the teacher was asked about, with labels or without, rows m those with a label: texts, or of a tagger the
first token of each word. Padding and other tokens are in neither. Where an answer starts and where it ends
are two rows, whose classes are the tokens.

The teacher's logits come with the batch: nothing in it is drawn, so that they are the same in each epoch, and the
teacher may have a tokenizer of its own.

Axes: B batch, L tokens, N and M rows, C classes.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from distilrubert.common.training.padding import NEVER
from distilrubert.distill.losses.rows import Decisions, Rows, places_of
from distilrubert.distill.losses.term import Outputs, Setup, Term


class TaskTerm(Term):
    """``logits`` and ``labels``, or one of them: both are made from the same logits."""

    needs = frozenset({"logits"})

    def __init__(self, names: Sequence[str], setup: Setup) -> None:
        super().__init__(names, setup)
        self._temperature = setup.settings.temperature

    def counts(self, rows: Rows) -> dict[str, Tensor]:
        """Of ``logits`` the rows that the teacher was asked about, of ``labels`` those with a label."""
        assert rows.decisions is not None
        counts = {"logits": rows.decisions.compared.sum(), "labels": rows.decisions.labelled.sum()}
        return {name: counts[name] for name in self.names}

    def places(self, rows: Rows) -> dict[str, Tensor]:
        """The rows of either loss."""
        assert rows.decisions is not None
        return {"logits": places_of(rows.decisions.compared), "labels": places_of(rows.decisions.labelled)}

    def forward(
        self, student: Outputs, teacher: Outputs | None, rows: Rows, scales: Mapping[str, float]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        decisions = rows.decisions
        assert decisions is not None
        assert student.logits is not None
        given = self.given_places(rows)
        with torch.autocast(rows.student.mask_BL.device.type, enabled=False):
            logits = _without_padding(student.logits.float(), decisions, rows.student.mask_BL)
            sums: dict[str, Tensor] = {}
            axes = decisions.compared.ndim

            def chosen(values: Tensor, places_N: Tensor) -> Tensor:
                return values.flatten(0, axes - 1).index_select(0, places_N)

            if "logits" in self.names:
                theirs = decisions.teacher_logits.float()
                found_NC, expected_NC = (chosen(each, given["logits"]) for each in (logits, theirs))
                sums["logits"] = self._to_teacher(found_NC, expected_NC, decisions)
            if "labels" in self.names:
                sums["labels"] = _to_labels(*(chosen(each, given["labels"]) for each in (logits, decisions.labels)))
            total = sum((scales[name] * value for name, value in sums.items()), logits.new_zeros(()))
            return total, sums

    def _to_teacher(self, found_NC: Tensor, expected_NC: Tensor, decisions: Decisions) -> Tensor:
        if not decisions.labels.is_floating_point():
            return divergence(found_NC, expected_NC, self._temperature)
        if decisions.labels.ndim == 1:
            return F.mse_loss(found_NC, expected_NC, reduction="sum")
        # A class, or not: two classes whose logits are s and 0.
        found, expected = (F.pad(logits_NC[..., None], (0, 1)) for logits_NC in (found_NC, expected_NC))
        return divergence(found, expected, self._temperature) / found_NC.shape[1]


def _to_labels(logits_MC: Tensor, labels: Tensor) -> Tensor:
    if not labels.is_floating_point():
        return F.cross_entropy(logits_MC, labels, reduction="sum")
    if labels.ndim == 1:
        return F.mse_loss(logits_MC[:, 0], labels, reduction="sum")
    return F.binary_cross_entropy_with_logits(logits_MC, labels, reduction="sum") / labels.shape[1]


def _without_padding(logits: Tensor, decisions: Decisions, mask_BL: Tensor) -> Tensor:
    """The logits, in which no answer starts or ends at padding."""
    is_over_tokens = logits.ndim == 3 and decisions.labels.shape == logits.shape[:2] != mask_BL.shape
    return logits.masked_fill(~mask_BL[:, None], NEVER) if is_over_tokens else logits


def divergence(student_NC: Tensor, teacher_NC: Tensor, temperature: float) -> Tensor:
    """The divergence of the student's from the teacher's probabilities at a temperature, times its square, summed.

    The classes are the last axis.
    """
    log_student_NC = F.log_softmax(student_NC / temperature, dim=-1)
    log_teacher_NC = F.log_softmax(teacher_NC / temperature, dim=-1)
    return temperature**2 * F.kl_div(log_student_NC, log_teacher_NC, reduction="sum", log_target=True)
