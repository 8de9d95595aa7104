from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, BertTokenizerFast, PreTrainedTokenizerFast

from distilrubert.common.errors import UserError
from distilrubert.modeling.architecture import StudentArchitecture
from distilrubert.modeling.student import build_student, load_student, save_student
from distilrubert.modeling.teacher import Teacher, load_teacher, new_teacher, save_teacher
from distilrubert.modeling.tokenizer_files import student_tokenizer
from distilrubert.modeling.trimming import (
    count_needed,
    count_tokens,
    ids_in,
    measure_resplit,
    plain_tokenizer,
    tokens_of,
    trim_teacher,
    trim_tokenizer,
)


def wordpiece(pieces: list[str], folder: Path) -> PreTrainedTokenizerFast:
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces]) + "\n")
    return BertTokenizerFast.from_pretrained(folder, do_lower_case=False, strip_accents=False)


def tokens(tokenizer: PreTrainedTokenizerFast, text: str) -> list[str]:
    return list(plain_tokenizer(tokenizer).encode(text, add_special_tokens=False).tokens)


def test_by_hand(tmp_path: Path) -> None:
    tokenizer = wordpiece(["а", "б", "##а", "##б", "аб", "##аб", "абаб", "ба"], tmp_path)
    counts = count_needed(tokenizer, ["аб абаб ба", "аб", "ааб"])
    assert dict(zip(tokens_of(tokenizer)[5:], counts[5:].tolist(), strict=True)) == {
        "а": 1, "б": 0, "##а": 0, "##б": 0, "аб": 2, "##аб": 1, "абаб": 1, "ба": 1,
    }  # fmt: skip
    trimmed = trim_tokenizer(tokenizer, counts, minimum_count=2)
    assert tokens_of(trimmed)[5:] == ["а", "б", "##а", "##б", "аб"]
    assert tokens(trimmed, "абаб ба аб") == ["аб", "##а", "##б", "б", "##а", "аб"]


def test_what_leads_to_an_unknown_word_is_counted(tmp_path: Path) -> None:
    """Without "аб", "абв" would find а ##бв and no longer be [UNK]."""
    tokenizer = wordpiece(["а", "аб", "##бв", "##б"], tmp_path)
    counts = count_needed(tokenizer, ["абв", "а" * 101])
    assert counts[tokenizer.convert_tokens_to_ids("аб")] == 1
    assert counts[tokenizer.unk_token_id] == 2
    assert tokens(trim_tokenizer(tokenizer, counts), "абв") == ["[UNK]"]


@settings(deadline=None)
@given(st.data())
def test_a_text_without_dropped_pieces_is_tokenised_as_before(
    tiny_teacher: Teacher, sentences: list[str], data: st.DataObject
) -> None:
    known = data.draw(st.lists(st.sampled_from(sentences), max_size=10))
    counts = count_needed(tiny_teacher.tokenizer, known)
    trimmed = trim_tokenizer(tiny_teacher.tokenizer, counts)
    words = st.text(st.sampled_from("приветднё.-☃"), min_size=1, max_size=8)
    text = " ".join(data.draw(st.lists(st.one_of(words, st.sampled_from(sentences)), max_size=6)))
    is_kept = np.isin(np.arange(len(tiny_teacher.tokenizer)), ids_in(tiny_teacher.tokenizer, trimmed))
    if is_kept[count_needed(tiny_teacher.tokenizer, [text]) > 0].all():
        assert tokens(trimmed, text) == tokens(tiny_teacher.tokenizer, text)
    for sentence in known:
        assert tokens(trimmed, sentence) == tokens(tiny_teacher.tokenizer, sentence)


def test_special_tokens_and_characters_stay(tiny_teacher: Teacher) -> None:
    nothing = np.zeros(len(tiny_teacher.tokenizer), dtype=np.int64)
    trimmed = trim_tokenizer(tiny_teacher.tokenizer, nothing)
    assert sorted(trimmed.get_vocab().values()) == list(range(len(trimmed)))
    whole = tokens_of(tiny_teacher.tokenizer)
    assert tokens_of(trimmed) == whole[:5] + [piece for piece in whole[5:] if len(piece.removeprefix("##")) == 1]
    assert trimmed.mask_token_id == tokens_of(trimmed).index("[MASK]")


def test_special_tokens_get_their_new_ids_everywhere(tmp_path: Path) -> None:
    pieces = ["редкое", "[PAD]", "слово", "[UNK]", "[CLS]", "а", "[SEP]", "[MASK]"]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces) + "\n")
    tokenizer = BertTokenizerFast.from_pretrained(tmp_path, do_lower_case=False, strip_accents=False)
    trimmed = trim_tokenizer(tokenizer, count_needed(tokenizer, ["слово"]))
    for made in (trimmed, student_tokenizer(trimmed)):
        assert made("слово [MASK]")["input_ids"] == [3, 1, 6, 5]
        assert made.convert_ids_to_tokens([3, 1, 6, 5, 0]) == ["[CLS]", "слово", "[MASK]", "[SEP]", "[PAD]"]
        assert made.all_special_ids == [made.convert_tokens_to_ids(token) for token in made.all_special_tokens]


