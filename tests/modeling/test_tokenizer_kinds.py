"""What is known of each kind of tokenizer."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from distilrubert.common.errors import UserError
from distilrubert.modeling.tokenizer_kinds import kind_of, plain_tokenizer, tokens_of
from distilrubert.modeling.tokenizer_kinds.byte_bpe import ByteBpe
from distilrubert.modeling.tokenizer_kinds.unigram import Unigram
from distilrubert.modeling.tokenizer_kinds.wordpiece_kind import WordPiece


def fast(engine: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=engine)


@pytest.mark.parametrize(
    ("kind", "token", "expected"),
    [
        (WordPiece, "дом", ("дом", False)),
        (WordPiece, "##ик", ("ик", True)),
        (Unigram, "▁дом", ("дом", False)),
        (Unigram, "ик", ("ик", True)),
        (Unigram, "▁", ("", False)),
        (ByteBpe, "ĠÐ´Ð¾Ð¼", ("дом", False)),
        (ByteBpe, "Ð¸Ðº", ("ик", True)),
        (ByteBpe, "Ġ", ("", False)),
        (ByteBpe, "Ċ", ("\n", True)),
        (ByteBpe, "ĠÐ", None),
    ],
)
def test_texts_by_hand(kind: type, token: str, expected: tuple[str, bool] | None) -> None:
    assert kind({}).text_of(token) == expected


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_bytes_are_written_as_tokenizers_writes_them(text: str) -> None:
    ((written, _),) = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
    found = ByteBpe({}).text_of(written)
    assert found is not None
    assert found.text == text.removeprefix(" ")


def test_texts_are_what_tokens_stand_for(any_tokenizer: PreTrainedTokenizerFast, sentences: list[str]) -> None:
    kind, engine = kind_of(any_tokenizer), plain_tokenizer(any_tokenizer)
    for sentence in sentences:
        texts = [kind.text_of(token) for token in engine.encode(sentence, add_special_tokens=False).tokens]
        if None not in texts:
            written = "".join(found.text for found in texts if found)
            assert written.replace(" ", "") == sentence.replace(" ", "")


REFUSED = {
    "without an unknown token": lambda: Tokenizer(models.Unigram([("а", -1.0)])),
    "over characters": lambda: Tokenizer(models.BPE({"а": 0}, [])),
    "with a dropout": lambda: byte_level(models.BPE({"a": 0}, [], dropout=0.1)),
    "with a end_of_word_suffix": lambda: byte_level(models.BPE({"a": 0}, [], end_of_word_suffix="</w>")),
    "with '@@' before tokens inside words": lambda: Tokenizer(
        models.WordPiece({"а": 0}, continuing_subword_prefix="@@")
    ),
    "WordLevel": lambda: Tokenizer(models.WordLevel({"а": 0}, "а")),
}


def byte_level(model: models.BPE) -> Tokenizer:
    engine = Tokenizer(model)
    engine.pre_tokenizer = pre_tokenizers.ByteLevel()
    return engine


@pytest.mark.parametrize("said", REFUSED)
def test_others_are_refused(said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        kind_of(fast(REFUSED[said]()))
    assert str(caught.value).startswith("teacher: its tokenizer is a ")
    assert "needed" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_of_special_tokens_are_plain_text(any_tokenizer: PreTrainedTokenizerFast) -> None:
    engine = plain_tokenizer(any_tokenizer)
    text = "Да " + " ".join(any_tokenizer.all_special_tokens) + " да."
    found = engine.encode(text, add_special_tokens=False)
    unknown = any_tokenizer.unk_token_id
    assert not {*found.ids} & ({*any_tokenizer.all_special_ids} - {unknown})
    # No more of them are added, and everything else is as it always is.
    assert engine.encode("Да.").ids == any_tokenizer("Да.", add_special_tokens=False)["input_ids"]


def test_a_copy_neither_truncates_nor_pads(any_tokenizer: PreTrainedTokenizerFast, sentences: list[str]) -> None:
    expected = plain_tokenizer(any_tokenizer).encode(sentences[0]).ids
    any_tokenizer(sentences[:2], padding="max_length", truncation=True, max_length=6)
    assert plain_tokenizer(any_tokenizer).encode(sentences[0]).ids == expected


def test_parts_of_a_byte_token_are_what_its_merges_make() -> None:
    merges = [("b", "c"), ("a", "bc"), ("a", "b"), ("abc", "abc")]
    kind = ByteBpe({"vocab": dict.fromkeys(("a", "b", "c", "bc", "ab", "abc", "abcabc"), 0), "merges": merges})
    assert kind.parts_of("abc") == ["a", "b", "c", "bc"]
    assert sorted(kind.parts_of("abcabc")) == sorted(["a", "b", "c", "bc", "abc"] * 2)
    assert kind.parts_of("a") == []


def test_every_token_that_is_found_has_its_parts(
    tokenizers_of_all_kinds: dict[str, PreTrainedTokenizerFast], sentences: list[str]
) -> None:
    """Merged in a word or alone, a token is made of the same parts."""
    tokenizer = tokenizers_of_all_kinds["roberta-bpe"]
    kind, engine = kind_of(tokenizer), plain_tokenizer(tokenizer)
    found = {token for encoding in engine.encode_batch(sentences) for token in encoding.tokens}
    merges = {"".join(pair): pair for pair in json.loads(engine.to_str())["model"]["merges"]}
    assert len(found) > 100
    for token in found:
        parts = kind.parts_of(token)
        assert sorted(part for part in parts if len(part) == 1) == sorted(token if len(token) > 1 else "")
        assert len(token) == 1 or {*merges[token]} <= {*parts}


def test_ids_with_gaps_are_refused() -> None:
    with pytest.raises(UserError, match="the ids of its tokenizer have gaps"):
        tokens_of(fast(Tokenizer(models.WordLevel({"а": 0, "б": 2}, "а"))))
