import itertools

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from distilrubert.modeling.splitting import shared_tokens, split_text, split_vocabulary
from distilrubert.modeling.teacher import Teacher
from distilrubert.modeling.tokenizer_kinds import kind_of, plain_tokenizer, tokens_of
from distilrubert.modeling.tokenizer_kinds.tokenizer_kind import TokenText
from distilrubert.modeling.tokenizer_kinds.wordpiece_kind import stands_alone
from distilrubert.modeling.wordpiece import train_wordpiece


@pytest.fixture(scope="module")
def small(sentences: list[str]) -> PreTrainedTokenizerFast:
    return train_wordpiece(sentences, size=110).tokenizer


MARKS = set("!?,.:;-—«»()\"'…")


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


@pytest.mark.parametrize("kind", ["unigram", "roberta-bpe", "modernbert-bpe"])
def test_kinds_of_tokenizers_are_spelled_in_each_other(
    kind: str, tokenizers_of_all_kinds: dict[str, PreTrainedTokenizerFast]
) -> None:
    """By the text that a token stands for, and whether it begins a word: "▁мы", "ĠÐ¼Ñĭ" and "мы" are one."""
    its, own = tokenizers_of_all_kinds[kind], tokenizers_of_all_kinds["wordpiece"]
    kinds = [kind_of(tokenizer) for tokenizer in (its, own)]
    its_ids, own_ids = shared_tokens(its, own)
    ordinary = [
        (kinds[0].text_of(its.convert_ids_to_tokens(int(one))), kinds[1].text_of(own.convert_ids_to_tokens(int(other))))
        for one, other in zip(its_ids, own_ids, strict=True)
        if one not in its.all_special_ids
    ]
    assert len(ordinary) > 40
    # A mark is a word of its own, with a space before it and without.
    assert all(one == other or (one.text == other.text and one.text in MARKS) for one, other in ordinary)
    assert {one for one, _ in ordinary if one.text == ","} == {TokenText(",", is_inside=True)}
    roles = ("pad_token_id", "unk_token_id", "cls_token_id", "sep_token_id", "mask_token_id")
    found = dict(zip(its_ids.tolist(), own_ids.tolist(), strict=True))
    assert [found[getattr(its, role)] for role in roles] == [getattr(own, role) for role in roles]
    split, texts = split_vocabulary(its, own), [kinds[0].text_of(token) for token in tokens_of(its)]
    spelled = [
        number for number in range(len(texts)) if split.is_spelled_T[number] and number not in its.all_special_ids
    ]
    assert len(spelled) > 150
    for number in spelled:
        parts = [kinds[1].text_of(own.convert_ids_to_tokens(int(part))) for part in split[number]]
        assert texts[number] is not None
        assert "".join(part.text for part in parts if part) == texts[number].text
        assert parts[0] is not None
        begins = not texts[number].is_inside or texts[number].text[0] in MARKS
        assert parts[0].is_inside != begins
        # So is what stands behind it.
        for before, part in itertools.pairwise(parts):
            assert part.is_inside == (before.text not in MARKS and part.text not in MARKS)


def test_what_stands_alone_by_hand() -> None:
    def spelled(text: str, *, is_inside: bool) -> list[TokenText] | None:
        vocabulary = {wordpiece(token) for token in ("то", "##то", "-", "«", "да", "漢")}
        return split_text(TokenText(text, is_inside), vocabulary, stands_alone)

    assert spelled("то", is_inside=True) == [wordpiece("##то")]
    assert spelled("-то", is_inside=True) == [wordpiece("-"), wordpiece("то")]
    assert spelled("то-то", is_inside=False) == [wordpiece(token) for token in ("то", "-", "то")]
    assert spelled("«да", is_inside=False) == [wordpiece("«"), wordpiece("да")]
    assert spelled("漢", is_inside=True) == [wordpiece("漢")]
    assert not any(map(stands_alone, "аA1 ё\u0306"))


def test_a_role_that_one_lacks_is_no_shared_token(tiny_teacher: Teacher, sentences: list[str]) -> None:
    """An encoder may have a tokenizer without a mask token."""
    own = train_wordpiece(sentences, size=110).tokenizer
    own.mask_token = None
    its_ids, _ = shared_tokens(tiny_teacher.tokenizer, own)
    assert tiny_teacher.tokenizer.cls_token_id in its_ids
    assert tiny_teacher.tokenizer.mask_token_id not in its_ids
