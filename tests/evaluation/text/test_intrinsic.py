import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from distilrubert.evaluation.evaluation_settings import IntrinsicSettings
from distilrubert.evaluation.text import intrinsic
from distilrubert.evaluation.text.intrinsic import measure_intrinsic, random_masks, single_masks
from distilrubert.modeling.architecture import StudentArchitecture
from distilrubert.modeling.heads import mlm_head_of
from distilrubert.modeling.student import Student, build_student
from distilrubert.modeling.teacher import Teacher

SETTINGS = IntrinsicSettings(sequences=50, sentences=10, batch_size=8)


@pytest.fixture(scope="module")
def sequences(tiny_teacher: Teacher, sentences: list[str]) -> list[np.ndarray]:
    return [np.array(ids, dtype=np.int32) for ids in tiny_teacher.tokenizer(sentences)["input_ids"]]


@pytest.fixture(scope="module")
def tiny_student(tiny_teacher: Teacher) -> Student:
    return build_student(tiny_teacher, StudentArchitecture(layers=2))


def with_constant_logits(student: Student, bias: torch.Tensor) -> PreTrainedModel:
    """A copy whose prediction is the same everywhere: the softmax of `bias`."""
    model = type(student.model)(student.model.config).eval()
    head = mlm_head_of(model)
    with torch.no_grad():
        head.weight_VD.zero_()
        head.bias_V.copy_(bias)
    return model


def test_rows_that_no_piece_uses_are_no_predictions(tiny_teacher: Teacher, sequences: list[np.ndarray]) -> None:
    padded = copy.deepcopy(tiny_teacher.model)
    padded.resize_token_embeddings(len(tiny_teacher.tokenizer) + 36, mean_resizing=False)
    with torch.no_grad():
        mlm_head_of(padded).bias_V[len(tiny_teacher.tokenizer) :] = 10
    plain, measured = (
        measure_intrinsic(model, tiny_teacher.tokenizer, sequences, SETTINGS, tiny_teacher.model)
        for model in (tiny_teacher.model, padded)
    )
    assert measured.pop("hidden_cosine") == pytest.approx(plain.pop("hidden_cosine"))
    of_measured, of_plain = measured.pop("by_fold"), plain.pop("by_fold")
    assert of_measured.keys() == of_plain.keys()
    assert all(of_measured[name] == pytest.approx(of_plain[name], abs=1e-6) for name in of_plain)
    assert measured == pytest.approx(plain)
    assert measured["kl_to_teacher_nats"] == pytest.approx(0, abs=1e-6)


def test_masks_depend_on_nothing_but_seed_and_index(tiny_teacher: Teacher, sequences: list[np.ndarray]) -> None:
    special = set(tiny_teacher.tokenizer.all_special_ids)
    everything, few = np.arange(len(sequences)), np.array([7, 3])
    all_masks = list(random_masks(sequences, everything, special, SETTINGS))
    few_masks = list(random_masks(sequences, few, special, SETTINGS))
    assert few_masks[0].positions_N.tolist() == all_masks[7].positions_N.tolist()
    assert few_masks[1].positions_N.tolist() == all_masks[3].positions_N.tolist()
    other = IntrinsicSettings(seed=1)
    changed = list(random_masks(sequences, everything, special, other))
    assert any(a.positions_N.tolist() != b.positions_N.tolist() for a, b in zip(all_masks, changed, strict=True))


def test_a_share_of_the_ordinary_pieces_is_masked(tiny_teacher: Teacher, sequences: list[np.ndarray]) -> None:
    special = set(tiny_teacher.tokenizer.all_special_ids)
    for masked in random_masks(sequences, np.arange(len(sequences)), special, SETTINGS):
        ordinary = [position for position, piece in enumerate(masked.ids_L) if piece not in special]
        assert len(masked.positions_N) == max(1, round(0.15 * len(ordinary)))
        assert set(masked.positions_N.tolist()) <= set(ordinary)
        assert len(set(masked.positions_N.tolist())) == len(masked.positions_N)


