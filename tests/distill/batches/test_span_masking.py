from pathlib import Path

import numpy as np
import pytest
from transformers import BertTokenizerFast, PreTrainedTokenizerFast

from distilrubert.common.training.padding import IGNORED
from distilrubert.distill.batches.masking_settings import MaskingSettings
from distilrubert.distill.batches.span_masking import SpanMasker
from distilrubert.distill.corpus.pairs import PairEncoder
from distilrubert.distill.corpus.store import Pair
from distilrubert.modeling.teacher import Teacher
from distilrubert.modeling.tokenizer_kinds import tokens_of
from distilrubert.modeling.trimming import count_needed
from distilrubert.modeling.wordpiece import train_wordpiece

from ...sample_tokenizers import unigram


@pytest.fixture(scope="module")
def small(sentences: list[str]) -> PreTrainedTokenizerFast:
    return train_wordpiece(sentences, size=150, max_length=64).tokenizer


@pytest.fixture(scope="module")
def pairs(tiny_teacher: Teacher, small: PreTrainedTokenizerFast, sentences: list[str]) -> list[Pair]:
    return [text[0] for text in PairEncoder(tiny_teacher.tokenizer, small, 64).encode(sentences)]


@pytest.fixture(scope="module")
def counts(small: PreTrainedTokenizerFast, sentences: list[str]) -> np.ndarray:
    return count_needed(small, sentences)


def masker(
    teacher: Teacher, student: PreTrainedTokenizerFast, counts: np.ndarray, seed: int = 5, **settings: float
) -> SpanMasker:
    return SpanMasker(MaskingSettings(**settings), teacher.tokenizer, student, counts, seed)


def test_both_models_miss_the_same_characters(
    tiny_teacher: Teacher, small: PreTrainedTokenizerFast, counts: np.ndarray, pairs: list[Pair]
) -> None:
    """Trap 5: the teacher read the clean text and had nothing to teach but copying."""
    only_masks = masker(tiny_teacher, small, counts, replace=1.0, keep=0.0)
    hidden = 0
    for index, pair in enumerate(pairs):
        masked = only_masks.mask_batch([pair], 0, [index])
        spans = [
            {span for span in set(side.spans_L.tolist()) if (side.ids_L[side.spans_L == span] == mask_id).all()}
            for side, mask_id in (
                (masked.teacher, tiny_teacher.tokenizer.mask_token_id), (masked.student, small.mask_token_id),
            )
        ]  # fmt: skip
        both = set(pair.teacher.spans_L.tolist()) & set(pair.student.spans_L.tolist())
        assert spans[0] & both == spans[1] & both
        # A span is hidden whole or not at all.
        for side, mask_id in ((masked.teacher, tiny_teacher.tokenizer.mask_token_id), (masked.student, 4)):
            is_mask = side.ids_L == mask_id
            assert not is_mask[~np.isin(side.spans_L, list(spans[0] | spans[1]))].any()
        labelled = masked.labels_N != IGNORED
        np.testing.assert_array_equal(labelled, masked.student.ids_L == small.mask_token_id)
        np.testing.assert_array_equal(masked.labels_N[labelled], pair.student.ids_L[labelled])
        hidden += len(spans[0])
    assert hidden > 30


def test_it_is_a_function_of_seed_epoch_and_index(
    tiny_teacher: Teacher, small: PreTrainedTokenizerFast, counts: np.ndarray, pairs: list[Pair]
) -> None:
    one = masker(tiny_teacher, small, counts)
    batch = one.mask_batch(pairs[:6], 3, range(6))
    starts = np.cumsum([0, *(len(pair.student.ids_L) for pair in pairs[:6])])
    for index in (4, 0, 2):
        alone = one.mask_batch([pairs[index]], 3, [index])
        cut = slice(starts[index], starts[index + 1])
        np.testing.assert_array_equal(alone.student.ids_L, batch.student.ids_L[cut])
        np.testing.assert_array_equal(alone.labels_N, batch.labels_N[cut])
    again = masker(tiny_teacher, small, counts).mask_batch(pairs[:6], 3, range(6))
    np.testing.assert_array_equal(again.teacher.ids_L, batch.teacher.ids_L)
    for other in (
        one.mask_batch(pairs[:6], 4, range(6)),
        masker(tiny_teacher, small, counts, 6).mask_batch(pairs[:6], 3, range(6)),
    ):
        assert (other.labels_N != batch.labels_N).any()


def test_the_share_is_right_and_rare_pieces_come_first(
    tiny_teacher: Teacher, small: PreTrainedTokenizerFast, counts: np.ndarray, pairs: list[Pair]
) -> None:
    """Trap 2: with the sign lost, the most frequent pieces were hidden most."""
    one = masker(tiny_teacher, small, counts, probability=0.2, smoothing=0.7)
    labels, ids = [], []
    for epoch in range(60):
        masked = one.mask_batch(pairs, epoch, range(len(pairs)))
        labels.append(masked.labels_N)
        ids.append(np.concatenate([pair.student.ids_L for pair in pairs]))
    labels_N, ids_N = np.concatenate(labels), np.concatenate(ids)
    is_target = labels_N != IGNORED
    assert is_target.mean() == pytest.approx(0.2, rel=0.03)
    assert not np.isin(ids_N[is_target], small.all_special_ids).any()
    frequent = counts[ids_N] > np.median(counts[ids_N])
    ordinary = ~np.isin(ids_N, small.all_special_ids)
    assert is_target[ordinary & ~frequent].mean() > 1.5 * is_target[ordinary & frequent].mean()


