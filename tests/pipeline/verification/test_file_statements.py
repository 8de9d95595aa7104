"""Files that are not what their report says are found out."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from distilrubert.common.errors import UserError
from distilrubert.common.formats import SHARED_FILES
from distilrubert.common.measurements import Measurements
from distilrubert.conversion.conversion_settings import ConversionSettings
from distilrubert.conversion.model_folder import convert
from distilrubert.conversion.parity import default_sentences
from distilrubert.pipeline.verification.file_statements import check_files

SOME = default_sentences()[:6]
BOUNDED = ("token_cosine", "token_cosine_p1", "pooled_cosine", "top1_agreement")

pytestmark = pytest.mark.export


@pytest.fixture(scope="module")
def made(tiny_student_folder, sentences, tmp_path_factory) -> tuple[Path, Measurements]:
    folder = tmp_path_factory.mktemp("statements") / "hub"
    return folder, convert(tiny_student_folder, folder, ConversionSettings(onnx=["fp32", "int8"]), sentences, sentences)


@pytest.fixture
def hub(made, tmp_path) -> Path:
    return Path(shutil.copytree(made[0], tmp_path / "hub"))


def wrong(hub: Path, report: Measurements) -> set[tuple[str, str]]:
    return {
        (found.subject, found.quantity) for found in check_files(hub, report, SOME) if found.verdict == "does not hold"
    }


def test_files_as_they_were_made_hold(hub, made):
    statements = list(check_files(hub, made[1], SOME))
    assert {found.verdict for found in statements} == {"holds"}
    others = {"config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"}
    assert {found.subject for found in statements} > others
    assert {found.subject for found in statements} - set(SHARED_FILES) == {
        "model.safetensors", "onnx/model.onnx", "onnx/model_quantized.onnx",
    }  # fmt: skip
    of_int8 = {found.quantity: found.stated for found in statements if found.subject == "onnx/model_quantized.onnx"}
    assert of_int8.keys() == {"size_mib", "sha256", *BOUNDED}
    assert of_int8["token_cosine"] == "≥ 0.98"


def test_another_tokenizer_and_a_lost_file_are_told(hub, made):
    """With pieces in another order the weights are as they were, and every text is another one to them."""
    tokenizer = json.loads((hub / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    first, second = [piece for piece in vocabulary if not piece.startswith("[")][:2]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (hub / "tokenizer.json").write_text(json.dumps(tokenizer))
    (hub / "vocab.txt").unlink()
    assert wrong(hub, made[1]) == {("tokenizer.json", "sha256"), ("vocab.txt", "sha256")}


def test_a_report_that_speaks_of_paths_outside_is_not_followed(hub, made):
    (hub.parent / "secret").write_text("text")
    report = dataclasses.replace(made[1], details=made[1].details | {"sha256": {"../secret": "0"}})
    assert not wrong(hub, report)


def change_weights(hub: Path) -> None:
    weights = load_file(hub / "model.safetensors")
    generator = torch.Generator().manual_seed(0)
    name = "distilbert.transformer.layer.1.ffn.lin1.weight"
    weights[name] = torch.randn(weights[name].shape, generator=generator)
    save_file(weights, hub / "model.safetensors", metadata={"format": "pt"})


def test_other_weights_fail_the_checksum_and_agree_with_no_export(hub, made):
    change_weights(hub)
    found = wrong(hub, made[1])
    assert {("model.safetensors", "sha256"), ("onnx/model.onnx", "maximal_difference")} <= found
    assert ("model.safetensors", "maximal_difference") not in found


def test_a_damaged_a_lost_and_a_swapped_file(hub, made):
    graph = hub / "onnx/model.onnx"
    graph.write_bytes(graph.read_bytes()[:1000])
    found = wrong(hub, made[1])
    assert found == {(f"onnx/{graph.name}", figure) for figure in ("size_mib", "sha256", "agreement")}
    shutil.copy(hub / "onnx/model_quantized.onnx", graph)
    assert ("onnx/model.onnx", "maximal_difference") in wrong(hub, made[1])
    graph.unlink()
    assert wrong(hub, made[1]) == {("onnx/model.onnx", "file")}


def test_the_tolerance_is_the_stated_one(hub, made):
    strict = {name: dict(values) for name, values in made[1].details["tolerance"].items()}
    strict["int8"]["token_cosine"] = 1.0
    report = dataclasses.replace(made[1], details=made[1].details | {"tolerance": strict})
    assert wrong(hub, report) == {("onnx/model_quantized.onnx", "token_cosine")}
    strict["int8"]["token_cosine"] = 7
    with pytest.raises(UserError, match=r"parity\.json: details\.tolerance\.int8\.token_cosine"):
        wrong(hub, report)


def test_a_report_cannot_widen_its_own_tolerances(hub, made):
    loose = {"int8": {"token_cosine": -1.0, "pooled_cosine": -1.0}}
    report = dataclasses.replace(made[1], details=made[1].details | {"tolerance": loose})
    assert not [found for found in check_files(hub, report, SOME) if found.verdict == "not checked"]
    change_weights(hub)
    unsure = [found for found in check_files(hub, report, SOME) if found.verdict == "not checked"]
    assert {(found.quantity, found.stated) for found in unsure} == {
        ("token_cosine", "≥ -1"),
        ("pooled_cosine", "≥ -1"),
    }
    assert unsure[0].reason == "within what the report allows, but not within the default ≥ 0.98"


def test_a_report_cannot_leave_a_tolerance_out(hub, made):
    silent = {"int8": {"token_cosine_p1": None}}
    report = dataclasses.replace(made[1], details=made[1].details | {"tolerance": silent})
    change_weights(hub)
    found = {each.subject: each for each in check_files(hub, report, SOME) if each.quantity == "token_cosine_p1"}
    assert found["onnx/model_quantized.onnx"].verdict == "not checked"


def test_a_file_of_which_the_report_says_nothing_is_measured(hub, made):
    report = dataclasses.replace(made[1], rows=[row for row in made[1].rows if row.case != "onnx-int8"])
    unstated = [found for found in check_files(hub, report, SOME) if found.subject == "onnx/model_quantized.onnx"]
    assert {(found.quantity, found.verdict, found.reason) for found in unstated} == {
        (figure, "holds", "reports/parity.json has no row for it") for figure in BOUNDED
    }
    graph = hub / "onnx/model_quantized.onnx"
    content = graph.read_bytes()
    kept = len(content) // 4
    graph.write_bytes(content[:kept] + bytes(len(content) - 2 * kept) + content[-kept:])
    assert {subject for subject, _ in wrong(hub, report)} == {"onnx/model_quantized.onnx"}


def test_without_a_report_every_model_file_is_listed(hub):
    statements = list(check_files(hub, None, SOME))
    assert {(found.subject, found.verdict) for found in statements} == {
        ("model.safetensors", "not checked"), ("onnx/model.onnx", "not checked"),
        ("onnx/model_quantized.onnx", "not checked"),
    }  # fmt: skip


def test_a_model_file_of_another_format_is_named(hub, made):
    """A second set of weights beside the proved one may be what a user's framework loads."""
    for name in ("pytorch_model.bin", "onnx/model_bnb4.onnx", "openvino/notes.txt"):
        (hub / name).parent.mkdir(exist_ok=True)
        (hub / name).write_bytes(b"anything")
    statements = list(check_files(hub, made[1], SOME))
    strangers = [found.subject for found in statements if found.verdict == "not checked"]
    assert strangers == ["onnx/model_bnb4.onnx", "pytorch_model.bin"]


def test_a_folder_without_files_claims_nothing(tmp_path):
    assert list(check_files(tmp_path, None, SOME)) == []


def test_weights_that_cannot_be_loaded_are_told_once_and_prove_nothing(hub, made):
    (hub / "model.safetensors").write_bytes(b"nonsense")
    assert wrong(hub, made[1]) == {("model.safetensors", value) for value in ("weights", "size_mib", "sha256")}
    (unproved,) = (
        found
        for found in check_files(hub, made[1], SOME)
        if found.subject == "onnx/model.onnx" and found.quantity == "agreement"
    )
    assert unproved.verdict == "not checked"