def test_logits_over_kept_pieces_are_the_teachers(tiny_teacher: Teacher, sentences: list[str], tmp_path: Path) -> None:
    counts = count_needed(tiny_teacher.tokenizer, sentences[:5])
    trimmed = trim_tokenizer(tiny_teacher.tokenizer, counts)
    kept_V = ids_in(tiny_teacher.tokenizer, trimmed)
    assert len(kept_V) < len(tiny_teacher.tokenizer) - 20
    teacher = trim_teacher(tiny_teacher, trimmed)
    save_teacher(teacher, tmp_path / "trimmed")
    with torch.no_grad():
        expected = tiny_teacher.model(**tiny_teacher.tokenizer(sentences[:5], padding=True, return_tensors="pt"))
        for made in (teacher, load_teacher(tmp_path / "trimmed")):
            found = made.model(**made.tokenizer(sentences[:5], padding=True, return_tensors="pt"))
            torch.testing.assert_close(found.logits, expected.logits[..., kept_V], atol=1e-5, rtol=1e-5)
    assert tiny_teacher.model.config.vocab_size == len(tiny_teacher.tokenizer)
    assert teacher.model.bert.encoder.layer[0].output.dense.weight is (
        tiny_teacher.model.bert.encoder.layer[0].output.dense.weight
    )


def test_a_student_of_a_trimmed_teacher_is_a_student(
    tiny_teacher: Teacher, sentences: list[str], tmp_path: Path
) -> None:
    trimmed = trim_tokenizer(tiny_teacher.tokenizer, count_needed(tiny_teacher.tokenizer, sentences[:20]))
    student = build_student(trim_teacher(tiny_teacher, trimmed), StudentArchitecture(layers=2))
    save_student(student, tmp_path / "student")
    assert load_student(tmp_path / "student").model.config.vocab_size == len(trimmed)
    assert AutoTokenizer.from_pretrained(tmp_path / "student").get_vocab() == trimmed.get_vocab()


def test_what_changes_is_measured(tmp_path: Path) -> None:
    tokenizer = wordpiece(["а", "##а", "аа", "ааа"], tmp_path)
    trimmed = trim_tokenizer(tokenizer, count_needed(tokenizer, ["аа"]))
    found = measure_resplit(tokenizer, trimmed, ["аа а", "ааа аа", "а"])
    assert (found.tokens, found.dropped, found.texts, found.changed) == (5, 1, 3, 1)


def test_tokens_are_counted(tmp_path: Path) -> None:
    tokenizer = wordpiece(["а", "##а"], tmp_path)
    counted = count_tokens(tokenizer, ["ааа а", "б", ""])
    # Three pieces and one, and one that is not known.
    assert counted == (5, 1)
    assert count_tokens(tokenizer, []) == (0, 0)


def test_a_strange_piece_is_refused(tiny_teacher: Teacher, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"student\.vocabulary: the teacher's vocabulary has no token 'чужое'"):
        trim_teacher(tiny_teacher, wordpiece(["чужое"], tmp_path))


@pytest.mark.data
def test_real_texts_keep_their_tokens_and_logits(
    real_tokenizer: PreTrainedTokenizerFast, hard_texts: list[str], real_texts: list[str]
) -> None:
    counted, others = hard_texts + real_texts[::100], real_texts[50::100]
    trimmed = trim_tokenizer(real_tokenizer, count_needed(real_tokenizer, counted))
    assert len(trimmed) < 0.5 * len(real_tokenizer)
    assert sorted(trimmed.get_vocab().values()) == list(range(len(trimmed)))
    assert measure_resplit(real_tokenizer, trimmed, counted).changed == 0
    # A text that was not counted changes where it has a dropped piece, and nowhere else.
    rows_V = ids_in(real_tokenizer, trimmed)
    engines = [plain_tokenizer(tokenizer) for tokenizer in (real_tokenizer, trimmed)]
    changed = 0
    for whole, own in zip(*(engine.encode_batch(others, add_special_tokens=False) for engine in engines), strict=True):
        has_dropped = not np.isin(whole.ids, rows_V).all()
        assert has_dropped == (rows_V[own.ids].tolist() != whole.ids)
        changed += has_dropped
    assert 0.1 < changed / len(others) < 0.9
    teacher = new_teacher(real_tokenizer, layers=2, dim=32, heads=2, hidden_dim=64, seed=1)
    batch = [text[:200] for text in hard_texts[:20]]
    with torch.no_grad():
        expected, found = (
            made.model(**made.tokenizer(batch, padding=True, return_tensors="pt")).logits
            for made in (teacher, trim_teacher(teacher, trimmed))
        )
    torch.testing.assert_close(found, expected[..., rows_V], atol=1e-6, rtol=1e-5)


@pytest.mark.data
@pytest.mark.slow
def test_the_real_vocabulary_on_the_whole_corpus(
    real_tokenizer: PreTrainedTokenizerFast, real_texts: list[str]
) -> None:
    """The figures of docs/vocabulary.md; held out there is every fiftieth text, and counted are the others."""
    held_out = real_texts[::50]
    others = [text for number, text in enumerate(real_texts) if number % 50]
    counts, its_counts = count_needed(real_tokenizer, others), count_needed(real_tokenizer, held_out)
    for minimum_count, size, changes, its_changes in (
        (1, 57_560, (0, 0), (163, 133)),
        (5, 39_285, (38_134, 27_790), (1_101, 756)),
    ):
        trimmed = trim_tokenizer(real_tokenizer, counts + its_counts, minimum_count)
        assert len(trimmed) == size
        found = measure_resplit(real_tokenizer, trimmed, real_texts)
        assert (found.tokens, found.texts, found.dropped, found.changed) == (7_755_418, 257_888, *changes)
        beside = measure_resplit(real_tokenizer, trim_tokenizer(real_tokenizer, counts, minimum_count), held_out)
        assert (beside.tokens, beside.texts, beside.dropped, beside.changed) == (152_950, 5_158, *its_changes)
