"""The checks before publishing: a sound folder passes, and each kind of damage is found and named."""

import json
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from distilrubert.common.errors import UserError
from distilrubert.pipeline.cli import main
from distilrubert.pipeline.hub.check_card import _front_matter_problems
from distilrubert.pipeline.hub.check_files import find_absolute_paths, find_secrets
from distilrubert.pipeline.hub.preflight import preflight

from .conftest import CARD


def found(folder: Path) -> str:
    return "\n".join(map(str, preflight(folder)))


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)) + chunk(b"IEND", b"")


def test_a_sound_folder_passes(folder: Path) -> None:
    (folder / "assets").mkdir()
    (folder / "assets" / "speed plot.png").write_bytes(png())
    text = CARD + (
        "![speed](assets/speed%20plot.png) [the reports](reports) [home](https://example.org/model.onnx)\n"
        "`model.safetensors`, see [below](#files) and <a href='config.json'>the configuration</a>\n"
        "    open('~/data/x.json'); https://example.org/home/user/file\n"
    )
    (folder / "README.md").write_text(text)
    (folder / "modules.json").write_text('[{"path": ""}, {"path": "1_Pooling"}]')
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"word_embedding_dimension": 16}')
    assert found(folder) == ""


def test_everything_is_found_at_once(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    (folder / "README.md").unlink()
    (folder / "weights.pkl").write_bytes(pickle.dumps([1]))
    paths = [problem.subject for problem in preflight(folder)]
    assert {"README.md", "config.json", "weights.pkl"} <= set(paths)
    assert paths == sorted(paths)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.pt", b"x", "a.pt: can run code when it is loaded"),
        ("pytorch_model-00001.bin", b"x", "pytorch_model-00001.bin: can run code"),
        ("innocent.dat", pickle.dumps({"a": 1}), "innocent.dat: is a pickle"),
        ("empty.txt", b"", "empty.txt: is empty"),
        (".env", b"x=1", ".env: looks like a leftover"),
        ("model.onnx.tmp", b"x", "model.onnx.tmp: looks like a leftover"),
        ("notes.txt", "привет".encode("cp1251"), "notes.txt: is not UTF-8"),
        ("broken.json", b'{"a": NaN}', "broken.json: is not JSON: NaN is not allowed"),
        ("plot.png", png()[:-4], "plot.png: is not a complete PNG"),
        ("openvino/model.xml", b"<net/>", "openvino/model.xml: needs openvino/model.bin, which is missing"),
        ("modules.json", b'[{"path": "1_Pooling"}]', "modules.json: names the module 1_Pooling"),
        ("x.safetensors", b"\xff" * 20, "x.safetensors: cannot be opened"),
        ("reports/train.json", b'{"corpus": "/home/me/corpus/a.txt"}', "contains the path /home/me"),
        ("reports/train.json", b'{"token": "hf_' + b"a" * 34 + b'"}', "contains a Hugging Face token in line 1"),
    ],
)
def test_files_that_must_not_be_published(folder: Path, name: str, content: bytes, words: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)
    assert words in found(folder)


def test_a_torch_archive_under_another_name(folder: Path) -> None:
    torch.save({"a": torch.ones(1)}, folder / "weights.data")
    assert "weights.data: is a pickle" in found(folder)


def test_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("x")
    (folder / "link.txt").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "figures").mkdir()
    (folder / "assets").symlink_to(tmp_path / "figures")
    assert "link.txt: is a link" in found(folder)
    assert "assets: is a link" in found(folder)


def test_a_name_cannot_control_the_terminal(folder: Path) -> None:
    (folder / "a\x1b[2J.txt").write_text("x")
    assert r"a\x1b[2J.txt: has a name that some systems refuse" in found(folder)


def test_the_token_in_use_is_found_and_not_repeated(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "canary-of-no-known-form")
    (folder / "reports" / "log.txt").write_text("first\nheader: canary-of-no-known-form\n")
    text = found(folder)
    assert "reports/log.txt: contains the token that is in use in line 2" in text
    assert "canary" not in text


def test_what_is_and_what_is_no_secret() -> None:
    secrets = ["ghp_" + "a" * 36, "AKIA" + "A" * 16, "sk-" + "a1" * 20, "-----BEGIN RSA PRIVATE KEY-----"]
    assert all(list(find_secrets("x", f"before {secret} after")) for secret in secrets)
    harmless = ["hf_hub_download", "task-specific-and-very-long-hyphenated-words", "hf_model", "a" * 64]
    assert not any(list(find_secrets("x", text)) for text in harmless)


