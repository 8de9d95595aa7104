"""How often an update waits for its device, and how far ahead batches are made."""

import runpy
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch.utils._python_dispatch import TorchDispatchMode

from distilrubert.common.training import trainer
from distilrubert.common.training.batching import build_loader
from distilrubert.common.training.training_settings import OptimizationSettings
from distilrubert.common.training.update import Updater
from distilrubert.common.training.validation import Validation
from distilrubert.distill.batches.masking import Masker
from distilrubert.distill.batches.masking_settings import MaskingSettings
from distilrubert.distill.losses import chunks
from distilrubert.distill.losses.objective import Objective
from distilrubert.distill.objective_settings import ObjectiveSettings

tiny = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("tiny_run.py"))))


class Reads(TorchDispatchMode):
    """Counts what the host reads of tensors, and the shapes that it makes of their values."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.number = 0
        whole = torch.Tensor.tolist

        def counted(tensor: torch.Tensor) -> Any:
            self.number += 1
            return whole(tensor)

        # It copies the data without an operation that a mode sees.
        monkeypatch.setattr(torch.Tensor, "tolist", counted)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.number += func.overloadpacket.__name__ in ("_local_scalar_dense", "nonzero", "masked_select")
        return func(*args, **(kwargs or {}))


def test_an_update_waits_once_and_knows_the_rows_of_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    # A CPU alone is asked; it has nothing to wait for.
    monkeypatch.setattr(chunks, "_is_seen_to_be_one", lambda gradient: False)
    teacher = tiny.tiny_teacher()
    corpus = tiny.tiny_corpus(teacher)
    student = tiny.tiny_student(teacher)
    objective = Objective(student.model, teacher.model, ObjectiveSettings())
    tokenizer = teacher.tokenizer
    special, mask_id = tokenizer.all_special_ids, tokenizer.mask_token_id
    masker = Masker(MaskingSettings(), corpus.token_counts, special, mask_id, 0, tokenizer.pad_token_id)
    planned = [np.arange(first, first + 8) for first in range(0, 48, 8)]
    batches = list(build_loader(corpus.train, masker, planned, epoch=0, prepare=objective.preparation()))
    updates = [batches[0:2], batches[2:4], batches[4:6], None]
    update = Updater(Accelerator(cpu=True), objective, OptimizationSettings(precision="fp32"), 3, 0)
    waits, results = [], []
    for number in range(3):
        with Reads(monkeypatch) as reads:
            own, following = updates[number], updates[number + 1]
            results.append(update(number, 0, [2 * number, 2 * number + 1], own, {"stop": False}, following=following))
        waits.append(reads.number)
    # Before the first one the rows have to be exchanged by themselves.
    assert waits == [2, 1, 1]
    assert [result.tokens for result in results] == [int(corpus.train.lengths[n : n + 16].sum()) for n in (0, 16, 32)]
    assert not any(result.is_skipped or result.requests["stop"] for result in results)
    with Reads(monkeypatch) as reads:
        # Other batches than those that were announced are counted.
        update.__call__(3, 0, [0, 1], updates[0], {}, following=updates[1])
        other = update(4, 0, [4, 5], updates[2], {})
    assert reads.number == 4
    assert other.tokens == results[2].tokens


def test_the_next_batches_are_made_before_an_update_begins() -> None:
    made: list[int] = []

    def making() -> Iterator[int]:
        for number in range(4):
            made.append(number)
            yield number

    seen = [(item, following, list(made)) for item, following in trainer._with_next(making())]
    assert seen == [(0, 1, [0, 1]), (1, 2, [0, 1, 2]), (2, 3, [0, 1, 2, 3]), (3, None, [0, 1, 2, 3])]


@pytest.mark.parametrize(("workers", "ahead", "each"), [(0, 8, None), (2, 1, 2), (2, 9, 5), (3, 12, 4)])
def test_workers_have_an_update_ready(workers: int, ahead: int, each: int | None) -> None:
    text = [np.arange(5, dtype=np.int32)]
    masker = Masker(MaskingSettings(), np.ones(9, dtype=np.int64), range(3), 4, seed=1)
    loader = build_loader(text, masker, [np.array([0])], epoch=0, prepare=dict, num_workers=workers, ahead=ahead)
    assert loader.prefetch_factor == each


def test_a_validation_waits_once(monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = tiny.tiny_teacher()
    corpus = tiny.tiny_corpus(teacher)
    objective = Objective(tiny.tiny_student(teacher).model, teacher.model, ObjectiveSettings())
    tokenizer = teacher.tokenizer
    special, mask_id = tokenizer.all_special_ids, tokenizer.mask_token_id
    masker = Masker(MaskingSettings(), corpus.token_counts, special, mask_id, 0, tokenizer.pad_token_id)
    settings = OptimizationSettings(precision="fp32", batch_tokens=64)
    validation = Validation(corpus.validation, masker, objective, settings, 0, Accelerator(cpu=True))
    with Reads(monkeypatch) as reads:
        losses = validation.measure("fp32")
    assert len(validation._batches) > 2
    assert reads.number == 1
    assert losses["loss"] == pytest.approx(5 * losses["kl"] + 2 * losses["mlm"] + losses["cosine"], rel=1e-5)
    # Of a process without a batch.
    validation._batches = []
    assert validation.measure("fp32") == {}
