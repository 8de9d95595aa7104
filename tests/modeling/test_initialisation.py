import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from distilrubert.modeling.architecture import StudentArchitecture, student_config
from distilrubert.modeling.families.family import Weights
from distilrubert.modeling.initialisation import averaging_matrix, initial_weights
from distilrubert.modeling.splitting import split_vocabulary
from distilrubert.modeling.student import build_student
from distilrubert.modeling.teacher import Teacher
from distilrubert.modeling.tokenizer_kinds import tokens_of
from distilrubert.modeling.trimming import count_needed
from distilrubert.modeling.wordpiece import train_wordpiece

NARROW = StudentArchitecture(layers=2, dim=16, heads=4, hidden_dim=32)


@pytest.fixture(scope="module")
def small(sentences: list[str]) -> PreTrainedTokenizerFast:
    return train_wordpiece(sentences, size=150, max_length=64).tokenizer


def test_a_piece_of_both_keeps_its_embedding(tiny_teacher: Teacher, small: PreTrainedTokenizerFast) -> None:
    student = build_student(tiny_teacher, StudentArchitecture(layers=2), tokenizer=small)
    own, its = student.model.vocab_projector, tiny_teacher.model.cls.predictions.decoder
    for piece in ("[MASK]", "[CLS]", "а", "##а", "."):
        here, there = small.convert_tokens_to_ids(piece), tiny_teacher.tokenizer.convert_tokens_to_ids(piece)
        assert torch.equal(own.weight[here], its.weight[there])
        assert own.bias[here] == its.bias[there]
    assert student.model.vocab_projector.weight is student.model.distilbert.embeddings.word_embeddings.weight


def test_other_pieces_are_counted_means(sentences: list[str]) -> None:
    """A teacher of whole words, a student of characters and one fragment."""
    teacher = train_wordpiece(["аба бба аба", "аб"], size=16).tokenizer
    student = train_wordpiece(["аба бба аба", "аб"], size=10).tokenizer
    assert "аба" in tokens_of(teacher)
    new = [piece for piece in tokens_of(student) if piece not in tokens_of(teacher)]
    counts = np.arange(1, len(teacher) + 1)
    split = split_vocabulary(teacher, student)
    matrix = averaging_matrix(teacher, student, counts).to_dense()
    torch.testing.assert_close(matrix.sum(dim=1), torch.ones(len(student)))
    for piece in new:
        row = student.convert_tokens_to_ids(piece)
        expected = torch.tensor(
            [counts[i] * int((split[i] == row).sum()) for i in range(len(teacher))], dtype=torch.float32
        )
        torch.testing.assert_close(matrix[row], expected / expected.sum())


def test_a_piece_that_spells_nothing_is_the_mean_of_what_spells_it(sentences: list[str]) -> None:
    teacher = train_wordpiece(["абв"] * 1 + ["а б в"], size=11).tokenizer  # characters alone
    student = train_wordpiece(["абв абв"], size=13).tokenizer
    assert "абв" in tokens_of(student)
    row = averaging_matrix(teacher, student).to_dense()[student.convert_tokens_to_ids("абв")]
    parts = teacher.convert_tokens_to_ids(["а", "##б", "##в"])
    expected = torch.zeros(len(teacher))
    expected[parts] = 1 / 3
    torch.testing.assert_close(row, expected)


def test_a_character_that_the_teacher_lacks_is_the_mean_of_all(tiny_teacher: Teacher, sentences: list[str]) -> None:
    """Such a row was once written out in full: 28 MB for each character at the size of a real teacher."""
    own = train_wordpiece([*sentences, "☃ ж☃ж ♥"], size=170, max_length=64).tokenizer
    matrix = averaging_matrix(tiny_teacher.tokenizer, own)
    assert matrix._nnz() < 3 * len(own)
    student = build_student(tiny_teacher, StudentArchitecture(layers=2), tokenizer=own).model.vocab_projector
    its = tiny_teacher.model.cls.predictions.decoder
    strange = own.convert_tokens_to_ids(["☃", "##☃", "♥"])
    assert (torch.sparse.sum(matrix, dim=1).to_dense() == 0).nonzero()[:, 0].tolist() == sorted(strange)
    for row in strange:
        torch.testing.assert_close(student.weight[row], its.weight.mean(dim=0))
        torch.testing.assert_close(student.bias[row], its.bias.mean())


