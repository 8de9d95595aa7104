import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, BertTokenizerFast, PreTrainedTokenizerFast

from distilrubert.common.errors import UserError
from distilrubert.modeling.architecture import StudentArchitecture
from distilrubert.modeling.heads import has_head
from distilrubert.modeling.student import build_student, load_student, save_student
from distilrubert.modeling.teacher import Teacher, load_teacher, new_teacher, save_teacher
from distilrubert.modeling.tokenizer_files import student_tokenizer
from distilrubert.modeling.tokenizer_kinds import kind_of, plain_tokenizer, tokens_of
from distilrubert.modeling.trimming import (
    count_needed,
    count_tokens,
    ids_in,
    measure_resplit,
    trim_teacher,
    trim_tokenizer,
)
from distilrubert.modeling.vocabulary_settings import TrimSettings

from ..random_teachers import make_teacher


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
    trimmed = trim_tokenizer(tokenizer, counts, TrimSettings(minimum_count=2))
    assert tokens_of(trimmed)[5:] == ["а", "б", "##а", "##б", "аб"]
    assert tokens(trimmed, "абаб ба аб") == ["аб", "##а", "##б", "б", "##а", "аб"]


def test_what_leads_to_an_unknown_word_is_counted(tmp_path: Path) -> None:
    """Without "аб", "абв" would find а ##бв and no longer be [UNK]."""
    tokenizer = wordpiece(["а", "аб", "##бв", "##б"], tmp_path)
    counts = count_needed(tokenizer, ["абв", "а" * 101])
    assert counts[tokenizer.convert_tokens_to_ids("аб")] == 1
    assert counts[tokenizer.unk_token_id] == 2
    assert tokens(trim_tokenizer(tokenizer, counts), "абв") == ["[UNK]"]


def hand_made(model: models.Model, before: pre_tokenizers.PreTokenizer) -> PreTrainedTokenizerFast:
    engine = Tokenizer(model)
    engine.pre_tokenizer = before
    return PreTrainedTokenizerFast(tokenizer_object=engine, unk_token="<unk>")


LETTERLESS = TrimSettings(keep_letters=[])


def test_the_lowest_score_of_a_unigram_stays() -> None:
    """An unknown "а" costs the lowest score and 10 more. Without "я" it would be cheap, and <unk> бвг would win."""
    scores = {"<unk>": 0.0, "аб": -20.0, "вг": -20.0, "бвг": -1.0, "я": -50.0, "лишнее": -2.0}
    tokenizer = hand_made(models.Unigram([*scores.items()], unk_id=0), pre_tokenizers.WhitespaceSplit())
    assert tokens(tokenizer, "абвг") == ["аб", "вг"]
    trimmed = trim_tokenizer(tokenizer, count_needed(tokenizer, ["абвг"]), LETTERLESS)
    assert tokens_of(trimmed) == ["<unk>", "аб", "вг", "я"]
    assert tokens(trimmed, "абвг") == ["аб", "вг"]
    assert trimmed("бвг")["input_ids"] == [0, 2]


def test_scores_are_kept(tokenizers_of_all_kinds: dict[str, PreTrainedTokenizerFast], sentences: list[str]) -> None:
    tokenizer = tokenizers_of_all_kinds["unigram"]
    trimmed = trim_tokenizer(tokenizer, count_needed(tokenizer, sentences[:9]))
    whole, part = (dict(json.loads(made.backend_tokenizer.to_str())["model"]["vocab"]) for made in (tokenizer, trimmed))
    assert part.items() < whole.items()
    assert min(part.values()) == min(whole.values())


