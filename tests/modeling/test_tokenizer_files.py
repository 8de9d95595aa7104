import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import Unigram
from tokenizers.pre_tokenizers import Metaspace
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, BertTokenizerFast, PreTrainedTokenizerFast

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


@pytest.fixture
def unigram() -> PreTrainedTokenizerFast:
    """A tokenizer as multilingual-e5-small (also a BERT) has it: no WordPiece."""
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "▁мир", "▁", "м", "и", "р"]
    backend = Tokenizer(Unigram([(piece, -float(i)) for i, piece in enumerate(pieces)], unk_id=3))
    backend.pre_tokenizer = Metaspace()
    backend.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        cls_token="<s>",
        pad_token="<pad>",
        sep_token="</s>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_max_length=32,
    )


def test_other_kinds_of_tokenizer_are_carried(unigram: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    save_tokenizer(student_tokenizer(unigram), tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.model_input_names == ["input_ids", "attention_mask"]
    assert loaded("мир рим")["input_ids"] == unigram("мир рим")["input_ids"] == [0, 5, 6, 9, 8, 7, 2]
    assert loaded.model_max_length == 32
    assert not (tmp_path / "vocab.txt").exists()
    # A name that both lines of transformers know.
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["tokenizer_class"] == "PreTrainedTokenizerFast"
