import itertools
import time
from collections.abc import Iterator

import pytest
import torch

from distilrubert.common import precision
from distilrubert.common.precision import bf16_gain, choose_precision

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def timed_anew() -> Iterator[None]:
    bf16_gain.cache_clear()
    yield
    bf16_gain.cache_clear()


def processor(monkeypatch: pytest.MonkeyPatch, fp32_ms: float, bf16_ms: list[float]) -> None:
    """A clock on which products take this long; those in bf16 one after another, and the last again and again."""
    now = 0.0
    of_bf16 = itertools.chain(bf16_ms, itertools.repeat(bf16_ms[-1]))
    matmul = torch.matmul

    def multiply(left: torch.Tensor, right: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
        nonlocal now
        now += fp32_ms if left.dtype == torch.float32 else next(of_bf16)
        return matmul(left, right, out=out)

    monkeypatch.setattr(torch, "matmul", multiply)
    monkeypatch.setattr(time, "perf_counter", lambda: now)


@pytest.mark.parametrize(
    ("fp32_ms", "bf16_ms", "gain", "chosen"),
    [
        (4.0, [1.0], 4.0, "bf16"),
        # The instructions are there and slower.
        (4.0, [8.0], 0.5, "fp32"),
        # As good as even: not worth the lost bits.
        (4.0, [3.5], 4 / 3.5, "fp32"),
        # The first product of a kind may have to be prepared, and another program may come between.
        (4.0, [40.0, 2.0, 9.0], 2.0, "bf16"),
    ],
)
def test_the_faster_arithmetic_is_chosen(
    monkeypatch: pytest.MonkeyPatch, fp32_ms: float, bf16_ms: list[float], gain: float, chosen: str
) -> None:
    processor(monkeypatch, fp32_ms, bf16_ms)
    assert bf16_gain() == pytest.approx(gain)
    assert choose_precision("auto", CPU) == chosen


def test_what_was_asked_for_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "bf16_gain", lambda: pytest.fail("timed"))
    assert choose_precision("fp32", CPU) == "fp32"
    assert choose_precision("bf16", CPU) == "bf16"


def test_the_answer_is_one_for_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    processor(monkeypatch, 4.0, [1.0])
    assert choose_precision("auto", CPU) == "bf16"
    processor(monkeypatch, 4.0, [8.0])
    assert choose_precision("auto", CPU) == "bf16"
