"""Words that are tokenised once: the same tokens as those of the tokenizer itself."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerFast

from distilrubert.distill.corpus import word_cache
from distilrubert.distill.corpus.tokenisation import SequenceEncoder
from distilrubert.distill.corpus.word_cache import WordCache, is_separable
from distilrubert.modeling.tokenizer_kinds import plain_state, plain_tokenizer

from ... import sample_tokenizers

# White space and controls that Python and the tokenizer's library take for different things, marks that belong to the
# character before them, ideographs, punctuation that is a token's prefix, and letters.
CHARACTERS = " \t\n\v\x1c\0\u00a0\u2028\ufffd\u0301\u0306и漢#[]MASKЁйёабвгдоитне.,—"
TEXTS = st.lists(st.text(st.sampled_from(CHARACTERS), max_size=60), max_size=12)


@pytest.fixture(scope="module", params=["cased", "uncased", "unnormalised"])
def tokenizer(request: pytest.FixtureRequest, sentences: list[str]) -> PreTrainedTokenizerFast:
    made = sample_tokenizers.wordpiece(sentences)
    state = json.loads(made.backend_tokenizer.to_str())
    if request.param == "uncased":
        state["normalizer"] |= {"lowercase": True, "strip_accents": None}
    if request.param == "unnormalised":
        state["normalizer"] = None
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("cls", "sep", "pad", "unk", "mask")}
    engine = Tokenizer.from_str(json.dumps(state))
    return PreTrainedTokenizerFast(tokenizer_object=engine, model_max_length=64, **names)


@given(TEXTS)
@settings(max_examples=150)
def test_sequences_are_those_of_the_tokenizer(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> None:
    cached, plain = SequenceEncoder(tokenizer, 16), SequenceEncoder(tokenizer, 16)
    assert cached._words
    plain._words, plain._backend = None, plain_tokenizer(tokenizer)
    expected = plain(texts)
    assert cached(texts).equals(expected)
    # Now each word is known.
    assert cached(texts).equals(expected)


def test_words_are_tokenised_once_and_forgotten_before_there_are_too_many(
    tokenizer: PreTrainedTokenizerFast, sentences: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, engine = WordCache(plain_state(tokenizer)), plain_tokenizer(tokenizer)
    expected = [encoding.ids for encoding in engine.encode_batch(sentences, add_special_tokens=False)]
    for limit in (word_cache.CHARACTERS, 200):
        monkeypatch.setattr(word_cache, "CHARACTERS", limit)
        found = [tokens for text in sentences for tokens in cache.encode([text])]
        assert [np.frombuffer(tokens, dtype=np.int32).tolist() for tokens in found] == expected
        assert sum(map(len, cache._tokens)) == cache._characters
    words = {word for text in sentences for word in text.split(" ")}
    assert sum(map(len, words)) > 1000
    assert cache._characters <= 200
    # The last text is known, so no tokenizer is needed.
    monkeypatch.setattr(cache, "_engine", None)
    assert cache.encode(sentences[-1:]) == found[-1:]


def test_only_tokenizers_of_berts_form_are_taken_apart(sentences: list[str]) -> None:
    made = {name: make(sentences) for name, make in sample_tokenizers.KINDS.items()}
    assert [name for name, each in made.items() if is_separable(plain_state(each))] == ["wordpiece"]
    added = sample_tokenizers.wordpiece(sentences)
    added.add_tokens([AddedToken("новая почта", normalized=False)])
    # It is found across a space.
    assert not is_separable(plain_state(added))
    assert SequenceEncoder(added, 64).encode(["новая почта"])[0][0].tolist()[1:-1] == [len(added) - 1]
