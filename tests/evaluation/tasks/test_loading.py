"""Models to measure are whole, or refused in one line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    FunnelConfig,
    FunnelModel,
    GPT2Config,
    PretrainedConfig,
    T5Config,
    XLNetConfig,
)

from distilrubert.common.errors import UserError
from distilrubert.common.training.padding import WIDTH_STEP
from distilrubert.evaluation.tasks.kinds import KINDS
from distilrubert.evaluation.tasks.loading import load_encoder, load_to_predict, longest_input
from distilrubert.modeling.teacher import Teacher

from ...random_teachers import make_teacher

WHAT = "a model to fine-tune"


@pytest.fixture
def copied(student_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(student_folder, tmp_path / "student")


def drop(folder: Path, part: str) -> None:
    weights = {name: tensor for name, tensor in load_file(folder / "model.safetensors").items() if part not in name}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def test_only_a_head_may_be_new(copied: Path, teacher_folder: Path) -> None:
    *_, new = load_encoder(AutoModelForSequenceClassification, copied, WHAT)
    assert new == ["pre_classifier.weight", "pre_classifier.bias", "classifier.weight", "classifier.bias"]
    # A BERT that was trained without next sentences has no pooler either.
    *_, new = load_encoder(AutoModelForSequenceClassification, teacher_folder, WHAT)
    assert new == [f"{layer}.{kind}" for layer in ("bert.pooler.dense", "classifier") for kind in ("weight", "bias")]
    assert load_encoder(AutoModel, copied, "an encoder")[2] == []
    drop(copied, "layer.1.")
    for model_class in (AutoModelForSequenceClassification, AutoModel):
        with pytest.raises(
            UserError, match=r"weights are missing: .*layer\.1\.attention\.q_lin\.weight.* and 10 more$"
        ):
            load_encoder(model_class, copied, WHAT)


def test_predictions_need_a_trained_head(copied: Path) -> None:
    model, tokenizer = load_to_predict(copied)
    assert not model.training
    assert tokenizer.mask_token_id is not None
    drop(copied, "vocab_")
    with pytest.raises(UserError, match="no trained masked-language head"):
        load_to_predict(copied)


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def without_padding(folder: Path) -> None:
    # A class of its own would have its usual piece; transformers 5 has no special_tokens_map.json.
    for path in (folder / "tokenizer_config.json", folder / "special_tokens_map.json"):
        if path.exists():
            values = json.loads(path.read_text())
            values.pop("pad_token", None)
            path.write_text(json.dumps(values | {"tokenizer_class": "PreTrainedTokenizerFast"}))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: halve(folder / "model.safetensors"), "Error while deserializing"),
        (lambda folder: halve(folder / "tokenizer.json"), ""),
        (lambda folder: halve(folder / "config.json"), "config"),
        (without_padding, "its tokenizer has no padding token"),
    ],
)
def test_what_is_damaged_is_told(copied: Path, damage: Callable[[Path], None], said: str) -> None:
    damage(copied)
    with pytest.raises(UserError, match=f"student: cannot be loaded as {WHAT}: .*{said}"):
        load_encoder(AutoModelForSequenceClassification, copied, WHAT)


def test_a_text_is_cut_where_model_and_tokenizer_end(student_folder: Path) -> None:
    model, tokenizer, _ = load_encoder(AutoModel, student_folder, "an encoder")
    positions = model.config.max_position_embeddings
    assert longest_input(model, tokenizer, positions - 1) == positions - 1
    assert longest_input(model, tokenizer, positions + 1) == positions
    tokenizer.model_max_length = positions - 2
    assert longest_input(model, tokenizer, positions) == positions - 2


def test_padding_of_the_longest_text_needs_no_position_that_is_not_there(tiny_teacher: Teacher) -> None:
    """61 positions, and batches that are padded to a multiple of 8."""
    tokenizer = tiny_teacher.tokenizer
    model = make_teacher("distilbert", tokenizer, max_position_embeddings=61).model
    longest = longest_input(model, tokenizer, 512)
    assert longest == 56
    texts = ["Привет! " * 100, "Да."]
    features = [tokenizer(text, truncation=True, max_length=longest) for text in texts]
    columns = [{name: row[name] for name in ("input_ids", "attention_mask")} for row in features]
    collate = KINDS["sentence-classification"].collator(tokenizer, pad_to_multiple_of=WIDTH_STEP)
    batch = dict(collate(columns))
    assert batch["input_ids"].shape == (2, 56)
    assert model(**batch).logits.isfinite().all()


def test_a_model_without_positions_is_limited_by_its_tokenizer(tiny_teacher: Teacher) -> None:
    """As those whose positions are relative."""
    model = FunnelModel(FunnelConfig(vocab_size=10, block_sizes=[1], d_model=8, n_head=2, d_head=4, d_inner=8))
    assert "max_position_embeddings" not in model.config.to_dict()
    assert longest_input(model, tiny_teacher.tokenizer, 10_000) == tiny_teacher.tokenizer.model_max_length


def other(config: PretrainedConfig, student_folder: Path, folder: Path) -> Path:
    """A model of another family, with the student's tokenizer."""
    AutoModel.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(student_folder).save_pretrained(folder)
    return folder


def test_models_without_a_maximal_length_or_a_padding_id(student_folder: Path, tmp_path: Path) -> None:
    size = load_encoder(AutoModel, student_folder, WHAT)[0].config.vocab_size
    relative = XLNetConfig(vocab_size=size, d_model=8, n_layer=1, n_head=2, d_inner=8)
    model, tokenizer, _ = load_encoder(AutoModel, other(relative, student_folder, tmp_path / "xlnet"), WHAT)
    assert longest_input(model, tokenizer, 64) == min(64, tokenizer.model_max_length)
    unpadded = GPT2Config(vocab_size=size, n_embd=8, n_layer=1, n_head=2, n_positions=16)
    model, tokenizer, _ = load_encoder(AutoModel, other(unpadded, student_folder, tmp_path / "gpt2"), WHAT)
    assert (longest_input(model, tokenizer, 64), model.config.pad_token_id) == (16, tokenizer.pad_token_id)
    both = T5Config(vocab_size=size, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    with pytest.raises(UserError, match="its t5 has a decoder; an encoder alone is needed"):
        load_encoder(AutoModel, other(both, student_folder, tmp_path / "t5"), WHAT)