def test_kept_and_random_spans_are_so_on_both_sides(
    tiny_teacher: Teacher, small: PreTrainedTokenizerFast, counts: np.ndarray, pairs: list[Pair]
) -> None:
    kept = masker(tiny_teacher, small, counts, replace=0.0, keep=1.0).mask_batch(pairs, 0, range(len(pairs)))
    for side, name in ((kept.teacher, "teacher"), (kept.student, "student")):
        np.testing.assert_array_equal(side.ids_L, np.concatenate([getattr(pair, name).ids_L for pair in pairs]))
    assert (kept.labels_N != IGNORED).sum() > 50
    drawn = masker(tiny_teacher, small, counts, replace=0.0, keep=0.0).mask_batch(pairs, 0, range(len(pairs)))
    before = np.concatenate([pair.teacher.ids_L for pair in pairs])
    changed = drawn.teacher.ids_L[drawn.teacher.ids_L != before]
    assert len(changed) > 30
    assert not np.isin(changed, tiny_teacher.tokenizer.all_special_ids).any()


def tokenizer_of(folder: Path, tokens: list[str]) -> PreTrainedTokenizerFast:
    (folder / "vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *tokens]), encoding="utf-8"
    )
    return BertTokenizerFast.from_pretrained(folder, do_lower_case=False, strip_accents=False, model_max_length=64)


def test_what_the_teacher_does_not_know_is_never_masked(tmp_path: Path) -> None:
    """Fault: a word that is [UNK] for the teacher alone was drawn, and the teacher's guess at [UNK] was taught."""
    letters = [*"привета", *(f"##{letter}" for letter in "привета")]
    teacher, student = tokenizer_of(tmp_path, ["привет"]), tokenizer_of(tmp_path, letters)
    pairs = [text[0] for text in PairEncoder(teacher, student, 64).encode(["привет вера привет"] * 40)]
    one = SpanMasker(MaskingSettings(probability=0.5), teacher, student, np.ones(len(student), dtype=np.int64), 1)
    labels_N = one.mask_batch(pairs, 0, range(len(pairs))).labels_N
    assert (labels_N != IGNORED).mean() == pytest.approx(0.5, abs=0.05)
    for pair, labels_L in zip(pairs, labels_N.reshape(len(pairs), -1), strict=True):
        unknown = pair.teacher.spans_L[pair.teacher.ids_L == teacher.unk_token_id]
        assert len(unknown) == 1
        assert (labels_L[np.isin(pair.student.spans_L, unknown)] == IGNORED).all()


def test_spans_whose_first_token_is_longer_in_the_student(tmp_path: Path) -> None:
    """Fault: for the student's "приветик" the teacher's "привет" was the target, folded on its shorter token."""
    teacher = tokenizer_of(tmp_path, ["привет", "##ик", "ма", "##шина", "дом"])
    student = tokenizer_of(tmp_path, ["приветик", "маш", "##и", "##на", "до", "##м"])
    texts = ["приветик машина дом щука"]
    pairs = [text[0] for text in PairEncoder(teacher, student, 64).encode(texts)]
    one = SpanMasker(MaskingSettings(), teacher, student, np.ones(len(student), dtype=np.int64), 1)
    inside = one.collate(pairs, 0, [0])["begins_inside"]
    # [CLS], "приветик" for "привет ##ик", "маш ##и ##на" for "ма ##шина", "до ##м" for "дом", [UNK], [SEP]
    assert inside.tolist() == [[True, False, False, True, False, True]]
    assert one.share_beginning_outside(pairs) == pytest.approx(3 / 6)


def test_what_follows_a_mark_without_a_space_is_not_compared(sentences: list[str]) -> None:
    """Fault: "то" of XLM-R in "кто-то" was folded on "##то", and its marks on nothing."""
    teacher, student = unigram([*sentences, "кто-то"] * 2), train_wordpiece([*sentences, "кто-то"], 300).tokenizer
    (pair,) = PairEncoder(teacher, student, 64).encode(["Кто-то, да."])[0]
    one = SpanMasker(MaskingSettings(), teacher, student, np.ones(len(student), dtype=np.int64), 1)
    batch = one.collate([pair], 0, [0])
    text_of = dict(enumerate(tokens_of(student)))
    spans = {
        span: "".join(text_of[int(token)] for token in pair.student.ids_L[pair.student.spans_L == span])
        for span in range(int(pair.student.spans_L[-1]) + 1)
    }
    inside = {text.replace("##", ""): bool(batch["begins_inside"][0, span]) for span, text in spans.items()}
    assert {mark: inside[mark] for mark in "-,."} == dict.fromkeys("-,.", True)
    assert (inside["то"], inside["да"]) == (False, True)


def test_a_batch(tiny_teacher: Teacher, small: PreTrainedTokenizerFast, counts: np.ndarray, pairs: list[Pair]) -> None:
    batch = masker(tiny_teacher, small, counts).collate(pairs[:5], 0, range(5))
    assert batch["input_ids"].shape == batch["labels"].shape == batch["spans"].shape
    assert batch["teacher_input_ids"].shape == batch["teacher_spans"].shape
    own, its = small.get_vocab(), tiny_teacher.tokenizer.get_vocab()
    by_id, by_its = {i: piece for piece, i in own.items()}, {i: piece for piece, i in its.items()}
    found = 0
    for row, pair in enumerate(pairs[:5]):
        number = int(pair.student.spans_L[-1]) + 1
        for span in range(number):
            student = [by_id[int(i)] for i in pair.student.ids_L[pair.student.spans_L == span]]
            teacher = [by_its[int(i)] for i in pair.teacher.ids_L[pair.teacher.spans_L == span]]
            assert batch["matched"][row, span] == (len(student) == 1 and student == teacher)
            found += len(student) != len(teacher)
        assert not batch["matched"][row, number:].any()
    assert found > 5
