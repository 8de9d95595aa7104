import contextlib
import json
import logging
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import BertForPreTraining, BertForSequenceClassification, BertModel

from distilrubert.common.errors import UserError
from distilrubert.modeling.teacher import Teacher, load_teacher, new_teacher, save_teacher

Weights = dict[str, Tensor]
Variant = Callable[..., Path]


@pytest.fixture
def variant(tiny_teacher_folder: Path, tmp_path: Path) -> Variant:
    """A copy of the tiny teacher with other weights, config values or files."""

    def make(
        change: Callable[[Weights], Weights] = lambda weights: weights,
        config: dict[str, Any] | None = None,
        without: tuple[str, ...] = (),
    ) -> Path:
        folder = tmp_path / "variant"
        shutil.copytree(tiny_teacher_folder, folder, dirs_exist_ok=True)
        weights = {name: weight.clone() for name, weight in load_file(folder / "model.safetensors").items()}
        save_file(change(weights), folder / "model.safetensors", metadata={"format": "pt"})
        values = json.loads((folder / "config.json").read_text()) | (config or {})
        (folder / "config.json").write_text(json.dumps(values))
        for name in without:
            (folder / name).unlink()
        return folder

    return make


def same_weights(teacher: Teacher, expected: Teacher) -> bool:
    found = teacher.model.state_dict()
    return all(torch.equal(found[name], weight) for name, weight in expected.model.state_dict().items())


def test_loading_gives_what_was_saved(tiny_teacher: Teacher, tiny_teacher_folder: Path, sentences: list[str]) -> None:
    teacher = load_teacher(tiny_teacher_folder)
    assert same_weights(teacher, tiny_teacher)
    assert not teacher.model.training
    assert not any(parameter.requires_grad for parameter in teacher.model.parameters())
    assert teacher.tokenizer(sentences)["input_ids"] == tiny_teacher.tokenizer(sentences)["input_ids"]
    assert teacher.name == str(tiny_teacher_folder)


def test_half_precision_is_loaded_in_full(tiny_teacher: Teacher, variant: Variant) -> None:
    folder = variant(lambda weights: {name: weight.half() for name, weight in weights.items()}, {"dtype": "float16"})
    model = load_teacher(folder).model
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    expected = tiny_teacher.model.bert.embeddings.word_embeddings.weight.half().float()
    assert torch.equal(model.bert.embeddings.word_embeddings.weight, expected)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_named(variant: Variant, value: float) -> None:
    name = "bert.encoder.layer.1.attention.self.key.weight"

    def spoil(weights: Weights) -> Weights:
        weights[name][0, :3] = value
        return weights

    with pytest.raises(UserError, match=rf"variant: 3 of \d+ values of {name} are infinite or NaN"):
        load_teacher(variant(spoil))


def rename(old: str, new: str) -> Callable[[Weights], Weights]:
    return lambda weights: {name.replace(old, new): weight for name, weight in weights.items()}


def drop(*parts: str) -> Callable[[Weights], Weights]:
    return lambda weights: {name: weight for name, weight in weights.items() if not any(part in name for part in parts)}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(rename("cls.predictions.bias", "cls.predictions.decoder.bias"), id="bias under the decoder only"),
        pytest.param(
            lambda w: {**w, "cls.predictions.decoder.bias": w["cls.predictions.bias"].clone()}, id="bias twice"
        ),
        pytest.param(
            lambda w: {**w, "cls.predictions.decoder.weight": w["bert.embeddings.word_embeddings.weight"].clone()},
            id="decoder written out",
        ),
        pytest.param(
            lambda w: {**w, "cls.predictions.decoder.weight": w["bert.embeddings.word_embeddings.weight"] + 1},
            id="decoder written out, stale",
        ),
        pytest.param(
            lambda w: {
                name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): weight
                for name, weight in w.items()
            },
            id="gamma and beta",
        ),
        pytest.param(
            lambda w: {
                **w,
                "bert.pooler.dense.weight": torch.zeros(32, 32),
                "bert.pooler.dense.bias": torch.zeros(32),
                "cls.seq_relationship.weight": torch.zeros(2, 32),
                "cls.seq_relationship.bias": torch.zeros(2),
                "bert.embeddings.position_ids": torch.arange(64)[None],
            },
            id="pooler, next sentence and position ids left over",
        ),
    ],
)
def test_the_ways_checkpoints_were_written(
    tiny_teacher: Teacher, variant: Variant, change: Callable[[Weights], Weights]
) -> None:
    teacher = load_teacher(variant(change))
    assert same_weights(teacher, tiny_teacher)
    predictions = teacher.model.cls.predictions
    assert predictions.decoder.weight is teacher.model.bert.embeddings.word_embeddings.weight


