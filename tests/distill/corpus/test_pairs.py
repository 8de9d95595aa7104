import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import BertTokenizerFast, PreTrainedTokenizerFast

from distilrubert.common.errors import UserError
from distilrubert.distill.corpus.build import build_corpus
from distilrubert.distill.corpus.corpus_settings import CorpusSettings
from distilrubert.distill.corpus.pairs import PairEncoder
from distilrubert.distill.corpus.store import Pair, load_corpus
from distilrubert.distill.corpus.tokenisation import SequenceEncoder
from distilrubert.modeling.teacher import Teacher
from distilrubert.modeling.tokenizer_kinds import plain_tokenizer
from distilrubert.modeling.wordpiece import train_wordpiece


@pytest.fixture(scope="module")
def small(sentences: list[str]) -> PreTrainedTokenizerFast:
    return train_wordpiece(sentences, size=150, max_length=64).tokenizer


def spelt(tokenizer: PreTrainedTokenizerFast, ids: np.ndarray) -> str:
    pieces = tokenizer.convert_ids_to_tokens(ids.tolist())
    return "".join(piece.removeprefix("##") for piece in pieces[1:-1])


def check(pair: Pair, limit: int) -> None:
    for side in (pair.teacher, pair.student):
        assert len(side.ids_L) == len(side.spans_L) <= limit
        assert (np.diff(side.spans_L) >= 0).all()
        assert side.spans_L[0] == 0
        assert (side.spans_L == 0).sum() == 1
        assert (side.spans_L == side.spans_L[-1]).sum() == 1
    assert pair.teacher.spans_L[-1] == pair.student.spans_L[-1]
    inside = set(pair.teacher.spans_L.tolist()) | set(pair.student.spans_L.tolist())
    assert inside == set(range(int(pair.teacher.spans_L[-1]) + 1))


def test_short_texts_are_tokenised_as_alone(
    tiny_teacher: Teacher, small: PreTrainedTokenizerFast, sentences: list[str]
) -> None:
    texts = [*(text for text in sentences if len(text) < 50), "", "[MASK] в тексте", "☃ и ёж"]
    pairs = PairEncoder(tiny_teacher.tokenizer, small, 64).encode(texts)
    alone = [SequenceEncoder(tokenizer, 64).encode(texts) for tokenizer in (tiny_teacher.tokenizer, small)]
    for own, its, ours in zip(pairs, *alone, strict=True):
        for pair, teacher_ids, student_ids in zip(own, its, ours, strict=True):
            check(pair, 64)
            np.testing.assert_array_equal(pair.teacher.ids_L, teacher_ids)
            np.testing.assert_array_equal(pair.student.ids_L, student_ids)
    assert all(len(text) == 1 for text in pairs)


@given(st.data(), st.sampled_from([8, 16, 24]))
def test_both_sides_are_cut_at_the_same_character(
    tiny_teacher: Teacher, small: PreTrainedTokenizerFast, sentences: list[str], data: st.DataObject, limit: int
) -> None:
    """Trap 8: cut each by its own, the sides drifted apart and tails were lost."""
    text = " ".join(data.draw(st.lists(st.sampled_from(sentences), min_size=1, max_size=5)))
    [pairs] = PairEncoder(tiny_teacher.tokenizer, small, limit).encode([text])
    for pair in pairs:
        check(pair, limit)
        assert spelt(tiny_teacher.tokenizer, pair.teacher.ids_L) == spelt(small, pair.student.ids_L)
    together = "".join(spelt(small, pair.student.ids_L) for pair in pairs)
    assert together == text.replace(" ", "")


def test_words_stay_whole_where_they_can(tiny_teacher: Teacher, small: PreTrainedTokenizerFast) -> None:
    text = "караван электрификация " * 6
    [pairs] = PairEncoder(tiny_teacher.tokenizer, small, 24).encode([text])
    assert len(pairs) > 2
    for pair in pairs:
        assert not small.convert_ids_to_tokens(int(pair.student.ids_L[1])).startswith("##")


