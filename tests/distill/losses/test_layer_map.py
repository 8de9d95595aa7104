from typing import Any

import pytest

from distilrubert.common.errors import UserError
from distilrubert.distill.losses.layer_map import LayerPair, compared_layers, pair_layers


def teachers(*arguments: object, **options: bool) -> list[tuple[int, ...]]:
    pairs = pair_layers(*arguments, **options)
    first = 0 if options.get("embeddings_pair") else 1
    assert [pair.student for pair in pairs] == [(k,) for k in range(first, first + len(pairs))]
    return [pair.teacher for pair in pairs]


def test_block_mean_is_the_map_of_the_cards() -> None:
    assert teachers("block-mean", 6, 12) == [(1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12)]
    assert teachers("block-mean", 2, 12) == [(1, 2, 3, 4, 5, 6), (7, 8, 9, 10, 11, 12)]


@pytest.mark.parametrize(("student", "teacher"), [(5, 12), (7, 12), (3, 4), (1, 24), (12, 12), (11, 12)])
def test_blocks_hold_every_teacher_layer_once(student: int, teacher: int) -> None:
    blocks = teachers("block-mean", student, teacher)
    assert len(blocks) == student
    assert [layer for block in blocks for layer in block] == list(range(1, teacher + 1))
    lengths = {len(block) for block in blocks}
    assert max(lengths) - min(lengths) <= 1
    assert teachers("last-of-block", student, teacher) == [block[-1:] for block in blocks]


def test_last_of_block_is_the_map_of_tinybert() -> None:
    assert teachers("last-of-block", 4, 12, embeddings_pair=True) == [(0,), (3,), (6,), (9,), (12,)]


def test_lists_are_taken_as_they_are_and_empty_ones_left_out() -> None:
    pairs = pair_layers([[0, 4], [], [12]], 3, 12)
    assert pairs == [LayerPair((1,), (0, 4)), LayerPair((3,), (12,))]


@pytest.mark.parametrize(
    ("layer_map", "students", "message"),
    [
        ([[1], [2]], 3, "2 lists for 3 student layers"),
        ([[1], [5]], 2, "teacher layer 5 for student layer 2; allowed are 0 to 4"),
        ([[-1], [4]], 2, "teacher layer -1"),
        ([[2, 2], [4]], 2, "named twice"),
        ([[], []], 2, "every list is empty"),
        ("block-mean", 5, "at least as many teacher layers"),
        ("last-of-block", 5, "at least as many teacher layers"),
    ],
)
def test_what_does_not_fit_is_refused(layer_map: object, students: int, message: str) -> None:
    with pytest.raises(UserError, match=f"^distillation.layer_map: .*{message}"):
        pair_layers(layer_map, students, 4)


@pytest.mark.parametrize(
    ("layer_map", "teacher", "target"),
    [
        ("block-mean", 12, "the mean of 2 consecutive hidden states of the teacher"),
        ("block-mean", 15, "the mean of 2 or 3 consecutive hidden states of the teacher"),
        ("block-mean", 6, "the teacher's at the same depth"),
        ("last-of-block", 12, "the last of its group of consecutive hidden states of the teacher"),
        ([[1], [2], [3], [4], [5], [6]], 12, "the mean of those hidden states of the teacher that the recipe lists"),
    ],
)
def test_a_layer_map_in_words(layer_map: Any, teacher: int, target: str) -> None:
    said = compared_layers("hidden state", layer_map, 6, teacher)
    assert said.startswith(f"each hidden state of the student and {target}")


def test_all_layers_in_words() -> None:
    said = compared_layers("attention map", "all-mean", 6, 12)
    assert said == "the mean of all attention maps of the student and that of the teacher's"


def test_all_mean_is_one_pair_of_all_layers() -> None:
    assert pair_layers("all-mean", 2, 4) == [LayerPair((0, 1, 2), (0, 1, 2, 3, 4))]
