import itertools
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import BertTokenizerFast, PreTrainedTokenizerFast

from distilrubert.modeling.alignment import Offsets, align
from distilrubert.modeling.teacher import Teacher
from distilrubert.modeling.tokenizer_kinds import plain_tokenizer, tokens_of
from distilrubert.modeling.wordpiece import train_wordpiece


def offsets(*pairs: tuple[int, int]) -> Offsets:
    array = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return Offsets(array[:, 0], array[:, 1])


def spans(first: Offsets, second: Offsets) -> tuple[list[int], list[int]]:
    one, other = align(first, second)
    return one.tolist(), other.tolist()


@pytest.fixture(scope="module")
def small(sentences: list[str]) -> PreTrainedTokenizerFast:
    return train_wordpiece(sentences, size=150).tokenizer


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        # one to one, one to many, many to one
        ([(0, 2), (2, 5)], [(0, 2), (2, 5)], ([0, 1], [0, 1])),
        ([(0, 4)], [(0, 1), (1, 3), (3, 4)], ([0], [0, 0, 0])),
        ([(0, 1), (1, 4)], [(0, 4)], ([0, 0], [0])),
        # many to many: no boundary before 5 is shared
        ([(0, 2), (2, 5), (5, 6)], [(0, 3), (3, 5), (5, 6)], ([0, 0, 1], [0, 0, 1])),
        # a space between words is in no token
        ([(0, 2), (3, 5)], [(0, 2), (3, 4), (4, 5)], ([0, 1], [0, 1, 1])),
        # a character that only the second keeps: inside a token, and as a token of its own
        ([(0, 2), (4, 6)], [(0, 3), (4, 6)], ([0, 1], [0, 1])),
        ([(0, 2), (3, 6)], [(0, 2), (2, 3), (3, 6)], ([0, 2], [0, 1, 2])),
        # a character that a tokenizer writes as two, in two tokens
        ([(0, 1), (0, 1), (1, 2)], [(0, 1), (1, 2)], ([0, 0, 1], [0, 1])),
        ([(0, 2), (1, 2)], [(0, 1), (1, 2)], ([0, 0], [0, 0])),
        ([], [(0, 2)], ([], [0])),
        ([], [], ([], [])),
    ],
)
def test_by_hand(
    first: list[tuple[int, int]], second: list[tuple[int, int]], expected: tuple[list[int], list[int]]
) -> None:
    assert spans(offsets(*first), offsets(*second)) == expected
    assert spans(offsets(*second), offsets(*first)) == expected[::-1]


@st.composite
def tokenisations(draw: st.DrawFn) -> list[Offsets]:
    """Two cuts of one text, each of which may leave characters out."""
    length = draw(st.integers(1, 24))
    cut = st.lists(st.integers(1, length), max_size=10, unique=True)
    result = []
    for edges in (draw(cut), draw(cut)):
        edges = sorted({0, length, *edges})
        pairs = itertools.pairwise(edges)
        result.append(offsets(*[pair for pair in pairs if draw(st.integers(0, 4))]))
    return result


def components(first: Offsets, second: Offsets) -> set[frozenset[tuple[int, int]]]:
    """Tokens that overlap, directly or through others: what a span is by definition."""
    tokens = [
        (side, i, start, end)
        for side, tokens in enumerate((first, second))
        for i, (start, end) in enumerate(zip(tokens.start_N.tolist(), tokens.end_N.tolist(), strict=True))
    ]
    groups = [{token} for token in tokens]
    for a in tokens:
        for b in tokens:
            if a[2] < b[3] and b[2] < a[3]:
                joined = [group for group in groups if a in group or b in group]
                groups = [group for group in groups if group not in joined] + [set().union(*joined)]
    return {frozenset((side, i) for side, i, _, _ in group) for group in groups}


@given(tokenisations())
def test_spans_are_what_overlaps(pair: list[Offsets]) -> None:
    found: dict[int, set[tuple[int, int]]] = {}
    for side, spans_N in enumerate(align(*pair)):
        assert (np.diff(spans_N) >= 0).all()
        for i, span in enumerate(spans_N.tolist()):
            found.setdefault(span, set()).add((side, i))
    assert {frozenset(group) for group in found.values()} == components(*pair)
    assert sorted(found) == list(range(len(found)))


