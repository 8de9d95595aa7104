"""From text to sequences of ids."""

import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from distilrubert.common.errors import UserError
from distilrubert.distill.corpus import tokenisation
from distilrubert.distill.corpus.tokenisation import SequenceEncoder, tokenizer_sha256
from distilrubert.modeling.teacher import Teacher


@pytest.fixture(scope="module")
def tokenizer(tiny_teacher: Teacher) -> PreTrainedTokenizerFast:
    return tiny_teacher.tokenizer


def words_of(tokenizer: PreTrainedTokenizerFast, ids: np.ndarray) -> list[str]:
    """The pieces joined to words."""
    return " ".join(tokenizer.convert_ids_to_tokens(ids.tolist())).replace(" ##", "").split()


def test_a_sequence_is_what_the_tokenizer_itself_gives(
    tokenizer: PreTrainedTokenizerFast, sentences: list[str]
) -> None:
    encoded = SequenceEncoder(tokenizer, 64).encode(sentences)
    assert [len(sequences) for sequences in encoded] == [1] * len(sentences)
    assert [sequences[0].tolist() for sequences in encoded] == tokenizer(sentences)["input_ids"]


@pytest.mark.parametrize("pickled", [False, True])
def test_names_of_special_tokens_in_a_text_are_only_characters(
    tokenizer: PreTrainedTokenizerFast, pickled: bool
) -> None:
    encoder = SequenceEncoder(tokenizer, 64)
    encoder = pickle.loads(pickle.dumps(encoder)) if pickled else encoder
    text = "Привет [MASK] [SEP] Как [CLS][PAD] дела [UNK]"
    # Otherwise there would be nothing to test.
    assert tokenizer.mask_token_id in tokenizer(text)["input_ids"]
    [[ids]] = encoder.encode([text])
    special = {tokenizer.mask_token_id, tokenizer.sep_token_id, tokenizer.cls_token_id, tokenizer.pad_token_id}
    assert special.isdisjoint(ids[1:-1].tolist())
    assert (ids[0], ids[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
    # And the caller's tokenizer still knows them.
    assert tokenizer.mask_token_id in tokenizer(text)["input_ids"]


def test_truncation_and_padding_of_the_callers_tokenizer_do_not_matter(
    tokenizer: PreTrainedTokenizerFast, sentences: list[str]
) -> None:
    before = tokenizer_sha256(tokenizer)
    tokenizer(sentences[:2], truncation=True, padding="max_length", max_length=5)
    assert tokenizer.backend_tokenizer.truncation is not None
    [[ids]] = SequenceEncoder(tokenizer, 64).encode([sentences[10]])
    assert len(ids) > 5
    assert tokenizer_sha256(tokenizer) == before


def test_another_vocabulary_is_another_hash(tokenizer: PreTrainedTokenizerFast) -> None:
    other = pickle.loads(pickle.dumps(tokenizer))
    other.add_tokens(["щщщ"])
    assert tokenizer_sha256(other) != tokenizer_sha256(tokenizer)


def test_a_long_text_is_split_between_words_and_loses_nothing(
    tokenizer: PreTrainedTokenizerFast, sentences: list[str]
) -> None:
    text = " ".join(sentences)
    [sequences] = SequenceEncoder(tokenizer, 32).encode([text])
    assert len(sequences) > 10
    assert all(len(ids) <= 32 for ids in sequences)
    assert all((ids[0], ids[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id) for ids in sequences)
    inner = np.concatenate([ids[1:-1] for ids in sequences])
    # verbose=False: the whole is longer than the model takes, which is the point.
    assert inner.tolist() == tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    whole = words_of(tokenizer, inner)
    assert [word for ids in sequences for word in words_of(tokenizer, ids[1:-1])] == whole


def test_a_sequence_is_filled_as_far_as_words_allow(tokenizer: PreTrainedTokenizerFast, sentences: list[str]) -> None:
    [sequences] = SequenceEncoder(tokenizer, 32).encode([" ".join(sentences)])
    for ids, following in itertools.pairwise(sequences):
        pieces = tokenizer.convert_ids_to_tokens(following[1:-1].tolist())
        first_word = 1 + next((n for n, piece in enumerate(pieces[1:]) if not piece.startswith("##")), len(pieces) - 1)
        assert len(ids) + first_word > 32


def test_a_word_longer_than_a_sequence_is_cut_inside(tokenizer: PreTrainedTokenizerFast) -> None:
    [sequences] = SequenceEncoder(tokenizer, 8).encode(["да " + "щъ" * 15 + " да"])
    assert all(len(ids) <= 8 for ids in sequences)
    assert words_of(tokenizer, np.concatenate([ids[1:-1] for ids in sequences])) == ["да", "щъ" * 15, "да"]


def test_exactly_full_is_not_split(tokenizer: PreTrainedTokenizerFast) -> None:
    [[ids]] = SequenceEncoder(tokenizer, 8).encode([". . . . . ."])
    assert len(ids) == 8
    [sequences] = SequenceEncoder(tokenizer, 8).encode([". . . . . . ."])
    assert [len(ids) for ids in sequences] == [8, 3]


def test_a_book_goes_in_by_pieces_and_comes_out_the_same(
    tokenizer: PreTrainedTokenizerFast, sentences: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "\n".join(sentences)
    [whole] = SequenceEncoder(tokenizer, 32).encode([text])
    monkeypatch.setattr(tokenisation, "FRAGMENT_CHARACTERS", 50)
    monkeypatch.setattr(tokenisation, "FRAGMENTS_AT_ONCE", 3)
    [pieced, short] = SequenceEncoder(tokenizer, 32).encode([text, "Да."])
    assert [ids.tolist() for ids in pieced] == [ids.tolist() for ids in whole]
    assert len(short) == 1


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.integers(1, 9))
@settings(max_examples=200)
def test_splits_cover_everything_within_the_limit(starts: list[bool], limit: int) -> None:
    starts[0] = True
    ends = tokenisation._split_ends(np.array(starts), limit)
    sizes = np.diff([0, *ends])
    assert ends[-1] == len(starts)
    assert sizes.min() >= 1
    assert sizes.max() <= limit
    for begin, end in zip([0, *ends], ends[:-1], strict=False):
        # Inside a word only where no word begins on the whole way.
        assert starts[end] or not any(starts[begin + 1 : end + 1])


def test_a_tokenizer_that_does_not_fit(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(UserError, match=r"corpus\.max_length: 72 is more than the tokenizer's 64 tokens"):
        SequenceEncoder(tokenizer, 72)
    without = pickle.loads(pickle.dumps(tokenizer))
    without.sep_token = None
    with pytest.raises(UserError, match=r"no \[CLS\] or no \[SEP\]"):
        SequenceEncoder(without, 64)
