"""KL and MLM at once: the fast path of :mod:`.chunks` over one vocabulary.

    KL = T² Σ p (log p - log q),   p = softmax(teacher / T),   q = softmax(student / T)
    MLM = -log r[label],   r = softmax(student)

KL is the forward divergence, teacher first. T² keeps its gradient of the order of the cross-entropy's (Hinton et al.,
"Distilling the Knowledge in a Neural Network", arXiv 1503.02531; DistilBERT, arXiv 1910.01108). MLM is the
cross-entropy of the masked tokens (Devlin et al., arXiv 1810.04805).

Inside a chunk the vocabulary is walked in tiles that stay in the processor's caches, twice: first for the logits and
their normalisers, then for the gradient. With x = z/T for the student's logits z and y = z'/T for the teacher's,

    p = exp(y - log Σ exp y)    q = exp(x - log Σ exp x)      KL = T² Σ p (log p - log q)    dKL/dz = T (q - p)
                                r = exp(Tx - log Σ exp Tx)    MLM = -log r[label]            dMLM/dz = r - [label]

where r is proportional to q^T, so that one exponential serves both losses.

Chunks are stored vocabulary first (V, C): the weights are then the long operand of the product and each tile of them
is contiguous.

Axes: N rows, C rows of a chunk, M labelled rows (the first ones), V vocabulary, D width.
"""

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from distilrubert.distill.losses.chunks import HeadInput, Results, with_gradients
from distilrubert.distill.losses.tiles import (
    Arithmetic,
    Buffers,
    ChunkLogits,
    chunk_logits,
    inner_product,
    subtract_at_labels,
)


