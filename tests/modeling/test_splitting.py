import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from distilrubert.modeling.splitting import shared_tokens, split_text, split_vocabulary
from distilrubert.modeling.teacher import Teacher
from distilrubert.modeling.tokenizer_kinds import plain_tokenizer, tokens_of
from distilrubert.modeling.tokenizer_kinds.tokenizer_kind import TokenText
from distilrubert.modeling.wordpiece import train_wordpiece


@pytest.fixture(scope="module")
def small(sentences: list[str]) -> PreTrainedTokenizerFast:
    return train_wordpiece(sentences, size=110).tokenizer


def wordpiece(token: str) -> TokenText:
    return TokenText(token.removeprefix("##"), token.startswith("##"))


@pytest.mark.parametrize(
    ("piece", "vocabulary", "expected"),
    [
        ("абв", {"аб", "а", "##в", "##бв"}, ["аб", "##в"]),
        ("##абв", {"абв", "##а", "##бв"}, ["##а", "##бв"]),
        # Trap 7: a ## piece whose longest prefix is one character became [UNK] whole
        ("##аб", {"##а", "##б"}, ["##а", "##б"]),
        ("аб", {"а", "##б"}, ["а", "##б"]),
        # without its ## a part would begin a word
        ("##аб", {"а", "##б", "аб"}, None),
        ("аб", {"##а", "##б"}, None),
        ("аб", {"а"}, None),
        ("##", {"#", "###"}, None),
    ],
)
def test_by_hand(piece: str, vocabulary: set[str], expected: list[str] | None) -> None:
    found = split_text(wordpiece(piece), {wordpiece(token) for token in vocabulary})
    assert found == (expected and [wordpiece(part) for part in expected])


def test_every_word_piece_is_spelt_as_the_tokenizer_spells_it(
    tiny_teacher: Teacher, small: PreTrainedTokenizerFast
) -> None:
    split = split_vocabulary(tiny_teacher.tokenizer, small)
    engine = plain_tokenizer(small)
    words = [piece for piece in tokens_of(tiny_teacher.tokenizer)[5:] if not piece.startswith("##")]
    assert len(words) > 50
    for word in words:
        ids = split[tiny_teacher.tokenizer.convert_tokens_to_ids(word)].tolist()
        assert ids == engine.encode(word, add_special_tokens=False).ids, word


def test_parts_put_together_are_the_piece(tiny_teacher: Teacher, small: PreTrainedTokenizerFast) -> None:
    split = split_vocabulary(tiny_teacher.tokenizer, small)
    pieces, own = tokens_of(tiny_teacher.tokenizer), tokens_of(small)
    assert split.is_spelled_T.all()  # of the same text, so no character is missing
    for number, piece in enumerate(pieces[5:], start=5):
        first, *rest = (own[part] for part in split[number])
        assert first.startswith("##") == piece.startswith("##")
        assert all(part.startswith("##") for part in rest)
        assert first + "".join(part[2:] for part in rest) == piece


def test_special_tokens_go_by_their_role(tiny_teacher: Teacher, sentences: list[str]) -> None:
    own = train_wordpiece(sentences[:20], size=130).tokenizer
    split = split_vocabulary(tiny_teacher.tokenizer, own)
    assert [split[i].tolist() for i in range(5)] == [[0], [1], [2], [3], [4]]
    unspelt = np.flatnonzero(~split.is_spelled_T)
    assert len(unspelt) > 0  # characters that twenty sentences do not have
    assert own.unk_token_id not in split.token_K[split.start_T1[5] :]


def test_the_matrix_counts_the_parts(tiny_teacher: Teacher, small: PreTrainedTokenizerFast) -> None:
    split = split_vocabulary(tiny_teacher.tokenizer, small)
    matrix_TV = split.matrix().to_dense()
    assert matrix_TV.shape == (len(tiny_teacher.tokenizer), len(small))
    for piece in range(len(matrix_TV)):
        assert torch.equal(matrix_TV[piece], torch.bincount(torch.from_numpy(split[piece]), minlength=len(small)))
    assert matrix_TV.max() == 2  # something like ##н ##н


def test_shared_pieces_are_equal_strings(tiny_teacher: Teacher, small: PreTrainedTokenizerFast) -> None:
    its, own = shared_tokens(tiny_teacher.tokenizer, small)
    assert [tokens_of(tiny_teacher.tokenizer)[i] for i in its] == [tokens_of(small)[i] for i in own]
    assert len(its) == len(set(tokens_of(tiny_teacher.tokenizer)) & set(tokens_of(small)))
