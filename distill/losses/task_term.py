"""Losses over what a task asks: the class of a text, or of some of its tokens.

    logits   T² Σ_n KL(softmax(t_n / T) || softmax(s_n / T))
    labels   Σ_m -log softmax(s_m)[y_m]

where s are the logits of the student's head and t those of a teacher that was fine-tuned on the task (Hinton et al.,
"Distilling the Knowledge in a Neural Network", arXiv 1503.02531: the factor T² keeps the size of the gradient). Rows n
are those that the teacher was asked about, with labels or without, rows m those with a label: of a classifier texts, of
a tagger the first token of each word. Padding and other tokens are in neither. Where an answer starts and where it ends
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
from distilrubert.distill.losses.rows import Decisions, Rows
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

    def forward(
        self, student: Outputs, teacher: Outputs | None, rows: Rows, scales: Mapping[str, float]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        decisions = rows.decisions
        assert decisions is not None
        assert student.logits is not None
        with torch.autocast(rows.student.mask_BL.device.type, enabled=False):
            logits = _without_padding(student.logits.float(), decisions, rows.student.mask_BL)
            sums: dict[str, Tensor] = {}
            if "logits" in self.names:
                found_NC, expected_NC = logits[decisions.compared], decisions.teacher_logits[decisions.compared]
                sums["logits"] = divergence(found_NC, expected_NC, self._temperature)
            if "labels" in self.names:
                labels_M = decisions.labels[decisions.labelled]
                sums["labels"] = F.cross_entropy(logits[decisions.labelled], labels_M, reduction="sum")
            total = sum((scales[name] * value for name, value in sums.items()), logits.new_zeros(()))
            return total, sums


def _without_padding(logits: Tensor, decisions: Decisions, mask_BL: Tensor) -> Tensor:
    """The logits, in which no answer starts or ends at padding."""
    is_over_tokens = logits.ndim == 3 and decisions.labels.shape == logits.shape[:2] != mask_BL.shape
    return logits.masked_fill(~mask_BL[:, None], NEVER) if is_over_tokens else logits


def divergence(student_NC: Tensor, teacher_NC: Tensor, temperature: float) -> Tensor:
    """The divergence of the student's from the teacher's probabilities at a temperature, times its square, summed."""
    log_student_NC = F.log_softmax(student_NC / temperature, dim=-1)
    log_teacher_NC = F.log_softmax(teacher_NC.float() / temperature, dim=-1)
    return temperature**2 * F.kl_div(log_student_NC, log_teacher_NC, reduction="sum", log_target=True)