TEXTS = [
    "Ёжик нашёл жёлтый лист, а йод — в подъезде.",
    "и\u0306од и е\u0308жик: знаки отдельно",  # й and ё in two code points
    "Смех 😀😀, флаг 🇷🇺 и семья 👨‍👩‍👧 в тексте",
    "Смешанный текст: iPhone-ом, COVID‑19, Wi-Fiем, $5.99!",
    "漢字 внутри и 語слово",
    "нечитаемое: ꙮꙮꙮ слово ꙮ",
    "\u200bневидимый\u00ad перенос\tи\u00a0пробелы  ",
    "«Ёлочки» „лапки“ (скобки)… —тире—",
    "[MASK] и [SEP] в тексте",
    "и" * 130,
]


def test_real_tokenizers_share_their_characters(
    tiny_teacher: Teacher, small: PreTrainedTokenizerFast, sentences: list[str]
) -> None:
    texts = TEXTS + sentences
    encoded = [
        plain_tokenizer(tokenizer).encode_batch(texts, add_special_tokens=False)
        for tokenizer in (tiny_teacher.tokenizer, small)
    ]
    both = [Offsets.of(encodings, texts) for encodings in encoded]
    whole = "".join(texts)
    aligned = align(*both)
    covered: list[dict[int, str]] = [{}, {}]
    for side, (tokens, spans_N) in enumerate(zip(both, aligned, strict=True)):
        for span, start, end in zip(spans_N, tokens.start_N, tokens.end_N, strict=True):
            covered[side][span] = covered[side].get(span, "") + whole[start:end]
    # Both see the same words in the same characters: their spans hold the same text, whatever the pieces are.
    assert covered[0] == covered[1]
    several = [(np.bincount(spans_N) > 1).sum() for spans_N in aligned]
    assert min(several) > 10


def test_texts_are_apart(small: PreTrainedTokenizerFast, tiny_teacher: Teacher) -> None:
    """Aligned together, texts get the spans that they get alone."""
    texts = ["Кот спит.", "Да", "", "Ключи лежат на столе"]
    engines = [plain_tokenizer(tokenizer) for tokenizer in (tiny_teacher.tokenizer, small)]
    encoded = [engine.encode_batch(texts, add_special_tokens=False) for engine in engines]
    together = align(*(Offsets.of(encodings, texts) for encodings in encoded))
    first, place = 0, [0, 0]
    for i, text in enumerate(texts):
        alone = align(*(Offsets.of(encodings[i : i + 1], [text]) for encodings in encoded))
        for side in (0, 1):
            end = place[side] + len(alone[side])
            np.testing.assert_array_equal(together[side][place[side] : end] - first, alone[side])
            place[side] = end
        first += 1 + max((int(spans_N.max()) for spans_N in alone if len(spans_N)), default=-1)


def test_a_later_equal_piece_is_no_match() -> None:
    """Trap 6: matched by string, "##на" of the first word met the "##на" of a later one and all between was lost."""
    teacher = offsets((0, 3), (3, 5), (6, 10), (11, 12), (13, 17), (18, 22))  # сте ##на дома и одна луна
    student = offsets((0, 4), (4, 5), (6, 10), (11, 12), (13, 15), (15, 17), (18, 20), (20, 22))
    assert spans(teacher, student) == ([0, 0, 1, 2, 3, 4], [0, 0, 1, 2, 3, 3, 4, 4])


