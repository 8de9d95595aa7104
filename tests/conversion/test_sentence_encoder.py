"""An encoder of sentences as sentence-transformers opens it, and how close its vectors are."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from distilrubert.common.derived import derive
from distilrubert.common.errors import UserError
from distilrubert.common.sentence_files import PoolingMode
from distilrubert.conversion.conversion_settings import ConversionSettings, Tolerance, Tolerances
from distilrubert.conversion.model_folder import convert
from distilrubert.modeling.sentence_modules import SentenceModules, encoder_in, read_sentence_modules
from distilrubert.modeling.student import Student
from distilrubert.pipeline.cli import main

from .vectors import cosines, hidden_of, pooled_of

library = pytest.importorskip("sentence_transformers")

PROMPTED = SentenceModules("mean", "Кто: ", "Это: ")


def convert_to(folder: Path, student: Path, sentences: list[str], encoder: SentenceModules | None, **settings) -> dict:
    report = derive(convert(student, folder, ConversionSettings(onnx=[], **settings), sentences, (), encoder))
    return report["pytorch-fp32"].values


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_vectors_are_pooled_and_normalised(
    pooling: PoolingMode, tiny_student: Student, tiny_student_folder: Path, sentences: list[str], tmp_path: Path
) -> None:
    values = convert_to(tmp_path, tiny_student_folder, sentences, SentenceModules(pooling))
    assert values["vector_cosine_p1"] == pytest.approx(1, abs=1e-6)
    model = library.SentenceTransformer(str(tmp_path), device="cpu")
    found_BD = model.encode(sentences)
    np.testing.assert_allclose(np.linalg.norm(found_BD, axis=1), 1, atol=1e-5)
    expected = pooled_of(tiny_student, sentences) if pooling == "mean" else hidden_of(tiny_student, sentences)[0][:, 0]
    assert cosines(found_BD, expected).min() > 0.99999
    assert read_sentence_modules(tmp_path) == SentenceModules(pooling, "", "")
    config = json.loads((tmp_path / "1_Pooling" / "config.json").read_text(encoding="utf-8"))
    # Other readers take a mode that is not named for a mistake.
    modes = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")
    assert [mode for mode in modes if config[f"pooling_mode_{mode}"]] == [next(m for m in modes if pooling in m)]


def test_what_a_model_says_of_its_vectors_stays(
    tiny_student_folder: Path, sentences: list[str], tmp_path: Path
) -> None:
    """Also where it is not what our encoders have: no normalisation, a dot product, more prompts, a shorter limit."""
    source, output = tmp_path / "source", tmp_path / "output"
    shutil.copytree(tiny_student_folder, source)
    library.SentenceTransformer(
        modules=[
            library.models.Transformer(str(source), max_seq_length=16),
            library.models.Pooling(32, pooling_mode="cls"),
        ],
        prompts={"query": "q: ", "clustering": "c: "},
        similarity_fn_name="dot",
    ).save(str(source))
    convert_to(output, source, sentences, encoder_in(source))
    before, after = (library.SentenceTransformer(str(folder), device="cpu") for folder in (source, output))
    np.testing.assert_allclose(after.encode(sentences), before.encode(sentences), atol=1e-5)
    for model in (before, after):
        assert (model.similarity_fn_name, model.default_prompt_name, model.max_seq_length) == ("dot", None, 16)
        assert model.prompts["clustering"] == "c: "


def test_prompts_are_put_in_unless_told_otherwise(
    tiny_student_folder: Path, sentences: list[str], tmp_path: Path
) -> None:
    convert_to(tmp_path, tiny_student_folder, sentences, PROMPTED)
    model = library.SentenceTransformer(str(tmp_path), device="cpu")
    assert (model.similarity_fn_name, model.default_prompt_name) == ("cosine", "query")
    bare = model.encode(["Кто: Кот спит.", "Это: Кот спит."], prompt="")
    for number, encode in enumerate((model.encode, model.encode_document)):
        np.testing.assert_allclose(encode(["Кот спит."])[0], bare[number], atol=1e-5)
    np.testing.assert_allclose(model.encode_query(["Кот спит."])[0], bare[0], atol=1e-5)
    assert read_sentence_modules(tmp_path) == PROMPTED


def test_the_files_of_an_encoder_go_when_another_model_comes(
    tiny_student_folder: Path, sentences: list[str], tmp_path: Path
) -> None:
    convert_to(tmp_path, tiny_student_folder, sentences, PROMPTED)
    values = convert_to(tmp_path, tiny_student_folder, sentences, None)
    assert "vector_cosine_p1" not in values
    assert not (tmp_path / "config_sentence_transformers.json").exists()
    assert len(json.loads((tmp_path / "modules.json").read_text(encoding="utf-8"))) == 2


def test_a_converted_encoder_stays_one(tiny_student_folder: Path, sentences: list[str], tmp_path: Path) -> None:
    convert_to(tmp_path / "first", tiny_student_folder, sentences, PROMPTED)
    assert main(["convert", str(tmp_path / "first"), "--output", str(tmp_path / "second"), "--onnx"]) == 0
    assert encoder_in(tmp_path / "second") == PROMPTED
    assert main(["convert", str(tiny_student_folder), "--output", str(tmp_path / "third"), "--onnx"]) == 0
    assert encoder_in(tmp_path / "third") is None


@pytest.mark.export
def test_int8_is_held_to_its_vectors(tiny_student_folder: Path, sentences: list[str], tmp_path: Path) -> None:
    loose = {"token_cosine": 0.9, "token_cosine_p1": 0.8, "pooled_cosine": 0.5}
    settings = ConversionSettings(onnx=["int8"], tolerance=Tolerances(int8=Tolerance(**loose)))
    report = derive(convert(tiny_student_folder, tmp_path / "a", settings, sentences, sentences, PROMPTED))
    reached = report["onnx-int8"].values["vector_cosine_p1"]
    assert 0.9 < reached < 1
    strict = Tolerances(int8=Tolerance(**loose, vector_cosine_p1=(1 + reached) / 2))
    with pytest.raises(UserError, match=r"onnx/model_quantized\.onnx: differs too much .* vector_cosine_p1"):
        convert(
            tiny_student_folder, tmp_path / "b", settings.model_copy(update={"tolerance": strict}), sentences,
            sentences, PROMPTED,
        )  # fmt: skip
