import copy
import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

from distilrubert.common.derived import derive
from distilrubert.common.errors import UserError
from distilrubert.common.persistence import sha256_of
from distilrubert.conversion.conversion_settings import ConversionSettings
from distilrubert.conversion.model_folder import convert

SAFETENSORS_ONLY = ConversionSettings(onnx=[])
CHECKPOINT_FILES = {
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "modules.json",
    "1_Pooling/config.json",
    "sentence_bert_config.json",
}
EXPORTED_FILES = {
    "onnx/model.onnx",
    "onnx/model_quantized.onnx",
    "onnx/model_quint8_avx2.onnx",
    "onnx/model_qint8_avx512_vnni.onnx",
    "onnx/model_qint8_arm64.onnx",
    "onnx/masked_lm_quantized.onnx",
    "openvino/openvino_model.xml",
    "openvino/openvino_model.bin",
    "openvino/openvino_model_fp16.xml",
    "openvino/openvino_model_fp16.bin",
    "openvino/openvino_model_qint8_quantized.xml",
    "openvino/openvino_model_qint8_quantized.bin",
}


def files(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in folder.rglob("*") if path.is_file()}


def test_checkpoint_files_load_and_compute_the_same(tiny_student_folder, tiny_student, sentences, tmp_path):
    measurements = derive(convert(tiny_student_folder, tmp_path / "hub", SAFETENSORS_ONLY, sentences))
    assert set(files(tmp_path / "hub")) == CHECKPOINT_FILES
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "hub")
    inputs = tokenizer(sentences[:5], padding=True, return_tensors="pt")
    with torch.no_grad():
        logits_BLV = AutoModelForMaskedLM.from_pretrained(tmp_path / "hub")(**inputs).logits
        torch.testing.assert_close(logits_BLV, tiny_student.model(**inputs).logits)
    assert [row.case for row in measurements.rows] == ["pytorch-fp32"]
    assert measurements["pytorch-fp32"].values["maximal_difference"] < 1e-5


def test_a_teacher_is_converted_too(tiny_teacher_folder, tiny_teacher, sentences, tmp_path):
    convert(tiny_teacher_folder, tmp_path / "hub", SAFETENSORS_ONLY, sentences[:3])
    inputs = AutoTokenizer.from_pretrained(tmp_path / "hub")(sentences[0], return_tensors="pt")
    model = AutoModelForMaskedLM.from_pretrained(tmp_path / "hub")
    with torch.no_grad():
        torch.testing.assert_close(model(**inputs).logits, tiny_teacher.model(**inputs).logits)


@pytest.mark.export
def test_an_encoder_without_a_head_fills_no_masks(tiny_teacher, sentences, tmp_path):
    tiny_teacher.tokenizer.save_pretrained(tmp_path / "encoder")
    tiny_teacher.model.base_model.save_pretrained(tmp_path / "encoder")
    settings = ConversionSettings(onnx=["masked-lm-int8"])
    with pytest.raises(UserError, match=r"has no masked-language-modelling head, which onnx/masked_lm_quantized.onnx"):
        convert(tmp_path / "encoder", tmp_path / "hub", settings, sentences[:3], sentences[3:6])
    assert not (tmp_path / "hub").exists()


def test_pickled_weights_become_safetensors(tiny_student_folder, tiny_student, sentences, tmp_path):
    source = tmp_path / "pickled"
    source.mkdir()
    for path in tiny_student_folder.iterdir():
        if path.name != "model.safetensors":
            (source / path.name).write_bytes(path.read_bytes())
    torch.save(tiny_student.model.state_dict(), source / "pytorch_model.bin")
    convert(source, tmp_path / "hub", SAFETENSORS_ONLY, sentences[:3])
    assert sha256_of(tmp_path / "hub/model.safetensors") == sha256_of(tiny_student_folder / "model.safetensors")


def test_half_precision_weights_become_fp32(tiny_teacher, sentences, tmp_path):
    source = tmp_path / "half"
    tiny_teacher.tokenizer.save_pretrained(source)
    # A copy with its own configuration, in which save_pretrained writes the data type.
    copy.deepcopy(tiny_teacher.model).half().save_pretrained(source)
    convert(source, tmp_path / "hub", SAFETENSORS_ONLY, sentences[:3])
    with safe_open(tmp_path / "hub/model.safetensors", "pt") as weights:
        assert {weights.get_tensor(name).dtype for name in weights.keys()} == {torch.float32}  # noqa: SIM118
    assert AutoModel.from_pretrained(tmp_path / "hub", dtype="auto").dtype == torch.float32


def test_what_else_lies_in_the_output_stays_and_unwanted_formats_go(tiny_student_folder, sentences, tmp_path):
    (tmp_path / "onnx").mkdir()
    (tmp_path / "README.md").write_text("card")
    (tmp_path / "onnx/model.onnx").write_bytes(b"of another model")
    (tmp_path / "onnx/notes.txt").write_text("mine")
    (tmp_path / "added_tokens.json").write_text('{"[of another model]": 5}')
    convert(tiny_student_folder, tmp_path, SAFETENSORS_ONLY, sentences[:3])
    assert set(files(tmp_path)) == CHECKPOINT_FILES | {"README.md", "onnx/notes.txt"}


