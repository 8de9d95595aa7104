"""A student of each family in sentence-transformers 6, transformers 5, optimum-intel and plain OpenVINO.

Run by ``make test-clients`` in an environment of its own, without this package: ``FOLDER=… pytest check_families.py``;
FOLDER/families as make_families.py left it.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoModel, AutoTokenizer

FOLDER = Path(os.environ["FOLDER"]) / "families"
EXPECTED = json.loads((FOLDER / "expected.json").read_text(encoding="utf-8"))
# OpenVINO computes an fp32 file in bf16 where the CPU has it.
FILES = {"bf16": "openvino_model.xml", "int8": "openvino_model_qint8_quantized.xml"}


@pytest.fixture(params=EXPECTED["models"])
def model_type(request: pytest.FixtureRequest) -> str:
    return request.param


def assert_opened(client: str, model_type: str, found_BD, precision: str) -> None:
    """The vectors are right; that is written down for the table of docs/teachers.md."""
    expected_BD = np.array(EXPECTED["models"][model_type]["vectors"])
    lengths = np.linalg.norm(found_BD, axis=1) * np.linalg.norm(expected_BD, axis=1)
    cosines = (found_BD * expected_BD).sum(axis=1) / lengths
    assert cosines.min() > EXPECTED["least_cosine"][precision], cosines
    with (FOLDER / "opened.jsonl").open("a", encoding="utf-8") as opened:
        opened.write(json.dumps({"model": model_type, "client": client}) + "\n")


def inputs_of(model_type: str, kind: str):
    tokenizer = AutoTokenizer.from_pretrained(FOLDER / model_type)
    return tokenizer(EXPECTED["models"][model_type]["sentences"], padding=True, return_tensors=kind)


def mean_pooled(hidden_BLD, mask_BL):
    mask_BL1 = np.asarray(mask_BL)[:, :, None]
    return (np.asarray(hidden_BLD) * mask_BL1).sum(axis=1) / mask_BL1.sum(axis=1)


def test_transformers(model_type):
    inputs = inputs_of(model_type, "pt")
    hidden_BLD = AutoModel.from_pretrained(FOLDER / model_type)(**inputs).last_hidden_state.detach()
    assert_opened("transformers 5", model_type, mean_pooled(hidden_BLD, inputs["attention_mask"]), "fp32")


@pytest.mark.parametrize(
    ("backend", "options", "precision"),
    [("torch", {}, "fp32"), *(("openvino", {"file_name": f"openvino/{FILES[key]}"}, key) for key in FILES)],
)
def test_sentence_transformers(model_type, backend, options, precision):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(FOLDER / model_type), backend=backend, model_kwargs=options, device="cpu")
    vectors = model.encode(EXPECTED["models"][model_type]["sentences"], batch_size=3)
    assert_opened("sentence-transformers 6", model_type, vectors, precision)


@pytest.mark.parametrize("precision", FILES)
def test_optimum_intel(model_type, precision):
    from optimum.intel import OVModelForFeatureExtraction

    model = OVModelForFeatureExtraction.from_pretrained(
        FOLDER / model_type, subfolder="openvino", file_name=FILES[precision]
    )
    inputs = inputs_of(model_type, "pt")
    vectors = mean_pooled(model(**inputs).last_hidden_state, inputs["attention_mask"])
    assert_opened("optimum (OVModel)", model_type, vectors, precision)


@pytest.mark.parametrize("precision", FILES)
def test_openvino(model_type, precision):
    import openvino

    model = openvino.Core().compile_model(FOLDER / model_type / "openvino" / FILES[precision], "CPU")
    inputs = inputs_of(model_type, "np")
    vectors = mean_pooled(model(dict(inputs))["last_hidden_state"], inputs["attention_mask"])
    assert_opened("OpenVINO", model_type, vectors, precision)