def test_what_is_and_what_is_no_absolute_path() -> None:
    absolute = ['"/home/me/x"', "=/tmp/run", r"C:\Users\me", "file:///mnt/data/x", "(/work/main)"]
    assert all(list(find_absolute_paths("x", text)) for text in absolute)
    harmless = ["https://host/home/me", "runs/data/x", "and/or", "</data>", "~/data/x", "${DATA}/data/x", "а/data/b"]
    assert not any(list(find_absolute_paths("x", text)) for text in harmless)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("![speed](assets/speed.png)", "README.md: links to assets/speed.png, which is missing"),
        ("<img src='plot.svg'>", "README.md: links to plot.svg, which is missing"),
        ('file_name="model_quantized.onnx"', "README.md: names model_quantized.onnx, which is missing"),
        ("`openvino/openvino_model.xml`", "README.md: names openvino/openvino_model.xml, which is missing"),
    ],
)
def test_a_card_that_names_what_is_not_there(folder: Path, line: str, words: str) -> None:
    with (folder / "README.md").open("a") as card:
        card.write(line)
    assert found(folder) == words


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"license": "Apache 2.0"}, "license: 'Apache 2.0' is not an identifier"),
        ({"license": ["mit", "apache-2.0"]}, "license: ['mit', 'apache-2.0'] is not an identifier"),
        ({"license": None}, "license: is missing"),
        ({"license": "other"}, "license: other needs license_name"),
        ({"language": ["ru", False]}, "language: False is not an ISO 639 code"),
        ({"language": "russian"}, "language: 'russian' is not an ISO 639 code"),
        ({"pipeline_tag": ["fill-mask"]}, "pipeline_tag: is missing, or not a word"),
        ({"library_name": None}, "library_name: is missing, or not a word"),
        ({"base_model": "/runs/teacher"}, "base_model: '/runs/teacher' is not an id of the Hub"),
        ({"datasets": ["a b"]}, "datasets: 'a b' is not an id"),
        ({"base_model_relation": "distilled"}, "base_model_relation: 'distilled' is not one of"),
        ({"tags": ["a", 1]}, "tags: must be a list of words"),
        ({"model-index": [{"name": "x"}]}, "model-index: the Hub cannot read it"),
        ({"model-index": [{"name": "x", "results": [{"task": {"type": "t"}, "dataset": {"type": "d", "name": "d"},
          "metrics": [{"type": "accuracy", "value": "high"}]}]}]}, "model-index: the value of accuracy is 'high'"),
    ],
)  # fmt: skip
def test_front_matter_that_the_hub_would_refuse(change: dict[str, object], words: str) -> None:
    sound = {"language": "ru", "license": "mit", "library_name": "transformers", "pipeline_tag": "fill-mask"}
    assert list(_front_matter_problems(sound)) == []
    problems = list(
        _front_matter_problems({key: value for key, value in (sound | change).items() if value is not None})
    )
    assert len(problems) == 1
    assert words in problems[0]


@pytest.mark.parametrize(
    "text",
    ["# no front matter", "---\na: [\n---\n", "---\n- a\n---\n", "---\nlicense: mit\n", "---\na: 2020-13-45\n---\n"],
)
def test_cards_without_readable_front_matter(folder: Path, text: str) -> None:
    (folder / "README.md").write_text(text)
    assert "README.md: " in found(folder)


def test_weights_that_are_not_finite(folder: Path) -> None:
    name = "distilbert.embeddings.LayerNorm.bias"
    edit_weights(folder, lambda weights: weights[name].fill_(float("nan")))
    assert f"model.safetensors: {name} holds NaN or infinity" in found(folder)


def test_weights_of_another_type(folder: Path) -> None:
    edit_weights(folder, lambda weights: weights.update({key: value.half() for key, value in weights.items()}))
    assert "model.safetensors: has F16 weights, but config.json states float32" in found(folder)


def test_weights_that_lack_a_tensor(folder: Path) -> None:
    name = "distilbert.transformer.layer.1.ffn.lin1.bias"
    edit_weights(folder, lambda weights: weights.pop(name))
    assert f"model.safetensors: {name}: missing from the weights" in found(folder)


def test_truncated_weights(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:-10])
    (line,) = found(folder).splitlines()
    assert line.startswith("model.safetensors: cannot be opened")