def test_a_span_longer_than_a_sequence_is_left_out(small: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    """The teacher knows no "ы" and takes the word whole; the student spells it in more tokens than there is room."""
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "кот", "дом"]))
    teacher = BertTokenizerFast.from_pretrained(tmp_path, do_lower_case=False, model_max_length=64)
    [pairs] = PairEncoder(teacher, small, 8).encode(["кот " + "ыы" * 20 + " дом"])
    assert [spelt(small, pair.student.ids_L) for pair in pairs] == ["кот", "дом"]
    [pairs] = PairEncoder(teacher, small, 8).encode(["ы" * 40])
    assert pairs == []


def test_a_sequence_must_fit_both_tokenizers(tiny_teacher: Teacher, small: PreTrainedTokenizerFast) -> None:
    with pytest.raises(UserError, match=r"corpus\.max_length: 72 is more than the tokenizer's 64"):
        PairEncoder(tiny_teacher.tokenizer, small, 72)


def test_a_corpus_of_pairs(
    tiny_teacher: Teacher, small: PreTrainedTokenizerFast, sentences: list[str], tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_text("\n".join(sentences))
    settings = CorpusSettings.model_validate(
        {"sources": [{"path": str(tmp_path / "text.txt")}], "validation": 0.1, "max_length": 24, "processes": 1}
    )
    built = build_corpus(settings, tiny_teacher.tokenizer, tmp_path / "corpus", 3, student_tokenizer=small)
    loaded = load_corpus(tmp_path / "corpus")
    assert built.pairs is not None
    assert loaded.pairs is not None
    assert loaded.manifest["student_tokenizer"]["vocabulary_size"] == len(small)
    for text, pairs in ((loaded.train, loaded.pairs.train), (loaded.validation, loaded.pairs.validation)):
        assert len(text) == len(pairs) > 0
        for ids, pair in zip(text, pairs, strict=True):
            check(pair, 24)
            np.testing.assert_array_equal(ids, pair.teacher.ids_L)
        np.testing.assert_array_equal(
            pairs.lengths, [max(len(pair.teacher.ids_L), len(pair.student.ids_L)) for pair in pairs]
        )
    ids = np.concatenate([pair.student.ids_L for pair in loaded.pairs.train])
    np.testing.assert_array_equal(loaded.pairs.token_counts, np.bincount(ids, minlength=len(small)))
    assert len(loaded.token_counts) == len(tiny_teacher.tokenizer)
    plain = build_corpus(settings, tiny_teacher.tokenizer, tmp_path / "plain", 3)
    assert plain.pairs is None


@pytest.mark.data
@pytest.mark.parametrize("limit", [16, 64])
def test_real_texts_are_cut_at_the_same_characters(
    real_tokenizer: PreTrainedTokenizerFast, hard_texts: list[str], limit: int
) -> None:
    own = train_wordpiece(hard_texts, size=4_000).tokenizer
    examples = PairEncoder(real_tokenizer, own, limit).encode(hard_texts)
    whole = [
        plain_tokenizer(tokenizer).encode_batch(hard_texts, add_special_tokens=False)
        for tokenizer in (real_tokenizer, own)
    ]
    cuts = 0
    for text, pairs, *sides in zip(hard_texts, examples, *whole, strict=True):
        edges = []
        for name, encoding in zip(("teacher", "student"), sides, strict=True):
            parts = [getattr(pair, name).ids_L[1:-1] for pair in pairs]
            assert np.concatenate(parts).tolist() == encoding.ids
            behind = np.cumsum([len(part) for part in parts])[:-1]
            edges.append([(encoding.offsets[place - 1][1], encoding.offsets[place][0]) for place in behind])
        for pair in pairs:
            check(pair, limit)
        for (end, start), (its_end, its_start) in zip(*edges, strict=True):
            # Between the parts stands at most what neither side has a token for.
            between = text[min(end, its_end) : max(start, its_start)]
            assert all(unicodedata.category(character)[0] in "ZC" for character in between)
        cuts += len(pairs) - 1
    assert cuts > 300
