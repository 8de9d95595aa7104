from pathlib import Path

import pytest
import torch

from distilrubert.distill import pruning
from distilrubert.distill.batches.masking_settings import MaskingSettings
from distilrubert.distill.corpus.store import Corpus
from distilrubert.distill.pruning import importance_on
from distilrubert.modeling.architecture import StudentArchitecture
from distilrubert.modeling.importance import Importance
from distilrubert.modeling.student import build_student
from tests.common.training import tiny_run as tiny

HALF_OF_THE_UNITS = StudentArchitecture(hidden_dim=16)


def measured(folder: Path, corpus: Corpus | None = None, sequences: int = 40, seed: int = 1) -> Importance:
    teacher = tiny.tiny_teacher()
    return importance_on(teacher, corpus or tiny.tiny_corpus(teacher), sequences, MaskingSettings(), seed, folder)


def test_it_is_measured_once_on_the_training_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = measured(tmp_path)
    assert first.texts == 40
    others = tiny.tiny_corpus(tiny.tiny_teacher(), held_out=3)
    monkeypatch.setattr(pruning, "measure_importance", None)
    # A run that goes on takes what it has measured; what is held out has no part in it.
    kept = measured(tmp_path, others)
    assert kept.values.keys() == first.values.keys()
    assert all(torch.equal(kept.values[place], value) for place, value in first.values.items())
    for changed in ({"sequences": 39}, {"seed": 2}):
        with pytest.raises(TypeError):
            measured(tmp_path, **changed)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_small_corpus_is_read_whole(tmp_path: Path) -> None:
    assert measured(tmp_path, sequences=5000).texts == 90


def test_an_encoder_reads_the_text_unmasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = tiny.tiny_teacher()
    encoder = pruning.Teacher(teacher.model.base_model, teacher.tokenizer, "encoder")
    corpus = tiny.tiny_corpus(teacher)
    read = []
    measure = pruning.measure_importance

    def spy(model, batches, seed):  # type: ignore[no-untyped-def]
        batches = list(batches)
        read.extend(ids[ids != 0].tolist() for batch in batches for ids in batch["input_ids"])
        return measure(model, batches, seed)

    monkeypatch.setattr(pruning, "measure_importance", spy)
    importance_on(encoder, corpus, 5000, MaskingSettings(), 1, tmp_path)
    assert sorted(read) == sorted(ids.tolist() for ids in corpus.train)


def test_what_matters_most_on_text_predicts_more_like_the_teacher(tmp_path: Path) -> None:
    """Than what matters least: the smallest importance becomes the largest."""
    teacher = tiny.tiny_teacher()
    importance = measured(tmp_path, sequences=90)
    reversed_ = Importance({place: -value for place, value in importance.values.items()})
    ids = torch.tensor(tiny.tiny_corpus(teacher).validation[0][None].astype(int))
    with torch.no_grad():
        its = teacher.model(ids).logits.log_softmax(-1)
        best, worst = (
            torch.nn.functional.kl_div(
                build_student(teacher, HALF_OF_THE_UNITS, importance=kept).model(ids).logits.log_softmax(-1),
                its,
                log_target=True,
            )
            for kept in (importance, reversed_)
        )
    assert best < 0.8 * worst
