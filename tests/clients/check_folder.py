"""The published folder in sentence-transformers 6, transformers 5, optimum-intel and plain OpenVINO.

Run by ``make test-clients`` in an environment of its own, without this package: ``FOLDER=… pytest check_folder.py``.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoModel, AutoTokenizer

FOLDER = Path(os.environ["FOLDER"])
MODEL = FOLDER / "tiny"
EXPECTED = json.loads((FOLDER / "expected.json").read_text(encoding="utf-8"))
SENTENCES = EXPECTED["sentences"]
# OpenVINO computes an fp32 file in bf16 where the CPU has it.
FILES = {"bf16": "openvino_model.xml", "int8": "openvino_model_qint8_quantized.xml"}


def assert_close(found_BD, precision: str) -> None:
    expected_BD = np.array(EXPECTED["vectors"])
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
def test_sentence_transformers(backend, options, precision):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(MODEL), backend=backend, model_kwargs=options, device="cpu")
    assert_close(model.encode(SENTENCES, batch_size=3), precision)


def test_transformers():
    inputs = AutoTokenizer.from_pretrained(MODEL)(SENTENCES, padding=True, return_tensors="pt")
    hidden_BLD = AutoModel.from_pretrained(MODEL)(**inputs).last_hidden_state.detach()
    assert_close(mean_pooled(hidden_BLD, inputs["attention_mask"]), "fp32")


@pytest.mark.parametrize("kind", EXPECTED["ids"])
def test_tokenizers(kind):
    tokenizer = AutoTokenizer.from_pretrained(FOLDER / "tokenizers" / kind)
    assert tokenizer(EXPECTED["texts"], verbose=False)["input_ids"] == EXPECTED["ids"][kind]


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_optimum_intel(precision):
    from optimum.intel import OVModelForFeatureExtraction

    model = OVModelForFeatureExtraction.from_pretrained(MODEL, subfolder="openvino", file_name=FILES[precision])
    inputs = AutoTokenizer.from_pretrained(MODEL)(SENTENCES, padding=True, return_tensors="pt")
    assert_close(mean_pooled(model(**inputs).last_hidden_state, inputs["attention_mask"]), precision)


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_openvino(precision):
    import openvino

    model = openvino.Core().compile_model(MODEL / "openvino" / FILES[precision], "CPU")
    inputs = AutoTokenizer.from_pretrained(MODEL)(SENTENCES, padding=True, return_tensors="np")
    assert_close(mean_pooled(model(dict(inputs))["last_hidden_state"], inputs["attention_mask"]), precision)