def test_each_piece_is_masked_in_turn(tiny_teacher: Teacher, sequences: list[np.ndarray]) -> None:
    special = set(tiny_teacher.tokenizer.all_special_ids)
    masked = list(single_masks(sequences, np.array([5, 2]), special))
    expected = [p for i in (5, 2) for p, piece in enumerate(sequences[i]) if piece not in special]
    assert [mask.positions_N.item() for mask in masked] == expected


def test_figures_of_a_constant_prediction_by_hand(
    tiny_teacher: Teacher, tiny_student: Student, sequences: list[np.ndarray]
) -> None:
    vocabulary = len(tiny_teacher.tokenizer)
    generator = torch.Generator().manual_seed(0)
    bias, teacher_bias = (torch.randn(vocabulary, generator=generator) for _ in range(2))
    model, teacher = with_constant_logits(tiny_student, bias), with_constant_logits(tiny_student, teacher_bias)
    figures = measure_intrinsic(model, tiny_teacher.tokenizer, sequences, SETTINGS, teacher)

    log_p, log_q = bias.double().log_softmax(0).numpy(), teacher_bias.double().log_softmax(0).numpy()
    special = set(tiny_teacher.tokenizer.all_special_ids)
    order = np.random.default_rng(SETTINGS.seed).permutation(len(sequences))
    hidden = np.concatenate([m.ids_L[m.positions_N] for m in random_masks(sequences, order[:50], special, SETTINGS)])
    assert figures["masked_tokens"] == len(hidden)
    assert figures["masked_cross_entropy_nats"] == pytest.approx(-log_p[hidden].mean(), rel=1e-5)
    assert figures["masked_accuracy"] == pytest.approx((hidden == bias.argmax().item()).mean())
    assert figures["kl_to_teacher_nats"] == pytest.approx((np.exp(log_q) * (log_q - log_p)).sum(), rel=1e-4)
    assert figures["teacher_agreement"] == float(bias.argmax() == teacher_bias.argmax())
    each = np.concatenate([piece for index in order[:10] for piece in [sequences[index][1:-1]]])
    assert figures["pseudo_perplexity"] == pytest.approx(math.exp(-log_p[each].mean()), rel=1e-4)


@pytest.mark.parametrize("which", ["teacher", "student"])
def test_figures_equal_those_of_the_whole_model_one_sequence_at_a_time(
    which: str, tiny_teacher: Teacher, tiny_student: Student, sequences: list[np.ndarray]
) -> None:
    model = tiny_teacher.model if which == "teacher" else tiny_student.model
    tokenizer = tiny_teacher.tokenizer
    figures = measure_intrinsic(model, tokenizer, sequences, SETTINGS)
    losses, hits = [], []
    order = np.random.default_rng(SETTINGS.seed).permutation(len(sequences))[:50]
    for masked in random_masks(sequences, order, set(tokenizer.all_special_ids), SETTINGS):
        ids = torch.tensor(masked.ids_L, dtype=torch.long)
        labels = ids[masked.positions_N]
        ids[masked.positions_N] = tokenizer.mask_token_id
        with torch.no_grad():
            logits = model(input_ids=ids[None]).logits[0, masked.positions_N]
        losses += torch.nn.functional.cross_entropy(logits, labels, reduction="none").tolist()
        hits += (logits.argmax(-1) == labels).tolist()
    assert figures["masked_cross_entropy_nats"] == pytest.approx(np.mean(losses), rel=1e-4)
    assert figures["masked_accuracy"] == pytest.approx(np.mean(hits))


def test_a_teacher_agrees_with_itself(tiny_teacher: Teacher, sequences: list[np.ndarray]) -> None:
    figures = measure_intrinsic(tiny_teacher.model, tiny_teacher.tokenizer, sequences, SETTINGS, tiny_teacher.model)
    assert figures["kl_to_teacher_nats"] == pytest.approx(0, abs=1e-6)
    assert figures["teacher_agreement"] == 1
    assert figures["hidden_cosine"] == pytest.approx([1] * 4, abs=1e-5)


