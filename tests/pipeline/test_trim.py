"""``distilrubert trim``: a model with a part of its vocabulary, and everything else of it as it was."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForPreTraining,
    BertTokenizerFast,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from distilrubert.common.measurements import Measurements
from distilrubert.modeling.checkpoints import save_checkpoint
from distilrubert.modeling.teacher import load_teacher, save_teacher
from distilrubert.modeling.tokenizer_kinds import tokens_of
from distilrubert.pipeline.cli import main

from ..random_teachers import make_teacher


@pytest.fixture
def texts(tmp_path: Path, sentences: list[str]) -> Path:
    file = tmp_path / "texts.txt"
    file.write_text("\n".join(sentences[:12]), encoding="utf-8")
    return file


def trim(model: Path, texts: Path, output: Path, *options: str) -> int:
    return main(["trim", str(model), "--corpus", str(texts), "--output", str(output), *options])


def states(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> torch.Tensor:
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        return model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])[0]


@pytest.mark.parametrize(
    ("model_type", "kind", "with_head"),
    [
        ("distilbert", "wordpiece", True),
        ("bert", "wordpiece", False),
        ("xlm-roberta", "unigram", True),
        ("roberta", "roberta-bpe", False),
        ("modernbert", "modernbert-bpe", True),
    ],
)
def test_any_model_gives_the_same_states(
    model_type: str,
    kind: str,
    with_head: bool,
    tokenizers_of_all_kinds: dict[str, PreTrainedTokenizerFast],
    texts: Path,
    sentences: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole = make_teacher(model_type, tokenizers_of_all_kinds[kind], with_head=with_head)
    save_teacher(whole, tmp_path / "whole")
    assert trim(tmp_path / "whole", texts, tmp_path / "trimmed", "--held-out", "0") == 0
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "trimmed")
    encoder = AutoModel.from_pretrained(tmp_path / "trimmed")
    assert encoder.get_input_embeddings().weight.shape[0] == len(tokenizer) < len(whole.tokenizer)
    expected = states(whole.model.base_model, whole.tokenizer, sentences[:12])
    torch.testing.assert_close(states(encoder, tokenizer, sentences[:12]), expected, atol=1e-6, rtol=1e-6)
    if with_head:
        model, info = AutoModelForMaskedLM.from_pretrained(tmp_path / "trimmed", output_loading_info=True)
        assert not info["missing_keys"]
        kept_V = whole.tokenizer.convert_tokens_to_ids(tokens_of(tokenizer))
        logits = states(whole.model, whole.tokenizer, sentences[:12])[..., kept_V]
        torch.testing.assert_close(states(model, tokenizer, sentences[:12]), logits, atol=1e-5, rtol=1e-5)
    # It is a teacher as before.
    assert load_teacher(tmp_path / "trimmed").tokenizer.get_vocab() == tokenizer.get_vocab()
    report = Measurements.load(tmp_path / "trimmed" / "reports" / "vocabulary.json")
    assert [row.values["tokens"] for row in report.rows] == [len(whole.tokenizer), len(tokenizer)]
    assert report["trimmed"].values["file_mib"] < report["whole"].values["file_mib"]
    assert report["trimmed"].values["training_resplit_token_share"] == 0
    shown = capsys.readouterr().out
    assert f"{len(tokenizer):,}" in shown
    assert "%" not in shown  # nothing is held out to measure shares of


def test_positions_follow_a_padding_token_that_moves(texts: Path, sentences: list[str], tmp_path: Path) -> None:
    """RoBERTa counts positions from its id."""
    names = ["редкое", "слово", "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "Привет", "!", "Как", "дела", "?"]
    (tmp_path / "vocab.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    tokenizer = BertTokenizerFast.from_pretrained(tmp_path, do_lower_case=False, model_max_length=60)
    whole = make_teacher("roberta", tokenizer)
    save_teacher(whole, tmp_path / "whole")
    assert trim(tmp_path / "whole", texts, tmp_path / "trimmed", "--held-out", "0") == 0
    loaded = load_teacher(tmp_path / "trimmed")
    assert (whole.model.config.pad_token_id, loaded.model.config.pad_token_id) == (2, 0)
    expected = states(whole.model.base_model, whole.tokenizer, sentences[:3])
    torch.testing.assert_close(states(loaded.model.base_model, loaded.tokenizer, sentences[:3]), expected)


def test_what_is_held_out_is_not_counted(
    tiny_teacher_folder: Path, sentences: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(sentences), encoding="utf-8")
    assert trim(tiny_teacher_folder, texts, tmp_path / "trimmed", "--held-out", "0.5", "--minimum-count", "2") == 0
    report = Measurements.load(tmp_path / "trimmed" / "reports" / "vocabulary.json")
    assert 15 < report.details["held_out_texts"] < 45
    assert report.details["settings"] == {"minimum_count": 2, "keep_scripts": [], "keep_letters": None}
    values = report["trimmed"].values
    assert 0 < values["held_out_resplit_token_share"] < values["held_out_resplit_text_share"] <= 1
    assert f"{values['held_out_resplit_text_share']:.2%}" in capsys.readouterr().out


def test_a_script_and_letters_are_kept(
    tokenizers_of_all_kinds: dict[str, PreTrainedTokenizerFast], texts: Path, tmp_path: Path
) -> None:
    whole = make_teacher("xlm-roberta", tokenizers_of_all_kinds["unigram"], with_head=False)
    save_teacher(whole, tmp_path / "whole")
    sizes = []
    for number, options in enumerate((["--keep-letters"], [], ["--keep-scripts", "Cyrillic", "Common"])):
        output = tmp_path / str(number)
        assert trim(tmp_path / "whole", texts, output, "--minimum-count", "4", *options) == 0
        sizes.append(len(AutoTokenizer.from_pretrained(output)))
    assert sizes[0] < sizes[1] < sizes[2] == len(whole.tokenizer)


@pytest.fixture
def pretrained(tmp_path: Path, tokenizers_of_all_kinds: dict[str, PreTrainedTokenizerFast]) -> BertForPreTraining:
    tokenizer = tokenizers_of_all_kinds["wordpiece"]
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    model = BertForPreTraining(config).half().eval()
    (tmp_path / "whole").mkdir()
    save_checkpoint(model, tokenizer, tmp_path / "whole")
    return model


def test_poolers_heads_and_the_format_of_numbers_are_kept(
    pretrained: BertForPreTraining, texts: Path, tmp_path: Path
) -> None:
    assert trim(tmp_path / "whole", texts, tmp_path / "trimmed") == 0
    loaded, info = BertForPreTraining.from_pretrained(tmp_path / "trimmed", dtype="auto", output_loading_info=True)
    assert not any(info[f"{kind}_keys"] for kind in ("missing", "unexpected", "mismatched"))
    assert loaded.dtype == torch.float16
    assert torch.equal(loaded.bert.pooler.dense.weight, pretrained.bert.pooler.dense.weight)
    assert torch.equal(loaded.cls.seq_relationship.weight, pretrained.cls.seq_relationship.weight)
    assert loaded.cls.predictions.bias.shape == (loaded.config.vocab_size,)


def test_pickled_weights_are_read(pretrained: BertForPreTraining, texts: Path, tmp_path: Path) -> None:
    torch.save(pretrained.state_dict(), tmp_path / "whole" / "pytorch_model.bin")
    (tmp_path / "whole" / "model.safetensors").unlink()
    assert trim(tmp_path / "whole", texts, tmp_path / "trimmed") == 0
    loaded = BertForPreTraining.from_pretrained(tmp_path / "trimmed", dtype="auto")
    assert torch.equal(loaded.bert.pooler.dense.weight, pretrained.bert.pooler.dense.weight)
    assert not (tmp_path / "trimmed" / "pytorch_model.bin").exists()


def test_a_classifier_stays_one(
    tokenizers_of_all_kinds: dict[str, PreTrainedTokenizerFast], texts: Path, sentences: list[str], tmp_path: Path
) -> None:
    encoder = make_teacher("xlm-roberta", tokenizers_of_all_kinds["unigram"], with_head=False)
    config = encoder.model.config
    config.num_labels = 3
    whole = AutoModelForSequenceClassification.from_config(config).eval()
    (tmp_path / "whole").mkdir()
    save_checkpoint(whole, encoder.tokenizer, tmp_path / "whole")
    assert trim(tmp_path / "whole", texts, tmp_path / "trimmed", "--held-out", "0") == 0
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "trimmed")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "trimmed")
    expected = states(whole, encoder.tokenizer, sentences[:12])
    torch.testing.assert_close(states(loaded, tokenizer, sentences[:12]), expected, atol=1e-6, rtol=1e-6)


def test_a_folder_of_sentence_transformers_stays_one(
    tokenizers_of_all_kinds: dict[str, PreTrainedTokenizerFast], texts: Path, sentences: list[str], tmp_path: Path
) -> None:
    library = pytest.importorskip("sentence_transformers")
    models = pytest.importorskip("sentence_transformers.models")
    save_teacher(make_teacher("xlm-roberta", tokenizers_of_all_kinds["unigram"], with_head=False), tmp_path / "encoder")
    encoder = models.Transformer(str(tmp_path / "encoder"))
    pooling = models.Pooling(encoder.get_word_embedding_dimension(), "cls")
    dense = models.Dense(encoder.get_word_embedding_dimension(), 5)
    whole = library.SentenceTransformer(
        modules=[encoder, pooling, dense, models.Normalize()], device="cpu", prompts={"query": "ЮЮ: "}
    )
    whole.save(str(tmp_path / "whole"))
    assert trim(tmp_path / "whole", texts, tmp_path / "trimmed", "--held-out", "0", "--keep-letters") == 0
    loaded = library.SentenceTransformer(str(tmp_path / "trimmed"), device="cpu")
    assert [type(module) for module in loaded] == [type(module) for module in whole]
    assert len(loaded.tokenizer) < len(whole.tokenizer)
    for name in (None, "query"):
        expected_BD, found_BD = (
            torch.from_numpy(made.encode(sentences[:12], prompt_name=name)) for made in (whole, loaded)
        )
        torch.testing.assert_close(found_BD, expected_BD, atol=1e-6, rtol=1e-6)


def test_modules_outside_of_the_folder_are_refused(
    tiny_teacher_folder: Path, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(tiny_teacher_folder, tmp_path / "whole")
    (tmp_path / "mine").mkdir()
    (tmp_path / "whole" / "modules.json").write_text(json.dumps([{"path": ""}, {"path": "../mine"}]))
    assert trim(tmp_path / "whole", texts, tmp_path / "trimmed") == 2
    assert_one_line(capsys, r".*whole: modules\.json names '\.\./mine', which is no folder in it")
    assert not list(tmp_path.glob("*trimmed*"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["--keep-scripts", "Cyrilic"],
            r"--keep-scripts: is no script of Unicode \(did you mean Cyrillic.*\?\), found 'Cyrilic'",
        ),
        (["--keep-letters", "latin"], r"--keep-letters: is no script of Unicode \(did you mean Latin.*, found 'latin'"),
        (["--held-out", "1"], r"--held-out: .* less than 1, found '1'"),
        (["--corpus", "nothing-*.txt"], r".*nothing-\*\.txt.*"),
        (["--corpus", "~no-such-user/x.txt"], r"~no-such-user/x\.txt: there is no such user"),
        (["--minimum-count", "0"], r"--minimum-count: .* greater than or equal to 1, found '0'"),
    ],
)
def test_mistakes_are_one_line(
    options: list[str],
    said: str,
    tiny_teacher_folder: Path,
    texts: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    try:
        status = trim(tiny_teacher_folder, texts, tmp_path / "trimmed", *options)
    except SystemExit as left:
        status = int(left.code or 0)
    assert status == 2
    assert_one_line(capsys, said)
    assert not (tmp_path / "trimmed").exists()


def assert_one_line(capsys: pytest.CaptureFixture[str], said: str) -> None:
    lines = capsys.readouterr().err.splitlines()
    lines = [line for line in lines if not line[:2].isdigit()]  # the log
    assert len(lines) == 1
    assert re.fullmatch(rf"distilrubert(?: trim)?: {said}", lines[0]), lines[0]


def test_a_folder_in_use_is_left_alone(
    tiny_teacher_folder: Path, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "trimmed").mkdir()
    (tmp_path / "trimmed" / "mine.txt").write_text("mine")
    assert trim(tiny_teacher_folder, texts, tmp_path / "trimmed") == 2
    assert_one_line(capsys, r"--output .*trimmed: exists; name a new folder")
    assert [file.name for file in (tmp_path / "trimmed").iterdir()] == ["mine.txt"]


def broken(folder: Path, what: str) -> None:
    state, config = (json.loads((folder / name).read_text()) for name in ("tokenizer.json", "config.json"))
    if what == "ids":
        config["vocab_size"] = 100
    elif what == "rows":
        config["vocab_size"] += 1
    elif what == "pad":
        config["pad_token_id"] = 2
    elif what == "unk":
        state["model"]["unk_id"] = None
    elif what == "slow":
        (folder / "tokenizer.json").rename(folder / "sentencepiece.bpe.model")
    elif what == "type":
        config["model_type"] = "electra"
    (folder / "config.json").write_text(json.dumps(config))
    if what == "unk":
        (folder / "tokenizer.json").write_text(json.dumps(state))


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (
            "ids",
            r".*: the tokenizer yields ids up to \d+, the model's embedding has 100 rows; they .*",
        ),
        ("rows", r".*: its weights have no word embeddings of \d+ rows, as config\.json says"),
        ("pad", r".*: the tokenizer pads with id 1, config\.json says pad_token_id 2, .*"),
        ("unk", r".*/whole: its tokenizer is a Unigram without an unknown token; .* is needed"),
        ("slow", r".*: tokenizer\.json .* missing; a fast tokenizer is needed"),
        ("type", r".*: config\.json says model_type 'electra'; taken are bert, distilbert, .*"),
    ],
)
def test_what_does_not_fit_together_is_told_in_one_line(
    what: str,
    said: str,
    tokenizers_of_all_kinds: dict[str, PreTrainedTokenizerFast],
    texts: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save_teacher(make_teacher("xlm-roberta", tokenizers_of_all_kinds["unigram"]), tmp_path / "whole")
    broken(tmp_path / "whole", what)
    assert trim(tmp_path / "whole", texts, tmp_path / "trimmed") == 2
    assert_one_line(capsys, said)
    assert not list(tmp_path.glob("*trimmed*"))
