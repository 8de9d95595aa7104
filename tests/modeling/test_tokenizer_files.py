import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer, BertTokenizerFast, PreTrainedTokenizerFast, RobertaTokenizerFast

from distilrubert.modeling.teacher import Teacher
from distilrubert.modeling.tokenizer_files import save_tokenizer, student_tokenizer


def test_the_same_pieces_and_no_segments(tiny_teacher: Teacher, sentences: list[str]) -> None:
    tokenizer = student_tokenizer(tiny_teacher.tokenizer)
    ours, theirs = tokenizer(sentences), tiny_teacher.tokenizer(sentences)
    assert set(ours) == {"input_ids", "attention_mask"}
    assert ours["input_ids"] == theirs["input_ids"]
    assert tokenizer.model_max_length == tiny_teacher.tokenizer.model_max_length
    assert "token_type_ids" in theirs  # the teacher's was left as it is


def test_input_names_survive_every_round(tiny_teacher: Teacher, tmp_path: Path) -> None:
    tokenizer = student_tokenizer(tiny_teacher.tokenizer)
    for round_ in range(3):
        save_tokenizer(tokenizer, tmp_path / str(round_))
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / str(round_))
        assert tokenizer.model_input_names == ["input_ids", "attention_mask"]
        assert tokenizer.convert_tokens_to_ids("[MASK]") == tokenizer.mask_token_id == 4


def test_lower_casing_is_carried(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nмир\nМир\nежик\nёжик\n", encoding="utf-8")
    lower = BertTokenizerFast.from_pretrained(tmp_path, do_lower_case=True, strip_accents=True)
    cased = BertTokenizerFast.from_pretrained(tmp_path, do_lower_case=False, strip_accents=False)
    assert student_tokenizer(lower).tokenize("Мир ёжик") == ["мир", "ежик"]
    assert student_tokenizer(cased).tokenize("Мир ёжик") == ["Мир", "ёжик"]


def test_files_do_not_depend_on_the_texts_met(tiny_teacher: Teacher, tmp_path: Path) -> None:
    tokenizer = student_tokenizer(tiny_teacher.tokenizer)
    save_tokenizer(tokenizer, tmp_path / "before")
    tokenizer(["раз", "раз два"], padding="max_length", truncation=True, max_length=8)
    save_tokenizer(tokenizer, tmp_path / "after")
    for file in (tmp_path / "before").iterdir():
        assert (tmp_path / "after" / file.name).read_bytes() == file.read_bytes()


def test_vocab_txt_lists_the_pieces_by_id(tiny_teacher: Teacher, tmp_path: Path) -> None:
    save_tokenizer(tiny_teacher.tokenizer, tmp_path)
    pieces = (tmp_path / "vocab.txt").read_text(encoding="utf-8").splitlines()
    assert {piece: i for i, piece in enumerate(pieces)} == tiny_teacher.tokenizer.get_vocab()
    assert json.loads((tmp_path / "special_tokens_map.json").read_text())["mask_token"] == "[MASK]"


@pytest.mark.parametrize("model_type", ["xlm-roberta", "roberta", "modernbert", "camembert", "distilbert"])
def test_any_kind_is_carried_beside_any_model(
    any_tokenizer: PreTrainedTokenizerFast, model_type: str, sentences: list[str], tmp_path: Path
) -> None:
    """The class of a model's own tokenizer may drop normalisers, or expect ids that this one does not have."""
    save_tokenizer(student_tokenizer(any_tokenizer), tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    texts = [*sentences, "ﬁn ①\u3000и\u0306од", f"Кот {any_tokenizer.mask_token} спит   тут", ""]
    assert {*loaded(texts)} == {"input_ids", "attention_mask"}
    assert loaded(texts)["input_ids"] == any_tokenizer(texts)["input_ids"]
    assert loaded("Да.", "Нет.")["input_ids"] == any_tokenizer("Да.", "Нет.")["input_ids"]
    assert loaded.model_max_length == any_tokenizer.model_max_length
    assert loaded.special_tokens_map == any_tokenizer.special_tokens_map
    alone = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert [encoding.ids for encoding in alone.encode_batch(texts)] == any_tokenizer(texts)["input_ids"]


def test_other_kinds_have_no_files_of_their_own(
    tokenizers_of_all_kinds: dict[str, PreTrainedTokenizerFast], tmp_path: Path
) -> None:
    """vocab.json and merges.txt would be stale once a vocabulary is trimmed."""
    engine = tokenizers_of_all_kinds["roberta-bpe"].backend_tokenizer
    roberta = RobertaTokenizerFast(tokenizer_object=engine, vocab=engine.get_vocab(), merges=[])
    save_tokenizer(roberta, tmp_path)
    names = {file.name for file in tmp_path.iterdir()}
    assert names == {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"}
    # A name that both lines of transformers know.
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["tokenizer_class"] == "PreTrainedTokenizerFast"


@pytest.mark.data
@pytest.mark.slow
def test_real_lines_keep_their_ids(
    tokenizers_of_all_kinds: dict[str, PreTrainedTokenizerFast],
    real_tokenizer: PreTrainedTokenizerFast,
    real_texts: list[str],
    hard_texts: list[str],
) -> None:
    """On lines with every character of the corpus: tokenizers differ by what they do with characters."""
    seen: set[str] = set()
    lines = hard_texts + real_texts[::200]
    for text in real_texts:
        if not seen.issuperset(text):
            seen.update(text)
            lines.append(text)
    assert len(seen) > 200
    for tokenizer in (real_tokenizer, tokenizers_of_all_kinds["roberta-bpe"], tokenizers_of_all_kinds["unigram"]):
        made = student_tokenizer(tokenizer)
        whole, own = (each.backend_tokenizer.encode_batch_fast(lines) for each in (tokenizer, made))
        assert [encoding.ids for encoding in own] == [encoding.ids for encoding in whole]


@pytest.mark.data
@pytest.mark.slow
def test_real_lines_keep_their_ids_in_e5(e5_folder: Path, real_texts: list[str]) -> None:
    tokenizer, lines = AutoTokenizer.from_pretrained(e5_folder), real_texts[::25]
    assert student_tokenizer(tokenizer)(lines)["input_ids"] == tokenizer(lines)["input_ids"]