def test_layers_are_compared_with_the_mean_of_their_block(
    tiny_teacher: Teacher, tiny_student: Student, sequences: list[np.ndarray]
) -> None:
    one = [sequences[4]]
    figures = measure_intrinsic(tiny_student.model, tiny_teacher.tokenizer, one, SETTINGS, tiny_teacher.model)
    (masked,) = random_masks(one, np.array([0]), set(tiny_teacher.tokenizer.all_special_ids), SETTINGS)
    ids = torch.tensor(masked.ids_L, dtype=torch.long)[None]
    ids[0, masked.positions_N] = tiny_teacher.tokenizer.mask_token_id
    with torch.no_grad():
        theirs = tiny_teacher.model(input_ids=ids, output_hidden_states=True).hidden_states
        ours = tiny_student.model(input_ids=ids, output_hidden_states=True).hidden_states
    expected = [
        torch.cosine_similarity(ours[layer], (theirs[2 * layer - 1] + theirs[2 * layer]) / 2, dim=-1).mean().item()
        for layer in (1, 2)
    ]
    assert figures["hidden_cosine"] == pytest.approx(expected, abs=1e-5)


def test_layers_that_do_not_divide_are_left_out(tiny_teacher: Teacher, sequences: list[np.ndarray]) -> None:
    student = build_student(tiny_teacher, StudentArchitecture(layers=3))
    figures = measure_intrinsic(student.model, tiny_teacher.tokenizer, sequences, SETTINGS, tiny_teacher.model)
    assert "hidden_cosine" not in figures
    assert figures["kl_to_teacher_nats"] > 0


@pytest.mark.parametrize(("batch_size", "rows"), [(1, 256), (SETTINGS.batch_size, 3)])
def test_batches_and_their_parts_change_nothing(
    tiny_teacher: Teacher, tiny_student: Student, sequences: list[np.ndarray], batch_size: int, rows: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    models = (tiny_student.model, tiny_teacher.tokenizer, sequences)
    whole = measure_intrinsic(*models, SETTINGS, tiny_teacher.model)
    monkeypatch.setattr(intrinsic, "ROWS_AT_ONCE", rows)
    alone = measure_intrinsic(*models, SETTINGS.model_copy(update={"batch_size": batch_size}), tiny_teacher.model)
    for expected, found in ((whole.pop("by_fold"), alone.pop("by_fold")), (whole, alone)):
        assert expected.keys() == found.keys()
        for name, values in expected.items():
            assert values == pytest.approx(found[name], rel=1e-4), name


def test_folds_are_parts_of_the_whole(
    tiny_teacher: Teacher, tiny_student: Student, sequences: list[np.ndarray]
) -> None:
    def measure(chosen: list[np.ndarray], count: int) -> dict[str, Any]:
        settings = IntrinsicSettings(sequences=count, sentences=3, batch_size=8)
        return measure_intrinsic(tiny_student.model, tiny_teacher.tokenizer, chosen, settings, tiny_teacher.model)

    figures = measure(sequences, 50)
    measures = {"masked_accuracy", "masked_cross_entropy_nats", "kl_to_teacher_nats", "teacher_agreement"}
    assert figures["by_fold"].keys() == measures | {"pseudo_perplexity", "hidden_cosine"}
    # Of fifty sequences, twenty folds have two or three each; of three sentences, three folds have one each.
    assert {name: len(values) for name, values in figures["by_fold"].items() if name in measures} == dict.fromkeys(
        measures, 20
    )
    assert len(figures["by_fold"]["pseudo_perplexity"]) == 3
    assert np.mean(figures["by_fold"]["hidden_cosine"]) == pytest.approx(np.mean(figures["hidden_cosine"]), abs=0.01)
    special = set(tiny_teacher.tokenizer.all_special_ids)
    order = np.random.default_rng(SETTINGS.seed).permutation(len(sequences))[:50]
    pieces = np.zeros(20)
    for masked in random_masks(sequences, order, special, SETTINGS):
        pieces[masked.fold] += len(masked.positions_N)
    for name in measures:
        assert np.average(figures["by_fold"][name], weights=pieces) == pytest.approx(figures[name], rel=1e-6)


def test_nothing_to_hide_gives_no_figures(tiny_teacher: Teacher) -> None:
    tokenizer = tiny_teacher.tokenizer
    empty = [np.array([tokenizer.cls_token_id, tokenizer.sep_token_id])]
    assert measure_intrinsic(tiny_teacher.model, tokenizer, empty, SETTINGS) == {}
