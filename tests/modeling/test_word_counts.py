"""Words are counted exactly, in memory or on disk."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from transformers import BertTokenizerFast, PreTrainedTokenizerFast

from distilrubert.common.errors import UserError
from distilrubert.modeling import word_counts
from distilrubert.modeling.word_counts import CASED, Normalization, SavedCounts, WordCounts, save_word_counts
from distilrubert.modeling.wordpiece import train_wordpiece

CHARACTERS = " \t\n\v\x1c\0\u00a0\u2028\u0301漢#.,—аАбё"


def counted(texts: list[str], scratch: Path) -> dict[str, int]:
    scratch.mkdir(exist_ok=True)
    save_word_counts(texts, scratch)
    listed = list(SavedCounts([scratch]))
    assert len({word for word, _ in listed}) == len(listed)
    return dict(listed)


def test_words_by_hand(tmp_path: Path) -> None:
    texts = ["да, да!", "Да  нет-нет", "漢字\tда"]
    expected = {"да": 3, ",": 1, "!": 1, "Да": 1, "нет": 2, "-": 1, "漢": 1, "字": 1}
    assert counted(texts, tmp_path) == expected


def test_letters_become_what_the_tokenizer_makes_of_them(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nмои\n", encoding="utf-8")
    made = {
        (lowercase, strip): BertTokenizerFast.from_pretrained(tmp_path, do_lower_case=lowercase, strip_accents=strip)
        for lowercase, strip in ((False, False), (True, None), (True, False), (False, True))
    }
    found = {kind: Normalization.of(tokenizer) for kind, tokenizer in made.items()}
    assert found == {
        (False, False): CASED,
        (True, None): Normalization(lowercase=True, strip_accents=True),
        (True, False): Normalization(lowercase=True),
        (False, True): Normalization(strip_accents=True),
    }
    for tokenizer in made.values():
        normalization = Normalization.of(tokenizer)
        own = train_wordpiece(["Мой, Мой мой"], size=20, normalization=normalization).tokenizer
        assert Normalization.of(own) == normalization
        assert own.tokenize("Мой") == [tokenizer.backend_tokenizer.normalizer.normalize_str("Мой")]


@pytest.mark.parametrize("kind", ["unigram", "roberta-bpe", "modernbert-bpe", "wordpiece"])
def test_tokenizers_of_all_kinds_keep_case_and_accents(
    kind: str, tokenizers_of_all_kinds: dict[str, PreTrainedTokenizerFast]
) -> None:
    assert Normalization.of(tokenizers_of_all_kinds[kind]) == CASED


@given(st.lists(st.text(st.sampled_from(CHARACTERS), max_size=60), max_size=12))
@settings(max_examples=60)
def test_whole_texts_have_the_same_words(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    normalizer = BertNormalizer(clean_text=True, handle_chinese_chars=True, strip_accents=False, lowercase=False)
    expected: Counter[str] = Counter()
    for text in texts:
        expected.update(word for word, _ in BertPreTokenizer().pre_tokenize_str(normalizer.normalize_str(text)))
    assert counted(texts, tmp_path_factory.mktemp("words")) == expected


@pytest.mark.parametrize(("bound", "value"), [("WORDS_AT_ONCE", 20), ("CHARACTERS_AT_ONCE", 100)])
def test_counts_in_parts_are_those_of_the_whole(
    tmp_path: Path, sentences: list[str], monkeypatch: pytest.MonkeyPatch, bound: str, value: int
) -> None:
    expected = counted(sentences, tmp_path / "whole")
    vocabulary = train_wordpiece(sentences, size=200).tokenizer.get_vocab()
    monkeypatch.setattr(word_counts, bound, value)
    written = []
    write = WordCounts._write
    monkeypatch.setattr(WordCounts, "_write", lambda self: (written.append(len(self._words)), write(self)))
    assert counted(sentences, tmp_path / "parts") == expected
    assert len(written) > 5
    longest = max(len(text.split()) for text in sentences)
    assert max(written) < 3 * (20 + longest)
    monkeypatch.setattr(word_counts, "FILES", 3)
    assert train_wordpiece(sentences, size=200).tokenizer.get_vocab() == vocabulary


def test_a_folder_that_cannot_be_written_is_one_line(
    tmp_path: Path, sentences: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(word_counts, "WORDS_AT_ONCE", 20)
    with pytest.raises(UserError, match=r"missing: cannot be written: No such file or directory"):
        WordCounts(tmp_path / "missing").add(sentences)
