"""A distillation of seconds, for tests and the processes that they start."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distilrubert.common.measurements import Measurements
from distilrubert.distill.corpus.store import Corpus
from distilrubert.distill.distillation import distill
from distilrubert.distill.distillation_settings import DistillationSettings
from distilrubert.modeling.architecture import StudentArchitecture
from distilrubert.modeling.student import Student, build_student
from distilrubert.modeling.teacher import Teacher, new_teacher
from distilrubert.modeling.wordpiece import train_wordpiece

SEED = 7
SETTINGS = {
    "batch_tokens": 128,
    "batches_per_update": 2,
    "epochs": 2,
    "learning_rate": 0.01,
    "log_every": 3,
    "validate_every": 6,
    "checkpoint_every": 2,
    "precision": "fp32",
}
TEXTS = ["Мама мыла раму, а папа читал газету.", "Собака лает, караван идёт.", "Да.", "Что будем есть на ужин?"]


class Text(list[np.ndarray]):
    """Sequences of ids with their lengths, as in a corpus on disk."""

    @property
    def lengths(self) -> np.ndarray:
        return np.array([len(ids) for ids in self], dtype=np.int32)


def tiny_teacher() -> Teacher:
    tokenizer = train_wordpiece(TEXTS, size=66, max_length=32).tokenizer
    teacher = new_teacher(tokenizer, layers=2, dim=16, heads=2, hidden_dim=32, seed=SEED)
    teacher.model.requires_grad_(False)
    generator = torch.Generator().manual_seed(SEED)
    for parameter in teacher.model.parameters():
        # Large enough that its predictions are far from even, and that half its layers do not make them.
        parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return teacher


def tiny_corpus(teacher: Teacher, sequences: int = 90, held_out: int = 12) -> Corpus:
    """Random sequences of 3 to 20 tokens, some tokens much more frequent than others.

    The longest sequences, which share batches, hold no token that could be predicted.
    """
    generator = np.random.default_rng(SEED)
    tokenizer = teacher.tokenizer
    ordinary = np.setdiff1d(np.arange(len(tokenizer)), tokenizer.all_special_ids)
    frequencies = 0.7 ** np.arange(len(ordinary))
    frequencies /= frequencies.sum()

    def text(count: int) -> Text:
        inner = [generator.choice(ordinary, generator.integers(1, 19), p=frequencies) for _ in range(count)]
        inner = [ids if len(ids) < 15 else np.full_like(ids, tokenizer.unk_token_id) for ids in inner]
        ends = [[tokenizer.cls_token_id], [tokenizer.sep_token_id]]
        return Text(np.concatenate([ends[0], ids, ends[1]]).astype(np.int32) for ids in inner)

    train, validation = text(sequences), text(held_out)
    return Corpus(train, validation, {}, np.bincount(np.concatenate(train), minlength=len(tokenizer)))


def tiny_student(teacher: Teacher) -> Student:
    return build_student(teacher, StudentArchitecture(layers=1), SEED)


def settings(**overrides: Any) -> DistillationSettings:
    return DistillationSettings(**{**SETTINGS, **overrides})


def run(folder: Path, **overrides: Any) -> tuple[Student, Measurements]:
    """The tiny run, from the start or from where it stopped."""
    teacher = tiny_teacher()
    student = tiny_student(teacher)
    return student, distill(teacher, student, tiny_corpus(teacher), settings(**overrides), folder, SEED)


def poison(objective: Any, divisor: int = 5) -> None:
    """From now on the losses of about one batch in `divisor` are NaN, whichever process computes it."""
    forward = objective.forward

    def poisoned(self: Any, batch: Any, denominators: Any) -> Any:
        losses = forward(self, batch, denominators)
        is_bad = int(batch["input_ids"].sum()) % divisor == 0
        return {name: loss * float("nan") if is_bad else loss for name, loss in losses.items()}

    objective.forward = poisoned


def sine_of_weights(module: torch.nn.Module) -> float:
    """A score that changes with every update."""
    return sum(float(weight.detach().sin().sum()) for weight in module.parameters())


def digest(student: Student) -> str:
    state = student.model.state_dict()
    return hashlib.sha256(b"".join(state[name].numpy().tobytes() for name in sorted(state))).hexdigest()


def weights_of(student: Student) -> np.ndarray:
    return np.concatenate([value.numpy().ravel() for value in student.model.state_dict().values()])