def test_the_merges_that_build_a_byte_token_stay() -> None:
    """ "abc" is made of a and bc; "ab" is needed by nothing."""
    ids = {token: number for number, token in enumerate(["<unk>", "a", "b", "c", "ab", "bc", "abc", "cc"])}
    merges = [("b", "c"), ("a", "bc"), ("a", "b"), ("c", "c")]
    tokenizer = hand_made(models.BPE(ids, merges), pre_tokenizers.ByteLevel(add_prefix_space=False))
    counts = count_needed(tokenizer, ["abc", "abc", "cc"])
    assert counts.tolist() == [0, 0, 0, 0, 0, 0, 2, 1]
    trimmed = trim_tokenizer(tokenizer, counts, TrimSettings(minimum_count=2))
    assert tokens_of(trimmed) == ["<unk>", "a", "b", "c", "bc", "abc"]
    assert [tokens(trimmed, text) for text in ("abc", "ab", "cc")] == [["abc"], ["a", "b"], ["c", "c"]]
    # "bc" is needed twice, once for itself and once for "abc", which does not stay.
    counts = np.array([0, 0, 0, 0, 0, 1, 1, 0])
    assert tokens_of(trim_tokenizer(tokenizer, counts, TrimSettings(minimum_count=2)))[1:] == ["a", "b", "c", "bc"]


@pytest.mark.parametrize("kind", ["wordpiece", "unigram", "roberta-bpe", "modernbert-bpe"])
@settings(max_examples=40)
@given(st.data())
def test_a_text_without_dropped_tokens_is_tokenised_as_before(
    kind: str,
    tokenizers_of_all_kinds: dict[str, PreTrainedTokenizerFast],
    sentences: list[str],
    data: st.DataObject,
) -> None:
    tokenizer = tokenizers_of_all_kinds[kind]
    known = data.draw(st.lists(st.sampled_from(sentences), max_size=10))
    letters = data.draw(st.sampled_from([None, [], ["Latin"]]))
    trimmed = trim_tokenizer(tokenizer, count_needed(tokenizer, known), TrimSettings(keep_letters=letters))
    words = st.text(st.sampled_from("приветднё.-☃й\u0306漢ﬁ "), min_size=1, max_size=8)
    text = " ".join(data.draw(st.lists(st.one_of(words, st.sampled_from(sentences)), max_size=6)))
    is_kept = np.isin(np.arange(len(tokenizer)), ids_in(tokenizer, trimmed))
    if is_kept[count_needed(tokenizer, [text]) > 0].all():
        assert tokens(trimmed, text) == tokens(tokenizer, text)
    for sentence in known:
        assert tokens(trimmed, sentence) == tokens(tokenizer, sentence)


def test_special_tokens_and_single_characters_stay(any_tokenizer: PreTrainedTokenizerFast) -> None:
    trimmed = trim_tokenizer(any_tokenizer, np.zeros(len(any_tokenizer), dtype=np.int64))
    kept = tokens_of(trimmed)
    assert kept == [token for token in tokens_of(any_tokenizer) if token in {*kept}]
    assert len(kept) < len(any_tokenizer)
    kind = kind_of(any_tokenizer)
    texts = {token: kind.text_of(token) for token in tokens_of(any_tokenizer)}
    single = {token for token, found in texts.items() if found and len(found.text) == 1}
    assert len(single) > 60
    assert single | {*kind.indispensable()} | {*any_tokenizer.get_added_vocab()} <= {*kept}
    for role in ("pad", "unk", "cls", "sep", "mask"):
        name = getattr(any_tokenizer, f"{role}_token")
        assert (getattr(trimmed, f"{role}_token"), getattr(trimmed, f"{role}_token_id")) == (name, kept.index(name))


def test_only_the_letters_that_are_named_stay(tokenizers_of_all_kinds: dict[str, PreTrainedTokenizerFast]) -> None:
    tokenizer = tokenizers_of_all_kinds["unigram"]
    nothing = np.zeros(len(tokenizer), dtype=np.int64)
    single = {token for token in tokens_of(tokenizer) if len(token.removeprefix("▁")) == 1}
    letters = {token for token in single if token.removeprefix("▁").isalpha()}
    kept = {*tokens_of(trim_tokenizer(tokenizer, nothing, LETTERLESS))}
    assert single - letters < kept
    assert len(kept & letters) <= 1  # the lowest score may be a letter's
    assert {*tokens_of(trim_tokenizer(tokenizer, nothing, TrimSettings(keep_letters=["Cyrillic"])))} > letters


