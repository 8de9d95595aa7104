"""Axes: N rows, M labelled rows, V vocabulary, D student width, E teacher width."""

import dataclasses
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from distilrubert.distill.losses import tiles
from distilrubert.distill.losses.chunks import HeadInput
from distilrubert.distill.losses.vocabulary import VocabularyLoss
from tests.distill.losses.reference_formulas import kl_divergence, masked_cross_entropy

SCALES = 0.3, 0.7


class Losses(NamedTuple):
    total: Tensor
    kl: Tensor
    mlm: Tensor


@dataclasses.dataclass
class Problem:
    """Random rows, weights and labels."""

    student: HeadInput
    teacher: HeadInput
    labels_M: Tensor
    temperature: float = 2.0

    @classmethod
    def random(
        cls, rows: int = 11, labelled: int = 4, vocabulary: int = 37, *, dtype: torch.dtype = torch.float64,
        bias: bool = True, spread: float = 1.0, temperature: float = 2.0,
    ) -> "Problem":  # fmt: skip
        generator = torch.Generator().manual_seed(rows + vocabulary)

        def draw(*shape: int) -> Tensor:
            # Drawn in float64 whatever the type, so that problems of two types are the same.
            return (spread * torch.randn(*shape, generator=generator, dtype=torch.float64)).to(dtype)

        student = HeadInput(draw(rows, 6), draw(vocabulary, 6), draw(vocabulary) if bias else None)
        teacher = HeadInput(draw(rows, 9), draw(vocabulary, 9), draw(vocabulary) if bias else None)
        for tensor in tensors_of(student):
            tensor.requires_grad_()
        labels_M = torch.randint(vocabulary, (labelled,), generator=generator)
        return cls(student, teacher, labels_M, temperature)

    def fused(self, chunk: int = 4, scales: tuple[float, float] = SCALES) -> Losses:
        return Losses(*VocabularyLoss(self.temperature, chunk)(self.student, self.teacher, self.labels_M, *scales))

    def plain(self, scales: tuple[float, float] = SCALES) -> Losses:
        kl = kl_divergence(logits(self.student), logits(self.teacher), self.temperature)
        mlm = masked_cross_entropy(logits(self.student)[: len(self.labels_M)], self.labels_M)
        return Losses(scales[0] * kl + scales[1] * mlm, kl, mlm)

    def gradients(self, losses: Losses) -> list[Tensor]:
        return list(torch.autograd.grad(losses.total, tensors_of(self.student)))


def tensors_of(predictor: HeadInput) -> list[Tensor]:
    return [tensor for tensor in predictor[:3] if tensor is not None]


def logits(predictor: HeadInput) -> Tensor:
    logits_NV = predictor.hidden_ND @ predictor.weight_VD.T
    return logits_NV if predictor.bias_V is None else logits_NV + predictor.bias_V


def relative_error(ours: Tensor, expected: Tensor) -> float:
    return ((ours.double() - expected.double()).norm() / expected.double().norm()).item()


@pytest.fixture(params=[5, 16, 1000], ids="tile of {}".format)
def _tile(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "CPU_TILE", request.param)


@pytest.mark.usefixtures("_tile")
@pytest.mark.parametrize("chunk", [1, 4, 11, 100])
@pytest.mark.parametrize("labelled", [0, 4, 11])
@pytest.mark.parametrize("bias", [True, False])
def test_equals_the_plain_form_for_any_chunk_tile_and_labels(chunk: int, labelled: int, bias: bool) -> None:
    problem = Problem.random(labelled=labelled, bias=bias)
    fused, plain = problem.fused(chunk), problem.plain()
    torch.testing.assert_close(tuple(fused), tuple(plain))
    torch.testing.assert_close(problem.gradients(fused), problem.gradients(plain))