@pytest.mark.parametrize("config", [None, "{}", "[]", '{"model_type": "gpt2"}', "{"])
def test_a_folder_without_a_model_is_refused(config, sentences, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    if config is not None:
        (source / "config.json").write_text(config)
    with pytest.raises(UserError, match=str(source)):
        convert(source, tmp_path / "hub", SAFETENSORS_ONLY, sentences)
    assert not (tmp_path / "hub").exists()


def test_an_output_that_is_a_file_is_refused(tiny_student_folder, sentences, tmp_path):
    (tmp_path / "hub").write_text("a file")
    with pytest.raises(UserError, match="hub: cannot be written"):
        convert(tiny_student_folder, tmp_path / "hub", SAFETENSORS_ONLY, sentences)
    assert (tmp_path / "hub").read_text() == "a file"


def test_an_output_below_a_file_is_refused(tiny_student_folder, sentences, tmp_path):
    (tmp_path / "file").write_text("a file")
    with pytest.raises(UserError, match="file/hub: cannot be written"):
        convert(tiny_student_folder, tmp_path / "file/hub", SAFETENSORS_ONLY, sentences)


def test_another_file_that_cannot_be_written_is_named(tiny_student_folder, sentences, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device", "/elsewhere/scratch")

    monkeypatch.setattr("distilrubert.conversion.model_folder.write_file", fail)
    with pytest.raises(UserError, match="hub: cannot be written: /elsewhere/scratch: No space left on device"):
        convert(tiny_student_folder, tmp_path / "hub", SAFETENSORS_ONLY, sentences)


def test_no_sentences_are_refused(tiny_student_folder, tmp_path):
    with pytest.raises(UserError, match="sentences"):
        convert(tiny_student_folder, tmp_path / "hub", SAFETENSORS_ONLY, [])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.export
def test_int8_is_not_calibrated_on_what_it_is_proved_on(tiny_student_folder, sentences, tmp_path):
    with pytest.raises(UserError, match="no text to calibrate int8 files on"):
        convert(tiny_student_folder, tmp_path / "hub", ConversionSettings(onnx=["int8"]), sentences)
    assert list(tmp_path.iterdir()) == []


def test_missing_onnx_packages_name_the_extra(tiny_student_folder, sentences, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # what an import finds where the package is not installed
    with pytest.raises(UserError, match=r'pip install "distilrubert\[onnx\]"'):
        convert(tiny_student_folder, tmp_path / "hub", ConversionSettings(), sentences)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.export
def test_all_files_and_no_others(converted):
    output, _ = converted
    assert set(files(output)) == CHECKPOINT_FILES | EXPORTED_FILES
    assert [path.name for path in output.parent.iterdir()] == ["hub"]


@pytest.mark.export
def test_a_fresh_process_gives_the_same_bytes_and_a_clean_terminal(
    converted, tiny_student_folder, sentences, all_files, tmp_path
):
    """Whatever was converted before: the int8 files are made again by themselves."""
    program = (
        "from distilrubert.conversion.model_folder import convert\n"
        "from distilrubert.conversion.conversion_settings import ConversionSettings\n"
        f"settings = ConversionSettings.model_validate_json({all_files.model_dump_json()!r})\n"
        "some = settings.model_copy(update={'onnx': ['int8'], 'openvino': ['int8']})\n"
        "for output, wanted in (('hub', settings), ('again', some)):\n"
        f"    convert({str(tiny_student_folder)!r}, output, wanted, {sentences!r}, {sentences!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert files(tmp_path / "hub") == files(converted[0])
    again = files(tmp_path / "again")
    assert again.keys() > CHECKPOINT_FILES
    assert again.items() <= files(converted[0]).items()
    assert done.stdout + done.stderr == ""


@pytest.mark.export
def test_no_file_tells_where_it_was_made(converted, common_folder):
    output, _ = converted
    told = [os.fsencode(path) for path in (common_folder, Path(sys.prefix), Path.home())]
    for path in output.rglob("*"):
        if path.is_file():
            assert not [place for place in told if place in path.read_bytes()], path


@pytest.mark.export
def test_int8_alone(tiny_student_folder, sentences, tmp_path):
    measurements = derive(
        convert(tiny_student_folder, tmp_path / "hub", ConversionSettings(onnx=["int8"]), sentences[:3], sentences)
    )
    assert set(files(tmp_path / "hub")) == CHECKPOINT_FILES | {"onnx/model_quantized.onnx"}
    assert [row.case for row in measurements.rows] == ["pytorch-fp32", "onnx-int8"]


@pytest.mark.export
def test_beyond_the_tolerance_nothing_is_written(tiny_student_folder, sentences, tmp_path):
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub/model.safetensors").write_text("earlier")
    strict = ConversionSettings.model_validate(
        {"tolerance": {"int8": {"token_cosine": 0.999999, "pooled_cosine": 0.9}}},
    )
    with pytest.raises(UserError, match=r"onnx/model_quantized.onnx: .*token_cosine 0\.9.*0\.999999"):
        convert(tiny_student_folder, tmp_path / "hub", strict, sentences[:3], sentences)
    assert files(tmp_path / "hub").keys() == {"model.safetensors"}
    assert [path.name for path in tmp_path.iterdir()] == ["hub"]
