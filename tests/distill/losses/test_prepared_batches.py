"""Batches that come with all that the host has to know of them: the same losses, and no device that is waited for."""

import pickle
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification, PreTrainedTokenizerFast

from distilrubert.common.training.loss_module import Prepared
from distilrubert.distill.batches.masking_settings import MaskingSettings
from distilrubert.distill.batches.span_masking import SpanMasker
from distilrubert.distill.corpus.pairs import PairEncoder
from distilrubert.distill.losses import LossWeights, TaskLossWeights, chunks
from distilrubert.distill.losses.objective import Objective
from distilrubert.distill.losses.term import Tokenizers
from distilrubert.distill.objective_settings import ObjectiveSettings, TaskObjectiveSettings
from distilrubert.modeling.architecture import StudentArchitecture
from distilrubert.modeling.student import build_student
from distilrubert.modeling.teacher import Teacher
from distilrubert.modeling.trimming import count_needed
from distilrubert.modeling.wordpiece import train_wordpiece
from tests.random_teachers import make_teacher

Batch = dict[str, Tensor]
STATES = {"cosine": 1.0, "hidden": 1.0, "attention": 1.0}


class Case(NamedTuple):
    objective: Objective
    batch: Batch


def batch_of(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> Batch:
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    ids_BL, mask_BL = inputs["input_ids"], inputs["attention_mask"]
    labels_BL = torch.full_like(ids_BL, -100)
    labels_BL[:, 2] = ids_BL[:, 2]
    return {"input_ids": ids_BL, "attention_mask": mask_BL, "labels": labels_BL}


def one_vocabulary(model_type: str, *, padded: bool = True, positions: str = "masked") -> Callable[..., Case]:
    def make(tiny_teacher: Teacher, sentences: list[str]) -> Case:
        teacher = make_teacher(model_type, tiny_teacher.tokenizer)
        student = build_student(teacher, StudentArchitecture(layers=3))
        weights = LossWeights(kl=5.0, mlm=2.0, **STATES)
        settings = ObjectiveSettings(weights=weights, kl_positions=positions, layer_map="last-of-block")
        texts = sentences[:6] if padded else sentences[:1] * 3
        return Case(Objective(student.model, teacher.model, settings), batch_of(teacher.tokenizer, texts))

    return make


def two_vocabularies(weights: dict[str, float], positions: str = "masked") -> Callable[..., Case]:
    def make(tiny_teacher: Teacher, sentences: list[str]) -> Case:
        own = train_wordpiece(sentences, size=150, max_length=64).tokenizer
        narrow = StudentArchitecture(layers=2, dim=16, heads=4, hidden_dim=32)
        student = build_student(tiny_teacher, narrow, tokenizer=own)
        settings = ObjectiveSettings(weights=LossWeights(**weights), kl_positions=positions)
        tokenizers = Tokenizers(tiny_teacher.tokenizer, student.tokenizer)
        masker = SpanMasker(MaskingSettings(), *tokenizers, count_needed(student.tokenizer, sentences), 1)
        pairs = [text[0] for text in PairEncoder(*tokenizers, 64).encode(sentences[:8])]
        objective = Objective(student.model, tiny_teacher.model, settings, tokenizers)
        return Case(objective, masker.collate(pairs, 0, range(8)))

    return make


def vectors(tiny_teacher: Teacher, sentences: list[str]) -> Case:
    student = build_student(tiny_teacher, StudentArchitecture(layers=2))
    settings = ObjectiveSettings(weights=LossWeights(sentence_cosine=1.0, similarity=1.0))
    return Case(Objective(student.model, tiny_teacher.model, settings), batch_of(tiny_teacher.tokenizer, sentences[:6]))


def task(kind: type, axes: int) -> Callable[..., Case]:
    def make(tiny_teacher: Teacher, sentences: list[str]) -> Case:
        config = build_student(tiny_teacher, StudentArchitecture(layers=2)).model.config
        config.num_labels = 3
        model = kind.from_config(config).eval()
        plain = batch_of(tiny_teacher.tokenizer, sentences[:6])
        over = plain["input_ids"].shape[:axes]
        labels = torch.arange(over.numel()).view(over) % 4 - 1
        own = {
            "labels": labels.masked_fill(labels < 0, -100),
            "teacher_logits": torch.randn(*over, 3),
            "compared": labels != 1,
        }
        settings = TaskObjectiveSettings(weights=TaskLossWeights(logits=1.0, labels=0.5))
        return Case(Objective(model, None, settings), plain | own)

    return make


CASES: dict[str, Callable[..., Case]] = {
    "bert": one_vocabulary("bert"),
    "bert without padding": one_vocabulary("bert", padded=False),
    "bert at all tokens": one_vocabulary("bert", positions="all"),
    "xlm-roberta": one_vocabulary("xlm-roberta"),
    "modernbert": one_vocabulary("modernbert"),
    "spans": two_vocabularies({"mlm": 0.5, "first_token": 0.7, "match": 2.0, "reduce": 0.1}),
    "means of spans": two_vocabularies({"reduce_map": 1.0, "reduce_cosine": 0.3}, "all"),
    "vectors": vectors,
    "texts of a task": task(AutoModelForSequenceClassification, 1),
    "tokens of a task": task(AutoModelForTokenClassification, 2),
}


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, tiny_teacher: Teacher, sentences: list[str]) -> Case:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        found: Case = CASES[request.param](tiny_teacher, sentences)
    found.objective.eval()
    return found


def in_another_process(case: Case) -> Prepared:
    """The batch as a worker process prepares it."""
    prepared: Prepared = pickle.loads(pickle.dumps(case.objective.preparation()))(case.batch)
    return prepared


def results(objective: Objective, batch: Batch, counts: dict[str, int]) -> list[Tensor]:
    objective.zero_grad()
    losses = objective(batch, counts)
    losses["loss"].backward()
    gradients = [weight.grad for weight in objective.parameters() if weight.grad is not None]
    assert len(gradients) > 10
    return [*losses.values(), *(gradient.clone() for gradient in gradients)]


def test_a_prepared_batch_has_the_losses_and_gradients_of_the_batch_itself_bit_for_bit(case: Case) -> None:
    prepared = in_another_process(case)
    counts = case.objective.preparation()(case.batch).counts
    assert prepared.counts == counts
    assert {name: int(rows) for name, rows in case.objective.counts(case.batch).items()}.items() <= counts.items()
    before, after = (results(case.objective, batch, counts) for batch in (case.batch, prepared.tensors))
    assert len(before) == len(after)
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


class Waits(TorchDispatchMode):
    """Counts the operations for which a program waits for a device: they read a value, or make a shape of values."""

    NAMES = ("nonzero", "_local_scalar_dense", "item", "is_nonzero", "masked_select", "equal", "unique", "bincount")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        places = args[1] if name in ("index", "index_put", "index_put_", "_index_put_impl_") else ()
        by_mask = any(each is not None and each.dtype == torch.bool for each in places)
        counts_itself = name == "repeat_interleave" and not (kwargs or {}).get("output_size")
        if name in self.NAMES or by_mask or counts_itself:
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


def test_a_step_asks_a_device_for_nothing(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    # A CPU alone is asked; it has nothing to wait for.
    monkeypatch.setattr(chunks, "_is_seen_to_be_one", lambda gradient: False)
    prepared = in_another_process(case)
    counts = prepared.counts
    with Waits() as waits:
        results(case.objective, prepared.tensors, counts)
    assert waits.found == []
    # Such a step does ask where the batch does not come with what it needs.
    with Waits() as waits:
        results(case.objective, case.batch, counts)
    assert waits.found