def test_a_chunk_of_more_elements_than_an_inner_product_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault: torch.dot on a GPU takes at most 2^31 - 1 elements. Here the limit is set to 50, and checked."""
    monkeypatch.setattr(tiles, "DOT_LIMIT", 50)
    dot = torch.dot

    def limited(left: Tensor, right: Tensor) -> Tensor:
        assert left.numel() <= 50
        return dot(left, right)

    monkeypatch.setattr(torch, "dot", limited)
    problem = Problem.random(rows=11, vocabulary=37)
    torch.testing.assert_close(tuple(problem.fused(11)), tuple(problem.plain()))


@pytest.mark.parametrize("temperature", [1.0, 2.0, 3.0, 0.7])
def test_any_temperature(temperature: float) -> None:
    problem = Problem.random(temperature=temperature)
    torch.testing.assert_close(tuple(problem.fused()), tuple(problem.plain()))
    torch.testing.assert_close(problem.gradients(problem.fused()), problem.gradients(problem.plain()))


@pytest.mark.parametrize("temperature", [0.5, 8.0, 10.0, 20.0])
def test_extreme_temperatures_over_a_large_vocabulary_in_float32(temperature: float) -> None:
    # Near-even predictions, as a new student's are: a label's r is the T-th power of a q that is itself small.
    problem = Problem.random(vocabulary=30_000, spread=0.05, temperature=temperature, dtype=torch.float32)
    exact = Problem.random(vocabulary=30_000, spread=0.05, temperature=temperature)
    gradients, expected = problem.gradients(problem.fused()), exact.gradients(exact.plain())
    for ours, theirs in zip(gradients, expected, strict=True):
        assert relative_error(ours, theirs) < 1e-5


@pytest.mark.parametrize("scales", [(0.3, 0.0), (0.0, 0.7), (0.0, 0.0)])
def test_a_loss_without_scale_is_left_out(scales: tuple[float, float]) -> None:
    problem = Problem.random()
    torch.testing.assert_close(problem.fused(scales=scales).total, problem.plain(scales).total)
    torch.testing.assert_close(
        problem.gradients(problem.fused(scales=scales)), problem.gradients(problem.plain(scales))
    )


def test_without_a_teacher_only_the_labelled_rows_count() -> None:
    problem = Problem.random()
    loss = Losses(*VocabularyLoss(2.0, 4)(problem.student, None, problem.labels_M, 0.0, 0.7))
    expected = problem.plain((0.0, 0.7))
    torch.testing.assert_close(loss.mlm, expected.mlm)
    torch.testing.assert_close(problem.gradients(loss), problem.gradients(expected))
    assert loss.kl == 0


@pytest.mark.usefixtures("_tile")
@pytest.mark.parametrize("with_teacher", [True, False])
def test_gradcheck(with_teacher: bool) -> None:
    problem = Problem.random(rows=5, labelled=2, vocabulary=13)
    loss = VocabularyLoss(2.0, 2)
    teacher = problem.teacher if with_teacher else None

    def total(*tensors: Tensor) -> Tensor:
        return loss(HeadInput(*tensors), teacher, problem.labels_M, *SCALES)[0]

    assert torch.autograd.gradcheck(total, tensors_of(problem.student), check_undefined_grad=False)


@pytest.mark.parametrize(("rows", "vocabulary"), [(50, 3000), (300, 500)])
def test_float32_is_exact_to_a_millionth(rows: int, vocabulary: int) -> None:
    single = Problem.random(rows, rows // 5, vocabulary, dtype=torch.float32)
    double = Problem.random(rows, rows // 5, vocabulary, dtype=torch.float64)
    # Both start from numbers that float32 holds.
    double.student, double.teacher = (
        HeadInput(*(tensor.detach().double().requires_grad_() for tensor in tensors_of(predictor)))
        for predictor in (single.student, single.teacher)
    )
    fused, exact = single.fused(64), double.plain()
    for ours, expected in zip(fused, exact, strict=True):
        assert ours.item() == pytest.approx(expected.item(), rel=1e-6)
    for ours, expected in zip(single.gradients(fused), double.gradients(exact), strict=True):
        assert relative_error(ours, expected) < 1e-6


def test_bf16_products_with_float32_sums() -> None:
    problem = Problem.random(200, 40, 5000, dtype=torch.float32, spread=0.7)
    exact = problem.plain()
    with torch.autocast("cpu", torch.bfloat16):
        fused = problem.fused(64)
        half = Losses(*(loss.float() for loss in problem.plain()))
    for ours, expected in zip(fused, exact, strict=True):
        assert ours.dtype == torch.float32
        assert ours.item() == pytest.approx(expected.item(), rel=3e-3)
    gradients = problem.gradients(exact)
    theirs = [relative_error(*pair) for pair in zip(problem.gradients(half), gradients, strict=True)]
    for ours, expected, error in zip(problem.gradients(fused), gradients, theirs, strict=True):
        assert ours.dtype == torch.float32
        # What autocast makes of the plain form is no better, but for the sums of chunks.
        assert relative_error(ours, expected) < 1.5 * error < 0.01


def test_extreme_logits_stay_finite() -> None:
    problem = Problem.random(dtype=torch.float32, spread=30.0)
    fused, plain = problem.fused(), problem.plain()
    assert logits(problem.student).abs().max() > 1000
    torch.testing.assert_close(tuple(fused), tuple(plain), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(problem.gradients(fused), problem.gradients(plain), rtol=1e-4, atol=1e-4)


def test_no_rows_give_zero_and_zero_gradients() -> None:
    problem = Problem.random(rows=0, labelled=0)
    losses = problem.fused()
    assert [loss.item() for loss in losses] == [0, 0, 0]
    assert all(gradient.count_nonzero() == 0 for gradient in problem.gradients(losses))


def test_the_gradient_of_a_tied_embedding_is_that_of_both_uses() -> None:
    problem = Problem.random(rows=6, labelled=3)
    embedding, ids = problem.student.weight_VD, torch.tensor([3, 3, 0, 36, 7, 1])

    def gradient(kind: str) -> Tensor:
        problem.student = problem.student._replace(hidden_ND=torch.tanh(embedding[ids]))
        return torch.autograd.grad(getattr(problem, kind)().total, embedding)[0]

    torch.testing.assert_close(gradient("fused"), gradient("plain"))


def test_what_comes_from_above_scales_the_gradient_and_the_graph_can_be_kept() -> None:
    problem = Problem.random()
    inputs = tensors_of(problem.student)
    total = problem.fused().total
    once = torch.autograd.grad(total, inputs, retain_graph=True)
    thrice = torch.autograd.grad(3 * total, inputs)
    torch.testing.assert_close(thrice, tuple(3 * gradient for gradient in once))


def test_only_what_needs_a_gradient_gets_one() -> None:
    problem = Problem.random()
    problem.student.weight_VD.requires_grad_(False)
    problem.fused().total.backward()
    assert problem.student.weight_VD.grad is None
    assert problem.student.hidden_ND.grad is not None
    with torch.no_grad():
        losses = problem.fused()
    assert not losses.total.requires_grad
    torch.testing.assert_close(tuple(losses), tuple(problem.plain()))


def test_one_object_serves_calls_of_different_sizes_and_types() -> None:
    loss = VocabularyLoss(2.0, 4)
    for problem in (Problem.random(), Problem.random(3, 3, 90), Problem.random(dtype=torch.float32), Problem.random()):
        fused = Losses(*loss(problem.student, problem.teacher, problem.labels_M, *SCALES))
        torch.testing.assert_close(tuple(fused), tuple(problem.plain()))
        torch.testing.assert_close(problem.gradients(fused), problem.gradients(problem.plain()))


class LargestTensor(TorchDispatchMode):
    """Records the number of elements of the largest tensor that is made while the mode is on."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


def test_nothing_holds_all_rows_times_the_vocabulary() -> None:
    problem = Problem.random(rows=400, labelled=60, vocabulary=1000)
    with LargestTensor() as largest:
        problem.gradients(problem.fused(chunk=8))
    # The weight's gradient, or the chunk's logits.
    assert largest.elements <= max(8 * 1000, 1000 * 9)
    with LargestTensor() as largest:
        problem.gradients(problem.plain())
    assert largest.elements == 400 * 1000