def test_a_checkpoint_with_both_heads(tiny_teacher: Teacher, tiny_teacher_folder: Path, variant: Variant) -> None:
    both = BertForPreTraining.from_pretrained(tiny_teacher_folder)
    folder = variant()
    both.save_pretrained(folder)
    assert same_weights(load_teacher(folder), tiny_teacher)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (drop("cls."), r"no trained masked-language head, missing .*cls\.predictions\.transform"),
        (drop("cls.predictions.bias"), r"no trained masked-language head, missing cls\.predictions\.bias"),
        (drop("transform.LayerNorm.weight"), r"head, missing cls\.predictions\.transform\.LayerNorm\.weight"),
        (drop("word_embeddings"), r"weights are missing .*bert\.embeddings\.word_embeddings\.weight"),
        (drop("layer.3."), r"weights are missing .*bert\.encoder\.layer\.3\..* and 10 more"),
    ],
)
def test_missing_weights_are_named(variant: Variant, change: Callable[[Weights], Weights], named: str) -> None:
    with pytest.raises(UserError, match=named):
        load_teacher(variant(change))


def test_a_bare_encoder_is_a_teacher(tiny_teacher: Teacher, tiny_teacher_folder: Path, variant: Variant) -> None:
    folder = variant()
    BertModel.from_pretrained(tiny_teacher_folder).save_pretrained(folder)
    encoder = load_teacher(folder).model
    assert isinstance(encoder, BertModel)
    expected = tiny_teacher.model.bert.state_dict()
    assert encoder.state_dict().keys() == expected.keys()
    assert all(torch.equal(weight, expected[name]) for name, weight in encoder.state_dict().items())


@pytest.mark.parametrize(
    ("kind", "path", "named"),
    [
        ("Dense", "2_Dense", "modules.json has a module Dense; allowed: Transformer, Pooling, Normalize"),
        ("Transformer", "0_Transformer", "says that the encoder lies in '0_Transformer'"),
    ],
)
def test_folders_of_sentence_transformers(variant: Variant, kind: str, path: str, named: str) -> None:
    folder = variant()
    package = "sentence_transformers.models."
    modules = [{"type": f"{package}Transformer", "path": ""}, {"type": f"{package}Pooling", "path": "1_Pooling"}]
    (folder / "modules.json").write_text(json.dumps(modules))
    load_teacher(folder)
    (folder / "modules.json").write_text(json.dumps([*modules, {"type": f"{package}{kind}", "path": path}]))
    with pytest.raises(UserError, match=named):
        load_teacher(folder)