def test_the_tokens_of_a_script_stay(any_tokenizer: PreTrainedTokenizerFast, sentences: list[str]) -> None:
    nothing = np.zeros(len(any_tokenizer), dtype=np.int64)
    trimmed = trim_tokenizer(any_tokenizer, nothing, TrimSettings(keep_scripts=["Cyrillic"], keep_letters=[]))
    kind = kind_of(any_tokenizer)
    texts = {token: found.text for token in tokens_of(any_tokenizer) if (found := kind.text_of(token))}
    words = {token for token, text in texts.items() if text.isalpha() and not text.isascii()}
    assert len(words) > 80
    assert words <= {*tokens_of(trimmed)}
    letters = ["".join(filter(str.isalpha, sentence)) for sentence in sentences if not any(map(str.isdigit, sentence))]
    assert measure_resplit(any_tokenizer, trimmed, letters).changed == 0


def test_special_tokens_get_their_new_ids_everywhere(tmp_path: Path) -> None:
    pieces = ["редкое", "[PAD]", "слово", "[UNK]", "[CLS]", "а", "[SEP]", "[MASK]"]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces) + "\n")
    tokenizer = BertTokenizerFast.from_pretrained(tmp_path, do_lower_case=False, strip_accents=False)
    trimmed = trim_tokenizer(tokenizer, count_needed(tokenizer, ["слово"]))
    for made in (trimmed, student_tokenizer(trimmed)):
        assert made("слово [MASK]")["input_ids"] == [3, 1, 6, 5]
        assert made.convert_ids_to_tokens([3, 1, 6, 5, 0]) == ["[CLS]", "слово", "[MASK]", "[SEP]", "[PAD]"]
        assert made.all_special_ids == [made.convert_tokens_to_ids(token) for token in made.all_special_tokens]


def test_whole_inputs_are_those_of_the_whole_tokenizer(
    any_tokenizer: PreTrainedTokenizerFast, sentences: list[str]
) -> None:
    """With special tokens around a pair, and one in the text, which may take the space before it."""
    trimmed = trim_tokenizer(any_tokenizer, count_needed(any_tokenizer, sentences[:20]))
    rows_V = ids_in(any_tokenizer, trimmed)
    mask = any_tokenizer.mask_token
    for text in [*sentences[:20], f"Кот {mask} спит", f"Нет,{mask}"]:
        expected = any_tokenizer(text, "Да.")
        for made in (trimmed, student_tokenizer(trimmed)):
            assert rows_V[made(text, "Да.")["input_ids"]].tolist() == expected["input_ids"]
        assert {*trimmed(text)} == {*expected}


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


TEACHERS = [
    ("distilbert", "wordpiece", True),
    ("bert", "unigram", False),
    ("xlm-roberta", "unigram", True),
    ("roberta", "roberta-bpe", True),
    ("modernbert", "modernbert-bpe", True),
    ("modernbert", "modernbert-bpe", False),
]


@pytest.mark.parametrize(("model_type", "kind", "with_head"), TEACHERS)
def test_a_trimmed_teacher_of_any_family_computes_the_same(
    model_type: str,
    kind: str,
    with_head: bool,
    tokenizers_of_all_kinds: dict[str, PreTrainedTokenizerFast],
    sentences: list[str],
    tmp_path: Path,
) -> None:
    teacher = make_teacher(model_type, tokenizers_of_all_kinds[kind], with_head=with_head)
    assert_computes_the_same(teacher, sentences[:5], tmp_path)


def test_positions_follow_a_padding_token_that_moves(tmp_path: Path) -> None:
    """RoBERTa counts positions from the id of its padding token."""
    tokenizer = wordpiece(["слово", "речь"], tmp_path)
    (tmp_path / "vocab.txt").write_text("а\nредкое\n" + (tmp_path / "vocab.txt").read_text())
    tokenizer = BertTokenizerFast.from_pretrained(tmp_path, do_lower_case=False, strip_accents=False)
    assert tokenizer.pad_token_id == 2
    trimmed = assert_computes_the_same(make_teacher("roberta", tokenizer), ["слово а", "речь"], tmp_path)
    assert trimmed.model.config.pad_token_id == 1
    assert trimmed.tokenizer.model_max_length == 62


