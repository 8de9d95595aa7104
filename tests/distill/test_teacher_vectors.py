import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from distilrubert.common.training.trainer import train
from distilrubert.common.training.training_run import TrainingRun
from distilrubert.distill import distillation, teacher_vectors
from distilrubert.distill.distillation_settings import DistillationSettings
from distilrubert.distill.losses.sentence_vectors import pool
from distilrubert.distill.teacher_vectors import WithVectors, vectors_of
from tests.common.training import tiny_run as tiny

WEIGHTS = {"sentence_cosine": 1.0, "similarity": 5.0}


def weights_after(folder: Path, **changes: Any) -> np.ndarray:
    student, _ = tiny.run(folder, weights=WEIGHTS, **changes)
    return tiny.weights_of(student)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_they_are_the_vectors_of_each_sequence_alone(
    pooling: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teacher_vectors, "SEQUENCES_AT_ONCE", 40)
    teacher = tiny.tiny_teacher()
    sequences = tiny.tiny_corpus(teacher).train
    paths = vectors_of(teacher, sequences, pooling, tmp_path)
    assert len(paths) > 2
    kept = WithVectors(sequences, paths)
    assert len(kept) == len(sequences)
    for copy in (kept, pickle.loads(pickle.dumps(kept))):
        for index in (0, 41, len(sequences) - 1):
            ids, vector = copy[index]
            states = teacher.model.base_model(torch.tensor(ids[None].astype(int))).last_hidden_state
            expected = pool(states, torch.ones(1, len(ids), dtype=torch.bool), pooling)[0]
            np.testing.assert_allclose(vector, expected.numpy(), atol=1e-5)
            assert isinstance(vector, np.memmap)


def test_they_are_computed_once_for_what_they_depend_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = tiny.tiny_teacher()
    sequences = tiny.tiny_corpus(teacher).train
    paths = vectors_of(teacher, sequences, "mean", tmp_path)
    others = [
        *vectors_of(teacher, sequences, "cls", tmp_path),
        *vectors_of(teacher, tiny.Text(sequences[1:]), "mean", tmp_path),
    ]
    assert len({*paths, *others}) == 3
    monkeypatch.setattr(teacher_vectors, "_compute", pytest.fail)
    assert vectors_of(tiny.tiny_teacher(), sequences, "mean", tmp_path) == paths


def test_a_student_learns_the_same_from_kept_vectors(tmp_path: Path) -> None:
    computed = weights_after(tmp_path / "computed")
    kept = weights_after(tmp_path / "kept", cache_teacher_vectors=True)
    np.testing.assert_allclose(kept, computed, atol=1e-5)
    assert np.abs(computed - tiny.weights_of(tiny.tiny_student(tiny.tiny_teacher()))).max() > 0.01


def test_a_run_that_is_resumed_is_the_same_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    straight = weights_after(tmp_path / "straight", cache_teacher_vectors=True)
    stopped = tmp_path / "stopped"

    def stop_early(run: TrainingRun) -> Any:
        examples = run.examples

        class Ending:
            lengths = examples.lengths
            left = 60

            def __len__(self) -> int:
                return len(examples)

            def __getitem__(self, index: int) -> Any:
                self.left -= 1
                if not self.left:
                    raise KeyboardInterrupt
                return examples[index]

        return train(run.__class__(**{**run.__dict__, "examples": Ending()}))

    monkeypatch.setattr(distillation, "train", stop_early)
    with pytest.raises(KeyboardInterrupt):
        weights_after(stopped, cache_teacher_vectors=True)
    assert any((stopped / "checkpoints").iterdir())
    monkeypatch.undo()
    np.testing.assert_array_equal(weights_after(stopped, cache_teacher_vectors=True), straight)


def test_other_losses_need_the_teacher_itself() -> None:
    with pytest.raises(ValidationError, match="cache_teacher_vectors: cosine need more than vectors of sentences"):
        DistillationSettings(weights={"cosine": 1.0, **WEIGHTS}, cache_teacher_vectors=True)