def test_a_vocabulary_of_another_size(folder: Path) -> None:
    edit_json(folder / "config.json", vocab_size=13)
    text = found(folder)
    assert "model.safetensors: has 12 word embeddings, but config.json states a vocab_size of 13" in text
    assert "tokenizer.json: has 12 tokens, but config.json states a vocab_size of 13" in text


def test_a_tokenizer_that_does_not_go_with_the_model(folder: Path) -> None:
    edit_json(folder / "config.json", pad_token_id=3)
    edit_json(
        folder / "tokenizer_config.json",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        model_max_length=512,
    )
    (folder / "vocab.txt").write_text("[PAD]\n[CLS]\n")
    text = found(folder)
    assert "pads with 0, but config.json states a pad_token_id of 3" in text
    assert "gives input_ids, token_type_ids, attention_mask; the model takes input_ids, attention_mask" in text
    assert "allows 512 tokens, but the model takes 32" in text
    assert "vocab.txt: is not the vocabulary of tokenizer.json" in text


def test_a_tokenizer_that_states_no_longest_input(folder: Path) -> None:
    edit_json(folder / "tokenizer_config.json", model_max_length=None)
    assert "tokenizer_config.json: states no model_max_length, but the model takes 32" in found(folder)


def test_the_command_names_the_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "vocab.txt").write_text("[PAD]\n[CLS]\n")
    assert main(["push", str(folder), "--repo-id", "me/demo", "--no-push"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"{folder}: cannot be published, 1 problem:",
        "vocab.txt: is not the vocabulary of tokenizer.json",
    ]


def test_a_broken_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    assert "tokenizer.json: cannot be loaded" in found(folder)


def test_remote_code_is_not_asked_for(folder: Path) -> None:
    edit_json(folder / "config.json", auto_map={"AutoModel": "modeling.Evil"})
    assert "config.json: auto_map asks for trust_remote_code" in found(folder)


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(CARD)
    assert found(tmp_path) == "config.json: is missing; the folder holds no model"
    with pytest.raises(UserError, match="is not a folder"):
        preflight(tmp_path / "none")


@pytest.mark.export
@pytest.mark.parametrize(
    ("inputs", "value", "words"),
    [
        (["attention_mask", "input_ids"], 1.0, ""),
        (["input_ids"], 1.0, "takes input_ids, but the tokenizer gives input_ids, attention_mask"),
        (["input_ids", "attention_mask"], float("inf"), "onnx/model.onnx: bias holds NaN or infinity"),
    ],
)
def test_onnx(folder: Path, inputs: list[str], value: float, words: str) -> None:
    write_onnx(folder / "onnx" / "model.onnx", inputs, value)
    text = found(folder)
    assert (words in text) if words else (text == "")


@pytest.mark.export
def test_onnx_that_cannot_be_read(folder: Path) -> None:
    write_onnx(folder / "onnx" / "model.onnx", ["input_ids", "attention_mask"], 1.0)
    path = folder / "onnx" / "model.onnx"
    path.write_bytes(path.read_bytes()[:-30])
    assert "onnx/model.onnx: cannot be opened" in found(folder)


def write_onnx(path: Path, inputs: list[str], value: float) -> None:
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper, save

    nodes = [
        helper.make_node("Cast", [inputs[0]], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["cast", "bias"], ["last_hidden_state"]),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"]) for name in inputs]
    output = helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["batch", "length"])
    bias = numpy_helper.from_array(np.array([value], np.float32), "bias")
    graph = helper.make_graph(nodes, "tiny", values, [output], [bias])
    path.parent.mkdir()
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)


@pytest.mark.export
def test_openvino(folder: Path) -> None:
    openvino = pytest.importorskip("openvino")
    import numpy as np
    from openvino import opset13 as ops

    ids, mask = (ops.parameter([-1, -1], np.int64, name=name) for name in ("input_ids", "attention_mask"))
    for node, name in ((ids, "input_ids"), (mask, "attention_mask")):
        node.output(0).set_names({name})
    result = ops.add(ops.convert(ops.add(ids, mask), "f32"), ops.constant(np.array([1.0], np.float32)))
    (folder / "openvino").mkdir()
    openvino.save_model(openvino.Model([result], [ids, mask]), folder / "openvino" / "openvino_model.xml", False)
    assert found(folder) == ""
    weights = folder / "openvino" / "openvino_model.bin"
    weights.write_bytes(np.array([np.nan], np.float32).tobytes())
    assert "holds NaN or infinity" in found(folder)
    (folder / "openvino" / "openvino_model.xml").write_text("<net")
    assert "openvino/openvino_model.xml: cannot be opened" in found(folder)