def assert_computes_the_same(whole: Teacher, texts: list[str], folder: Path) -> Teacher:
    trimmed = trim_tokenizer(whole.tokenizer, count_needed(whole.tokenizer, texts))
    kept_V = ids_in(whole.tokenizer, trimmed)
    assert len(kept_V) < len(whole.tokenizer)
    save_teacher(trim_teacher(whole, trimmed), folder / "trimmed")
    loaded = load_teacher(folder / "trimmed")
    its, own = (
        whole.tokenizer(texts, padding=True, return_tensors="pt"),
        trimmed(texts, padding=True, return_tensors="pt"),
    )
    for made in (trim_teacher(whole, trimmed), loaded):
        with torch.no_grad():
            expected, found = (
                model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
                for model, inputs in ((whole.model, its), (made.model, own))
            )
        if has_head(whole.model):
            torch.testing.assert_close(found.logits, expected.logits[..., kept_V], atol=1e-5, rtol=1e-5)
        else:
            torch.testing.assert_close(found.last_hidden_state, expected.last_hidden_state, atol=1e-6, rtol=1e-6)
        for role in ("pad", "cls", "sep", "bos", "eos"):
            old = getattr(whole.model.config, f"{role}_token_id", None)
            assert old is None or kept_V[getattr(made.model.config, f"{role}_token_id")] == old
    return loaded


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
def test_real_texts_are_read_as_before_by_any_kind(
    any_tokenizer: PreTrainedTokenizerFast, hard_texts: list[str], real_texts: list[str]
) -> None:
    counted, others = hard_texts[:300] + real_texts[::1_000], real_texts[50::1_000]
    trimmed = trim_tokenizer(any_tokenizer, count_needed(any_tokenizer, counted[::9]), LETTERLESS)
    assert measure_resplit(any_tokenizer, trimmed, counted[::9]).changed == 0
    is_kept = np.isin(np.arange(len(any_tokenizer)), ids_in(any_tokenizer, trimmed))
    assert not is_kept.all()
    for text in others:
        if is_kept[count_needed(any_tokenizer, [text]) > 0].all():
            assert tokens(trimmed, text) == tokens(any_tokenizer, text)


@pytest.mark.data
@pytest.mark.slow
def test_the_trimmed_e5_reads_the_corpus_as_before(e5_folder: Path, real_texts: list[str]) -> None:
    """What docs/vocabulary.md says of it, without a prompt."""
    whole = AutoTokenizer.from_pretrained(e5_folder)
    counts = count_needed(whole, real_texts)
    assert (counts > 0).sum() == 20_651
    trimmed = trim_tokenizer(whole, counts, TrimSettings(keep_letters=["Cyrillic", "Latin"]))
    assert len(trimmed) <= 24_000
    assert measure_resplit(whole, trimmed, real_texts).changed == 0


@pytest.mark.data
@pytest.mark.parametrize("minimum_count", [1, 5])
def test_how_many_real_texts_are_read_otherwise(
    real_tokenizer: PreTrainedTokenizerFast, real_texts: list[str], minimum_count: int
) -> None:
    """None of the counted ones if no token is too rare, a few of the others; more where more tokens are dropped."""
    texts = real_texts[::25]
    held_out, others = texts[::10], [text for number, text in enumerate(texts) if number % 10]
    settings = TrimSettings(minimum_count=minimum_count)
    counts = count_needed(real_tokenizer, others)
    trimmed = trim_tokenizer(real_tokenizer, counts, settings)
    seen, unseen = (measure_resplit(real_tokenizer, trimmed, part) for part in (others, held_out))
    assert (seen.texts, unseen.texts) == (len(others), len(held_out))
    assert seen.tokens == sum(len(real_tokenizer.tokenize(text)) for text in others)
    assert (seen.changed == 0) == (seen.dropped == 0) == (minimum_count == 1)
    assert 0 < unseen.changed < unseen.texts
    assert unseen.dropped / unseen.tokens > seen.dropped / seen.tokens
