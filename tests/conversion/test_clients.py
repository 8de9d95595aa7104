"""The folder in the clients that people use; vectors against those of the student itself."""

import pytest
from transformers import AutoTokenizer, pipeline

from .vectors import cosines, hidden_of, pooled_of


@pytest.mark.export
@pytest.mark.parametrize(("file", "least"), [("model.onnx", 0.999999), ("model_quantized.onnx", 0.95)])
def test_optimum(file, least, converted, tiny_student, sentences):
    from optimum.onnxruntime import ORTModelForFeatureExtraction

    model = ORTModelForFeatureExtraction.from_pretrained(converted[0], subfolder="onnx", file_name=file)
    tokenizer = AutoTokenizer.from_pretrained(converted[0])
    found_BLD = model(**tokenizer(sentences, padding=True, return_tensors="pt")).last_hidden_state.numpy()
    expected_BLD, mask_BL = hidden_of(tiny_student, sentences)
    assert cosines(found_BLD, expected_BLD)[mask_BL == 1].mean() > least


@pytest.mark.export
@pytest.mark.parametrize(
    ("backend", "options", "least"),
    [
        ("torch", {}, 0.999999),
        ("onnx", {"file_name": "onnx/model.onnx"}, 0.999999),
        ("onnx", {"file_name": "onnx/model_quantized.onnx"}, 0.95),
    ],
)
def test_sentence_transformers(backend, options, least, converted, tiny_student, sentences):
    library = pytest.importorskip("sentence_transformers")
    model = library.SentenceTransformer(str(converted[0]), backend=backend, model_kwargs=options, device="cpu")
    assert model.max_seq_length == 64
    found_BD = model.encode(sentences, batch_size=7)
    assert cosines(found_BD, pooled_of(tiny_student, sentences)).min() > least


def test_fill_mask_pipeline(converted_checkpoint, sentences):
    fill = pipeline("fill-mask", model=str(converted_checkpoint))
    assert len(fill("Кот спит на [MASK].")) == 5


@pytest.fixture(scope="module")
def converted_checkpoint(tiny_student_folder, sentences, tmp_path_factory):
    from distilrubert.conversion.conversion_settings import ConversionSettings
    from distilrubert.conversion.model_folder import convert

    output = tmp_path_factory.mktemp("checkpoint") / "hub"
    convert(tiny_student_folder, output, ConversionSettings(onnx=[]), sentences[:3])
    return output