def encoded_offsets(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> Offsets:
    return Offsets.of(plain_tokenizer(tokenizer).encode_batch(texts, add_special_tokens=False), texts)


def span_of_characters(tokens: Offsets, spans_N: np.ndarray, length: int) -> np.ndarray:
    """The span that each character of the text stands in, -1 where no token has it."""
    spans = np.full(length, -1)
    for span, start, end in zip(spans_N, tokens.start_N, tokens.end_N, strict=True):
        spans[start:end] = span
    return spans


def is_nothing(character: str) -> bool:
    """Whether BERT's normaliser drops a character: white space, control and format characters, the empty sign."""
    return unicodedata.category(character)[0] in "ZC" or character == "\ufffd"


@pytest.mark.data
def test_real_texts_are_covered_once_by_both(real_tokenizer: PreTrainedTokenizerFast, hard_texts: list[str]) -> None:
    own = train_wordpiece(hard_texts, size=4_000).tokenizer
    whole = "".join(hard_texts)
    is_kept = ~np.isin(list(whole), [character for character in set(whole) if is_nothing(character)])
    both = [encoded_offsets(tokenizer, hard_texts) for tokenizer in (real_tokenizer, own)]
    aligned = align(*both)
    for tokens, spans_N in zip(both, aligned, strict=True):
        assert (np.diff(spans_N) >= 0).all()
        changes = np.zeros(len(whole) + 1, dtype=np.int64)
        np.add.at(changes, tokens.start_N, 1)
        np.add.at(changes, tokens.end_N, -1)
        covers = np.cumsum(changes)[:-1]
        assert (covers[is_kept] == 1).all()
        assert covers.max() == 1
    # No span is empty on a side, and its characters are the same on both.
    spans = np.stack([span_of_characters(*side, len(whole)) for side in zip(both, aligned, strict=True)])
    np.testing.assert_array_equal(*spans[:, is_kept])
    assert set(aligned[0]) == set(aligned[1]) == set(range(int(aligned[0][-1]) + 1))
    several = np.stack([np.bincount(spans_N) > 1 for spans_N in aligned])
    assert (~several).all(0).sum() > (~several[0] & several[1]).sum() > 1_000
    assert (several[0] & ~several[1]).sum() > 100
    assert several.all(0).sum() > 100


@pytest.mark.data
def test_real_texts_are_aligned_with_a_tokenizer_that_drops_marks(
    real_tokenizer: PreTrainedTokenizerFast, hard_texts: list[str], tmp_path: Path
) -> None:
    """One that reads ё as е and й as и, and combining marks as nothing: what both see is in one span."""
    (tmp_path / "vocab.txt").write_text("".join(f"{piece}\n" for piece in tokens_of(real_tokenizer)), encoding="utf-8")
    plain = BertTokenizerFast.from_pretrained(tmp_path, do_lower_case=True, strip_accents=True)
    whole = "".join(hard_texts)
    both = [encoded_offsets(tokenizer, hard_texts) for tokenizer in (real_tokenizer, plain)]
    aligned = align(*both)
    assert all((np.diff(spans_N) >= 0).all() for spans_N in aligned)
    spans = np.stack([span_of_characters(*side, len(whole)) for side in zip(both, aligned, strict=True)])
    is_seen = spans >= 0
    np.testing.assert_array_equal(*spans[:, is_seen.all(0)])
    assert {character for character, seen in zip(whole, is_seen.T, strict=True) if seen[0] > seen[1]} == {
        character for character in set(whole) if unicodedata.category(character) == "Mn"
    }
    assert not (is_seen[1] > is_seen[0]).any()


# Marks that combine, characters that NFKC rewrites, signs of several code points, ideographs, white space.
CHARACTERS = "аеижйёп \u0301\u0306\u0308\u200d\u200b\ufe0f\u00ad\u00a0\u3000\t\nﬁ①Å½²Ⅷ漢字한👨👩👧🇷🇺❤😀.,-«»[]<>A1ꙮ𐍈"
PAIRS = list(itertools.combinations(["wordpiece", "unigram", "roberta-bpe", "modernbert-bpe"], 2))


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
@given(
    texts=st.lists(st.one_of(st.text(CHARACTERS, max_size=12), st.sampled_from(TEXTS), st.text(max_size=6)), max_size=3)
)
def test_any_two_kinds_of_tokenizers_are_aligned(
    pair: tuple[str, str], texts: list[str], tokenizers_of_all_kinds: dict[str, PreTrainedTokenizerFast]
) -> None:
    both = [encoded_offsets(tokenizers_of_all_kinds[kind], texts) for kind in pair]
    aligned = align(*both)
    whole = "".join(texts)
    seen = []
    for tokens, spans_N in zip(both, aligned, strict=True):
        assert (tokens.end_N > tokens.start_N).all()
        assert (np.diff(spans_N) >= 0).all()
        # Tokens that share a character are in one span, so each character has one at most.
        seen.append(span_of_characters(tokens, spans_N, len(whole)))
        for span, start, end in zip(spans_N, tokens.start_N, tokens.end_N, strict=True):
            assert (seen[-1][start:end] == span).all()
    is_seen = np.stack(seen) >= 0
    np.testing.assert_array_equal(*np.stack(seen)[:, is_seen.all(0)])
    assert {*aligned[0]} | {*aligned[1]} == set(range(len({*aligned[0]} | {*aligned[1]})))
    # What is neither white space nor dropped by a normaliser is seen by both.
    is_letter = np.array([unicodedata.category(character)[0] in "LN" for character in whole], dtype=bool)
    assert is_seen[:, is_letter].all()