def test_a_classifier_is_no_teacher(tiny_teacher_folder: Path, variant: Variant) -> None:
    folder = variant()
    BertForSequenceClassification.from_pretrained(tiny_teacher_folder).save_pretrained(folder)
    with pytest.raises(UserError, match="no trained masked-language head"):
        load_teacher(folder)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (
            {"model_type": "electra"},
            "model_type 'electra'; taken are bert, distilbert, roberta, xlm-roberta, camembert, m",
        ),
        ({"model_type": None}, "model_type None; taken are bert"),
        ({"model_type": ["bert"]}, r"model_type \['bert'\]; taken are bert"),
        ({"auto_map": {"AutoModel": "own.Own"}}, r"asks for code of its own \(auto_map\)"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type 'relative_key'.*'absolute'"),
        ({"is_decoder": True}, "is_decoder True"),
        ({"hidden_act": "softplusplus"}, "hidden_act 'softplusplus'"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings False"),
        ({"vocab_size": 230}, r"of another shape: bert\.embeddings\.word_embeddings\.weight"),
        ({"num_attention_heads": 5}, "the weights cannot be read"),
    ],
)
def test_configs_that_no_student_can_follow(variant: Variant, config: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named) as caught:
        load_teacher(variant(config=config))
    assert "variant: " in str(caught.value)


def test_another_activation_is_carried(variant: Variant) -> None:
    assert load_teacher(variant(config={"hidden_act": "relu"})).model.config.hidden_act == "relu"


def test_another_epsilon_is_warned_of(variant: Variant, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="distilrubert"):
        load_teacher(variant(config={"layer_norm_eps": 1e-5}))
    assert "layer_norm_eps is 1e-05" in caplog.text


def test_the_usual_epsilon_is_not(tiny_teacher_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        load_teacher(tiny_teacher_folder)
    assert caplog.text == ""


def test_positions_limit_the_tokenizer(variant: Variant) -> None:
    folder = variant()
    config = json.loads((folder / "tokenizer_config.json").read_text())
    del config["model_max_length"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    assert load_teacher(folder).tokenizer.model_max_length == 64


@pytest.mark.parametrize(
    ("without", "named"),
    [
        (("config.json",), r"config\.json is missing"),
        (("model.safetensors",), "the weights cannot be read"),
        (("tokenizer.json", "vocab.txt"), r"tokenizer\.json and vocab\.txt are missing"),
    ],
)
def test_missing_files_are_named(variant: Variant, without: tuple[str, ...], named: str) -> None:
    with pytest.raises(UserError, match=named):
        load_teacher(variant(without=without))


def test_a_piece_to_hide_words_with_is_not_made_up(variant: Variant) -> None:
    """transformers would put it behind the others: in a row that belongs to nothing, where there are rows to spare."""
    folder = variant(without=("tokenizer.json",))
    vocabulary = (folder / "vocab.txt").read_text(encoding="utf-8")
    (folder / "vocab.txt").write_text(vocabulary.replace("[MASK]\n", "[unused]\n"), encoding="utf-8")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    # In transformers 5 there is none.
    config.pop("added_tokens_decoder", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"vocab\.txt has no \[MASK\]$"):
        load_teacher(folder)


def test_a_vocabulary_alone_makes_a_fast_tokenizer(
    tiny_teacher: Teacher, variant: Variant, sentences: list[str]
) -> None:
    teacher = load_teacher(variant(without=("tokenizer.json",)))
    assert teacher.tokenizer.is_fast
    assert teacher.tokenizer(sentences)["input_ids"] == tiny_teacher.tokenizer(sentences)["input_ids"]


def test_a_tokenizer_of_another_model_is_refused(variant: Variant) -> None:
    def shrink(weights: Weights) -> Weights:
        return {name: weight[:150].clone() if weight.shape[0] == 220 else weight for name, weight in weights.items()}

    with pytest.raises(UserError, match="ids up to 219, the model's embedding has 150 rows"):
        load_teacher(variant(shrink, {"vocab_size": 150}))


def test_a_tokenizer_without_a_mask_is_refused(variant: Variant) -> None:
    folder = variant()
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    del config["mask_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    special = json.loads((folder / "special_tokens_map.json").read_text())
    del special["mask_token"]
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    with pytest.raises(UserError, match="has no mask_token"):
        load_teacher(folder)


@pytest.mark.parametrize("content", [b"", b"not weights at all", b'\x08\x00\x00\x00\x00\x00\x00\x00{"a": 1}'])
def test_damaged_weights_are_one_line(variant: Variant, content: bytes) -> None:
    folder = variant()
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="variant: the weights cannot be read"):
        load_teacher(folder)


def test_pickled_weights_are_read(tiny_teacher: Teacher, variant: Variant) -> None:
    folder = variant()
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert same_weights(load_teacher(folder), tiny_teacher)


class Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (self.target, "owned"))


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_pickled_code_is_not_run(variant: Variant, tmp_path: Path, writer: str) -> None:
    folder = variant(without=("model.safetensors",))
    harmful = {"bert.embeddings.word_embeddings.weight": Malicious(tmp_path / "owned")}
    if writer == "torch":
        torch.save(harmful, folder / "pytorch_model.bin")
    else:
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(harmful, protocol=2))
    with pytest.raises(UserError, match="the weights cannot be read"):
        load_teacher(folder)
    assert not (tmp_path / "owned").exists()


