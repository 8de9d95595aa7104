"""Students of every family as files: parity, and the clients that people use."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from distilrubert.conversion.conversion_settings import ConversionSettings, Tolerance, Tolerances
from distilrubert.conversion.model_folder import convert
from distilrubert.modeling.architecture import StudentArchitecture
from distilrubert.modeling.student import Student, build_student, save_student
from distilrubert.modeling.teacher import save_teacher
from distilrubert.modeling.tokenizer_files import student_tokenizer
from tests.random_teachers import make_teacher

# Widths that are no multiples of anything and sharp random weights: int8 has to work, not to be close.
ROUGHLY = Tolerance(token_cosine=0.9, pooled_cosine=0.9)
SETTINGS = ConversionSettings(
    onnx=["fp32", "int8"],
    openvino=["fp32", "int8"],
    tolerance=Tolerances(int8=ROUGHLY, bf16=Tolerance(token_cosine=0.998, pooled_cosine=0.998)),
)


@pytest.fixture(scope="module", params=[("modernbert", True), ("xlm-roberta", False), ("bert", False)])
def student(request, tiny_teacher) -> Student:
    model_type, with_head = request.param
    # A window of six tokens is narrower than most texts.
    return build_student(
        make_teacher(model_type, tiny_teacher.tokenizer, with_head=with_head), StudentArchitecture(layers=4)
    )


@pytest.fixture(scope="module")
def converted(student, sentences, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("family")
    save_student(student, folder / "student")
    convert(folder / "student", folder / "hub", SETTINGS, sentences, sentences)
    return folder / "hub"


def hidden_of(student: Student, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    inputs = student.tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        return student.model.base_model(**inputs).last_hidden_state.numpy(), inputs["attention_mask"].numpy()


@pytest.mark.export
@pytest.mark.slow
def test_the_files_agree_and_load_in_the_clients(student, converted, sentences):
    from optimum.onnxruntime import ORTModelForFeatureExtraction

    expected_BLD, mask_BL = hidden_of(student, sentences)
    model = ORTModelForFeatureExtraction.from_pretrained(converted, subfolder="onnx", file_name="model.onnx")
    tokenizer = AutoTokenizer.from_pretrained(converted)
    found_BLD = model(**tokenizer(sentences, padding=True, return_tensors="pt")).last_hidden_state.numpy()
    np.testing.assert_allclose(found_BLD[mask_BL == 1], expected_BLD[mask_BL == 1], atol=1e-4, rtol=1e-3)

    library = pytest.importorskip("sentence_transformers")
    pooled_BD = (expected_BLD * mask_BL[:, :, None]).sum(axis=1) / mask_BL.sum(axis=1, keepdims=True)
    for backend, options in (("torch", {}), ("onnx", {"file_name": "onnx/model.onnx"})):
        encoder = library.SentenceTransformer(str(converted), backend=backend, model_kwargs=options, device="cpu")
        np.testing.assert_allclose(encoder.encode(sentences, batch_size=7), pooled_BD, atol=1e-4, rtol=1e-3)


@pytest.mark.export
@pytest.mark.slow
def test_a_bert_whose_tokenizer_gives_no_token_types(tiny_teacher, sentences, tmp_path):
    """As multilingual-e5 is one: its graphs take token types all the same, and those of a single text are 0."""
    teacher = make_teacher("bert", student_tokenizer(tiny_teacher.tokenizer), with_head=False, num_hidden_layers=2)
    save_teacher(teacher, tmp_path / "teacher")
    found = convert(tmp_path / "teacher", tmp_path / "hub", SETTINGS, sentences[:8], sentences)
    assert {row.case for row in found.rows} >= {"onnx-fp32", "onnx-int8", "openvino-fp32", "openvino-int8"}