def both_weights(teacher: Teacher, architecture: StudentArchitecture) -> tuple[Weights, Weights]:
    """The weights of a student by role, and those of one with the teacher's sizes."""
    model = teacher.model
    found = []
    for kept in (architecture, StudentArchitecture(layers=2)):
        found.append(initial_weights(model, student_config(kept, model.config), kept.resolve(model.config)))
    return found[0], found[1]


def test_a_slice_of_everything_is_the_copy(tiny_teacher: Teacher) -> None:
    """Slicing one size leaves what has nothing to do with it alone."""
    weights, whole = both_weights(tiny_teacher, StudentArchitecture(layers=2, hidden_dim=40))
    assert weights.keys() == whole.keys()
    for name, weight in weights.items():
        if "inner" in name:
            assert weight.shape[0] == 40
        elif "outer.weight" in name:
            assert weight.shape[1] == 40
        else:
            assert torch.equal(weight, whole[name]), name


def test_heads_stay_heads(tiny_teacher: Teacher) -> None:
    """Trap 13: the leading rows of all heads together mix them, and a mean of blocks is none of them.

    Each student head is a part of one teacher head of one teacher block, and its queries and keys are of the same
    dimensions, as are its values and what reads them.
    """
    weights, whole = both_weights(tiny_teacher, NARROW)

    def places(key: str, head: int, scale: float = 1.0) -> list[int]:
        own, its = weights[key][head * 4 : head * 4 + 4] / scale, whole[key][head * 8 : head * 8 + 8]
        near = torch.isclose(own[:, None], its, rtol=1e-6, atol=0)
        assert near.sum(dim=1).tolist() == [1] * 4
        return near.int().argmax(dim=1).tolist()

    for layer in range(2):
        place = f"layers.{layer}."
        kept = torch.isin(whole[f"{place}attention_output.bias"], weights[f"{place}attention_output.bias"]).nonzero()[
            :, 0
        ]
        for head in range(4):
            assert places(f"{place}query.bias", head, 2**0.5) == places(f"{place}key.bias", head)
            values = [head * 8 + place for place in places(f"{place}value.bias", head)]
            read = weights[f"{place}attention_output.weight"][:, head * 4 : head * 4 + 4]
            assert torch.equal(read, whole[f"{place}attention_output.weight"][kept][:, values])


def test_scores_stay_as_large(tiny_teacher: Teacher) -> None:
    """Half of the products, divided by √4 and not √8: with √(8/4) the expected score is the teacher's."""
    weights, whole = both_weights(tiny_teacher, NARROW)
    key = "layers.1.query.bias"
    distance = (weights[key][:, None] / 2**0.5 - whole[key]).abs().amin(dim=1)
    assert distance.max() < 1e-6


def test_a_narrow_student_over_its_own_vocabulary_works(
    tiny_teacher: Teacher, small: PreTrainedTokenizerFast, sentences: list[str]
) -> None:
    counts = count_needed(tiny_teacher.tokenizer, sentences)
    student = build_student(tiny_teacher, NARROW, tokenizer=small, token_counts=counts)
    config = student.model.config
    assert (config.dim, config.hidden_dim, config.vocab_size, config.n_heads) == (16, 32, len(small), 4)
    with torch.no_grad():
        logits = student.model(**student.tokenizer(sentences[:3], padding=True, return_tensors="pt")).logits
    assert logits.shape[-1] == len(small)
    assert logits.isfinite().all()