class VocabularyLoss:
    """Fused divergence and cross-entropy; keeps its work space from call to call.

    Under bf16 autocast the products are made in bf16; softmax, sums and the gradients are float32 all the same.

    Args:
        temperature: T of the divergence, at least 0.5: below, e^x underflows where e^(Tx) does not.
        chunk: rows that are worked on at a time; memory is proportional to it times the vocabulary.

    Attributes:
        is_compiled: whether what is made of logits is compiled.
    """

    def __init__(self, temperature: float, chunk: int) -> None:
        self._temperature, self._chunk, self._buffers = temperature, chunk, Buffers()
        self.is_compiled = False

    def __call__(
        self,
        student: HeadInput,
        teacher: HeadInput | None,
        labels_M: Tensor,
        kl_scale: float,
        mlm_scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The weighted total with the gradient; the divergence over all rows (nats times T²) and the cross-entropy.

        The scales must be known here, as the gradient of each loss is made here: weight / number of rows.

        Args:
            student: its first M rows have the labels, all of them are compared with the teacher's.
            teacher: the same rows; None leaves out the divergence. Receives no gradient.
            labels_M: token that each of the first M rows should predict.
            kl_scale: factor of the divergence in the total.
            mlm_scale: factor of the cross-entropy in the total.
        """
        temperature = self._temperature
        labels_M = labels_M if mlm_scale else labels_M[:0]
        if teacher is None or not kl_scale:
            # What is left are the labelled rows, at their own temperature.
            teacher, temperature, kl_scale = None, 1.0, 0.0
            student = student._replace(hidden_ND=student.hidden_ND[: len(labels_M)])

        def compute(student: HeadInput, needs: Sequence[bool]) -> Results:
            a = Arithmetic.choose(
                student.hidden_ND, len(student.weight_VD), self._buffers, is_compiled=self.is_compiled
            )
            tiles = _Tiles(a, student, needs, teacher, labels_M, temperature, kl_scale, mlm_scale)
            for start in range(0, len(student.hidden_ND), self._chunk):
                tiles.add_rows(slice(start, start + self._chunk))
            return tiles.results()

        total, kl, mlm = with_gradients(compute, student)
        return total, kl, mlm


@dataclasses.dataclass(eq=False)
class _Tiles:
    """The sums and gradients of one call, tile by tile of each chunk.

    The gradient with respect to the logits is held in units of the divergence's, where there is one: what is small,
    rows and results, is multiplied by the unit, and not the logits.
    """

    arithmetic: Arithmetic
    student: HeadInput
    needs: Sequence[bool]
    teacher: HeadInput | None
    labels_M: Tensor
    temperature: float
    kl_scale: float
    mlm_scale: float

    def __post_init__(self) -> None:
        a, student = self.arithmetic, self.student
        self.unit = self.kl_scale * self.temperature if self.teacher else self.mlm_scale
        self.student_VD = a.cast("student weight", student.weight_VD, a.narrow)
        if self.teacher:
            self.teacher_VD = a.cast("teacher weight", self.teacher.weight_VD, a.narrow)
        self.kl = torch.zeros((), dtype=a.wide, device=a.device)
        self.mlm = torch.zeros_like(self.kl)
        # The first chunk writes every entry, so only a call without rows has anything to clear.
        new = torch.empty_like if len(student.hidden_ND) else torch.zeros_like
        self.hidden_ND, self.weight_VD, self.bias_V = (
            new(tensor, dtype=a.wide) if tensor is not None and needed else None
            for tensor, needed in zip(student[:3], self.needs, strict=True)
        )

    def results(self) -> Results:
        gradients = [
            None if gradient is None or whole is None else gradient.to(whole.dtype)
            for gradient, whole in zip((self.hidden_ND, self.weight_VD, self.bias_V), self.student[:3], strict=True)
        ]
        return self.kl_scale * self.kl + self.mlm_scale * self.mlm, [self.kl, self.mlm], gradients

    def add_rows(self, rows: slice) -> None:
        with torch.autocast(self.arithmetic.device.type, enabled=False):
            self._add_rows(rows)

    def _add_rows(self, rows: slice) -> None:
        a, labels_M = self.arithmetic, self.labels_M[rows]
        student = self._logits("student", self.student, self.student_VD, rows, len(labels_M))
        teacher = self._logits("teacher", self.teacher, self.teacher_VD, rows, 0) if self.teacher else None
        columns_M = torch.arange(len(labels_M), device=a.device)
        label_logits_M = self.temperature * student.scaled_VC[labels_M, columns_M].to(a.wide)
        self.mlm += (student.label_normaliser_M - label_logits_M).sum()
        with_gradient = any(self.needs)
        if teacher is None and not with_gradient:
            return
        scaled_CD = (self.unit * self.student.hidden_ND[rows]).to(a.narrow)
        share = torch.full((), self.mlm_scale / self.unit, dtype=a.wide, device=a.device)
        for tile in a.tiles:
            sides = student.of_tile(tile), teacher and teacher.of_tile(tile)
            kl, gradient_VC, sums_V = a.form_of(_compare)(a, *sides, labels_M - tile.start, share, self.temperature)
            self.kl += kl
            if with_gradient:
                self._add_gradients(tile, rows, gradient_VC, sums_V, scaled_CD)
        if self.hidden_ND is not None:
            self.hidden_ND[rows] *= self.unit

    def _logits(self, name: str, of: HeadInput, weight_VD: Tensor, rows: slice, labelled: int) -> ChunkLogits:
        return chunk_logits(self.arithmetic, name, of.hidden_ND[rows], weight_VD, of.bias_V, self.temperature, labelled)

    def _add_gradients(self, tile: slice, rows: slice, gradient_VC: Tensor, sums_V: Tensor, scaled_CD: Tensor) -> None:
        a, first_rows, first_tile = self.arithmetic, rows.start == 0, tile.start == 0
        if self.bias_V is not None:
            sums_V = sums_V * self.unit
            self.bias_V[tile] = sums_V if first_rows else self.bias_V[tile] + sums_V
        if self.weight_VD is not None:
            a.add_product(self.weight_VD[tile], gradient_VC, scaled_CD, first=first_rows)
        if self.hidden_ND is not None:
            a.add_product(self.hidden_ND[rows], gradient_VC.t(), self.student_VD[tile], first=first_tile)


def _compare(
    a: Arithmetic,
    student: ChunkLogits,
    teacher: ChunkLogits | None,
    labels_M: Tensor,
    share: Tensor,
    temperature: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """What a tile adds to the divergence, and the gradient of both losses.

    Args:
        a: types and work space.
        student: its logits, which may be overwritten.
        teacher: its logits, which may be overwritten.
        labels_M: of the first rows, counted from the first token of the tile.
        share: the unit of cross-entropy in those of the gradient.
        temperature: T.

    Returns:
        the divergence; the gradient in the type of products; its sums over rows, (V,).
    """
    log_q_VC = a.cast("student tile", student.scaled_VC, a.wide).sub_(student.normaliser_C)
    kl = share.new_zeros(())
    if teacher is None:
        gradient_VC = log_q_VC.exp_()
    else:
        log_p_VC = a.cast("teacher tile", teacher.scaled_VC, a.wide).sub_(teacher.normaliser_C)
        p_VC = torch.exp(log_p_VC, out=a.scratch("powers", log_p_VC.shape))
        ratio_VC = log_p_VC.sub_(log_q_VC)
        kl = temperature**2 * inner_product(p_VC.view(-1), ratio_VC.view(-1))
        q_VC, labelled = log_q_VC.exp_(), len(labels_M)
        # The factor goes under the power: there it is of the size of 1 / q, above it of that to the power of T.
        factor_M = (student.normaliser_C[:labelled] - student.label_normaliser_M / temperature).exp_()
        factor_M *= share ** (1 / temperature)
        r_VM = (q_VC[:, :labelled] * factor_M).pow_(temperature)
        gradient_VC = q_VC.sub_(p_VC)
        gradient_VC[:, :labelled] += r_VM
    subtract_at_labels(gradient_VC, labels_M, share)
    return kl, a.cast("gradient tile", gradient_VC, a.narrow), gradient_VC.sum(dim=1)
