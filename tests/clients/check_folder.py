"""Published folders in sentence-transformers 6, transformers 5, optimum and plain OpenVINO.

Run by ``make test-clients``, without this package: ``FOLDER=… pytest check_folder.py``, in the clients' environment,
and for ONNX Runtime, whose classes in optimum ask for transformers 4, in the project's own.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoModel, AutoTokenizer

FOLDER = Path(os.environ["FOLDER"])
EXPECTED = json.loads((FOLDER / "expected.json").read_text(encoding="utf-8"))
SENTENCES = EXPECTED["sentences"]
# OpenVINO computes an fp32 file in bf16 where the CPU has it.
FILES = {"bf16": "openvino_model.xml", "int8": "openvino_model_qint8_quantized.xml"}


@pytest.fixture(params=EXPECTED["vectors"])
def model(request: pytest.FixtureRequest) -> Path:
    return FOLDER / request.param


def assert_close(found_BD, model: Path, precision: str) -> None:
    expected_BD = np.array(EXPECTED["vectors"][model.name])
    lengths = np.linalg.norm(found_BD, axis=1) * np.linalg.norm(expected_BD, axis=1)
    cosines = (found_BD * expected_BD).sum(axis=1) / lengths
    assert cosines.min() > EXPECTED["least_cosine"][precision], cosines


def mean_pooled(hidden_BLD, mask_BL):
    mask_BL1 = np.asarray(mask_BL)[:, :, None]
    return (np.asarray(hidden_BLD) * mask_BL1).sum(axis=1) / mask_BL1.sum(axis=1)


@pytest.mark.parametrize(
    ("backend", "options", "precision"),
    [
        ("torch", {}, "fp32"),
        ("openvino", {"file_name": "openvino/openvino_model.xml"}, "bf16"),
        ("openvino", {"file_name": "openvino/openvino_model_qint8_quantized.xml"}, "int8"),
    ],
)
def test_sentence_transformers(model, backend, options, precision):
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(str(model), backend=backend, model_kwargs=options, device="cpu")
    assert_close(encoder.encode(SENTENCES, batch_size=3), model, precision)


def test_transformers(model):
    inputs = AutoTokenizer.from_pretrained(model)(SENTENCES, padding=True, return_tensors="pt")
    encoder = AutoModel.from_pretrained(model)
    assert type(encoder).__name__ == "DistilBertModel"
    hidden_BLD = encoder(**inputs).last_hidden_state.detach()
    assert_close(mean_pooled(hidden_BLD, inputs["attention_mask"]), model, "fp32")


@pytest.mark.parametrize("kind", EXPECTED["ids"])
def test_tokenizers(kind):
    tokenizer = AutoTokenizer.from_pretrained(FOLDER / "tokenizers" / kind)
    assert tokenizer(EXPECTED["texts"], verbose=False)["input_ids"] == EXPECTED["ids"][kind]


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_optimum_intel(model, precision):
    from optimum.intel import OVModelForFeatureExtraction

    encoder = OVModelForFeatureExtraction.from_pretrained(model, subfolder="openvino", file_name=FILES[precision])
    inputs = AutoTokenizer.from_pretrained(model)(SENTENCES, padding=True, return_tensors="pt")
    assert_close(mean_pooled(encoder(**inputs).last_hidden_state, inputs["attention_mask"]), model, precision)


@pytest.mark.parametrize(("file", "precision"), [("model.onnx", "fp32"), ("model_quantized.onnx", "int8")])
def test_optimum_onnx(model, file, precision):
    library = pytest.importorskip("optimum.onnxruntime")
    encoder = library.ORTModelForFeatureExtraction.from_pretrained(model, subfolder="onnx", file_name=file)
    inputs = AutoTokenizer.from_pretrained(model)(SENTENCES, padding=True, return_tensors="pt")
    assert_close(mean_pooled(encoder(**inputs).last_hidden_state, inputs["attention_mask"]), model, precision)


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_openvino(model, precision):
    import openvino

    compiled = openvino.Core().compile_model(model / "openvino" / FILES[precision], "CPU")
    inputs = AutoTokenizer.from_pretrained(model)(SENTENCES, padding=True, return_tensors="np")
    assert_close(mean_pooled(compiled(dict(inputs))["last_hidden_state"], inputs["attention_mask"]), model, precision)