def test_code_of_a_tokenizer_is_not_run_and_nobody_is_asked_to(
    variant: Variant, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = variant(without=("vocab.txt",))
    (folder / "own.py").write_text("raise SystemExit('was run')")
    path = folder / "tokenizer_config.json"
    own = {"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": ["own.OwnTokenizer", "own.OwnTokenizer"]}}
    path.write_text(json.dumps(json.loads(path.read_text()) | own))
    asked: list[str] = []
    monkeypatch.setattr("builtins.input", lambda question="": asked.append(question) or "y")
    # transformers 5 takes tokenizer.json without the class.
    with contextlib.suppress(UserError):
        load_teacher(folder)
    assert not asked


def test_saving_again_gives_the_same_bytes(tiny_teacher_folder: Path, tmp_path: Path) -> None:
    save_teacher(load_teacher(tiny_teacher_folder), tmp_path / "again")
    files = {file.name for file in tiny_teacher_folder.iterdir()}
    assert files == {file.name for file in (tmp_path / "again").iterdir()}
    for name in files:
        assert (tmp_path / "again" / name).read_bytes() == (tiny_teacher_folder / name).read_bytes(), name


def test_a_new_teacher_has_the_shape_asked_for(tiny_teacher: Teacher) -> None:
    teacher = new_teacher(tiny_teacher.tokenizer, layers=2, dim=24, heads=3, hidden_dim=40, seed=1)
    config = teacher.model.config
    assert (config.num_hidden_layers, config.hidden_size, config.num_attention_heads) == (2, 24, 3)
    assert (config.intermediate_size, config.vocab_size, config.max_position_embeddings) == (40, 220, 64)
    assert all(parameter.requires_grad for parameter in teacher.model.parameters())


def test_a_new_teacher_is_a_function_of_its_seed(tiny_teacher: Teacher) -> None:
    def make(seed: int) -> Teacher:
        return new_teacher(tiny_teacher.tokenizer, layers=1, dim=8, heads=2, hidden_dim=8, seed=seed)

    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    first = make(1)
    assert torch.equal(torch.rand(4), expected)
    assert same_weights(first, make(1))
    assert not same_weights(first, make(2))


def test_heads_must_divide_the_width(tiny_teacher: Teacher) -> None:
    with pytest.raises(UserError, match=r"teacher\.pretrain\.heads: 5 heads do not divide the width 24"):
        new_teacher(tiny_teacher.tokenizer, layers=1, dim=24, heads=5, hidden_dim=8, seed=1)


@pytest.mark.data
def test_the_reference_teacher(data_folder: Path) -> None:
    teacher = load_teacher(data_folder / "teacher")
    assert teacher.model.dtype == torch.float32
    assert teacher.model.num_parameters() == 33_190_320
    inputs = teacher.tokenizer("Мама мыла [MASK].", return_tensors="pt")
    with torch.no_grad():
        logits = teacher.model(**inputs).logits
    assert torch.isfinite(logits).all()
