import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from distilrubert.common.errors import UserError
from distilrubert.modeling.wordpiece import SPECIAL_TOKENS, train_wordpiece

# Many words of few letters: pair counts tie everywhere.
TIES = """
import random
generator = random.Random(0)
words = ["".join(generator.choices("абвгдежзий", k=generator.randint(2, 9))) for _ in range(2000)]
texts = [" ".join(generator.choices(words, k=20)) for _ in range(300)]
"""


def tokens_of(tokenizer: PreTrainedTokenizerFast) -> list[str]:
    vocabulary = tokenizer.get_vocab()
    assert sorted(vocabulary.values()) == list(range(len(vocabulary)))
    return sorted(vocabulary, key=vocabulary.__getitem__)


def test_merges_by_hand() -> None:
    # ab: 3 + 2, ##bc: 2, ##bd: 1; so ab first, then abc; abd is met once only. No word has an a further on.
    tokenizer = train_wordpiece(["ab ab ab abc abc abd"], size=100).tokenizer
    assert tokens_of(tokenizer) == [*SPECIAL_TOKENS, "a", "b", "c", "d", "##b", "##c", "##d", "ab", "abc"]
    assert tokenizer.tokenize("abc abd dbc") == ["abc", "ab", "##d", "d", "##b", "##c"]


def test_specials_come_first() -> None:
    tokenizer = train_wordpiece(["да нет"], size=30).tokenizer
    assert [tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.cls_token_id] == [0, 1, 2]
    assert [tokenizer.sep_token_id, tokenizer.mask_token_id, tokenizer.model_max_length] == [3, 4, 512]
    assert tokenizer("да")["input_ids"][0] == 2
    assert tokenizer("да")["input_ids"][-1] == 3
    assert tokenizer.tokenize("[MASK] да")[0] == "[MASK]"


def test_case_and_accents_stay(sentences: list[str]) -> None:
    tokenizer = train_wordpiece(sentences, size=300).tokenizer
    for text in ["Ёжик", "ёжик", "йод", "Подъезд"]:
        assert "".join(piece.removeprefix("##") for piece in tokenizer.tokenize(text)) == text
    assert tokenizer.tokenize("ёлка") != tokenizer.tokenize("елка")


def test_characters_are_kept_where_the_text_has_them(sentences: list[str]) -> None:
    vocabulary = train_wordpiece(sentences, size=200).tokenizer.get_vocab()
    text = "".join(sentences)
    assert all(character in vocabulary for character in set(text) - {" "})
    assert all(f"##{character}" in vocabulary for character in "абвгдежзийклмнопрстуфхцчшщъыьюяё")
    assert not any(f"##{character}" in vocabulary for character in "АЁ?!.,№«—")


def test_ideographs_take_one_token_each() -> None:
    trained = train_wordpiece((chr(0x4E00 + i) for i in range(2_600)), size=5_031)
    assert len(trained.tokenizer) == len(SPECIAL_TOKENS) + 2_600
    assert trained.unknown_word_share == 0


def test_the_rarest_characters_are_dropped() -> None:
    # 20 characters: 9 а, 9 б, 1 в, 1 г; among 11 words that end in them. 0.95 can do without one of the rare two.
    texts = ["аб"] * 7 + ["а", "бв", "а", "бг"]
    trained = train_wordpiece(texts, size=50, character_coverage=0.95)
    assert not {"г", "##г"} & trained.tokenizer.get_vocab().keys()
    assert trained.tokenizer.tokenize("бв бг") == ["б", "##в", "[UNK]"]
    assert trained.unknown_character_share == pytest.approx(1 / 20)
    assert trained.unknown_word_share == pytest.approx(1 / 11)
    whole = train_wordpiece(texts, size=50, character_coverage=1.0)
    assert whole.unknown_character_share == whole.unknown_word_share == 0


def test_what_is_lost_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="distilrubert.modeling.wordpiece"):
        train_wordpiece(["аб"] * 99 + ["ав"], size=50, character_coverage=0.99)
    assert "1 of 3 characters" in caplog.text
    assert "0.5 % of the text, 1 % of its words" in caplog.text


@settings(max_examples=50)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), max_size=5))
def test_no_text_is_unknown_to_its_own_vocabulary(texts: list[str]) -> None:
    try:
        tokenizer = train_wordpiece(texts, size=400).tokenizer
    except UserError:
        return
    for text in texts:
        assert "[UNK]" not in tokenizer.tokenize(text.replace("[", " "))


def test_the_size_is_met_exactly(sentences: list[str]) -> None:
    assert len(train_wordpiece(sentences, size=200).tokenizer) == 200
    assert len(train_wordpiece(sentences, size=201).tokenizer) == 201


def test_a_larger_vocabulary_begins_with_the_smaller(sentences: list[str]) -> None:
    assert tokens_of(train_wordpiece(sentences, size=260).tokenizer)[:200] == tokens_of(
        train_wordpiece(sentences, size=200).tokenizer
    )


def test_neither_order_nor_lines_of_the_text_matter(sentences: list[str]) -> None:
    shuffled = random.Random(1).sample(sentences, len(sentences))
    expected = tokens_of(train_wordpiece(sentences, size=260).tokenizer)
    assert tokens_of(train_wordpiece(shuffled, size=260).tokenizer) == expected
    assert tokens_of(train_wordpiece([" ".join(shuffled)], size=260).tokenizer) == expected


def test_every_process_finds_the_same() -> None:
    """The hash order of the tokenizers library differs from process to process, and so does Python's."""
    code = TIES + (
        "import json\nfrom distilrubert.modeling.wordpiece import train_wordpiece\n"
        "v = train_wordpiece(texts, size=500).tokenizer.get_vocab()\nprint(json.dumps(sorted(v, key=v.get)))"
    )
    found = set()
    for seed, threads in (("1", "1"), ("2", "4")):
        environment = {
            **os.environ,
            "RAYON_NUM_THREADS": threads,
            "PYTHONHASHSEED": seed,
            "TOKENIZERS_PARALLELISM": "true",
        }
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=600
        )
        found.add(done.stdout)
    scope: dict[str, list[str]] = {}
    exec(TIES, scope)
    assert {tuple(json.loads(text)) for text in found} == {
        tuple(tokens_of(train_wordpiece(scope["texts"], size=500).tokenizer))
    }


def test_a_size_below_the_alphabet_is_refused() -> None:
    with pytest.raises(UserError, match=r"11 tokens; 4 different characters, 3 ## forms.* take 12; a character"):
        train_wordpiece(["абвг"], size=11)
    assert len(train_wordpiece(["абвг"], size=12).tokenizer) == 12


@pytest.mark.parametrize("texts", [[], ["", "  \n"]])
def test_no_text_is_refused(texts: list[str]) -> None:
    with pytest.raises(UserError, match="there is no text"):
        train_wordpiece(texts, size=100)


@pytest.mark.data
@pytest.mark.slow
def test_a_vocabulary_of_the_reference_corpus(data_folder: Path) -> None:
    import pyarrow.parquet

    texts = pyarrow.parquet.read_table(data_folder / "corpus" / "movie_dialogues.parquet")["text"].to_pylist()
    trained = train_wordpiece(texts, size=8_000)
    tokenizer = trained.tokenizer
    assert len(tokenizer) == 8_000
    words = [tokenizer.tokenize(word) for text in texts[:2_000] for word in text.split()]
    unknown = sum(tokenizer.unk_token in tokens for tokens in words) / len(words)
    assert 0 < unknown < 2 * trained.unknown_word_share < 1e-3
