"""Models of tasks in transformers 5, sentence-transformers and optimum.

Run by ``make test-clients``, without this package: ``FOLDER=… pytest check_tasks.py``, in the clients' environment, and
for ONNX Runtime, whose classes in optimum ask for transformers 4, in the project's own.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, pipeline

FOLDER = Path(os.environ["FOLDER"]) / "tasks"
EXPECTED = json.loads((FOLDER / "expected.json").read_text(encoding="utf-8"))
MODELS = ("nouns", "several", "tags", "pairs", "scores")
OF_PAIRS = ("pairs", "scores")
# How far a probability may be, or a score of 0 to 2; OpenVINO computes an fp32 file in bf16 where the CPU has it.
FP32, BF16, INT8 = 1e-4, 0.02, 0.15
ONNX = [("model.onnx", FP32), ("model_quantized.onnx", INT8)]
OPENVINO = [("openvino_model.xml", BF16), ("openvino_model_qint8_quantized.xml", INT8)]


def assert_same(ask, name: str, tolerance: float) -> None:
    """The answers of a pipeline are those that are expected."""
    expected = EXPECTED[name]
    if name == "tags":
        found = [[[part["word"], part["entity"]] for part in parts] for parts in ask(EXPECTED["texts"])]
        assert found == expected or tolerance == INT8
        assert {tag for parts in found for _, tag in parts} <= {"O", "B-PET"}
        return
    couples = [{"text": one, "text_pair": other} for one, other in EXPECTED["couples"]]
    answers = ask(couples if name in OF_PAIRS else EXPECTED["texts"], top_k=None)
    for own, other in zip(answers, expected, strict=True):
        assert {each["label"]: each["score"] for each in own} == pytest.approx(other, abs=tolerance)


def task_of(name: str) -> tuple[str, str]:
    """The pipeline of a model, and the end of the names of its classes."""
    if name == "tags":
        return "token-classification", "TokenClassification"
    return "text-classification", "SequenceClassification"


def assert_opened(library, prefix: str, name: str, folder: str, file: str, tolerance: float) -> None:
    """A file is opened by the class of optimum for its task."""
    task, suffix = task_of(name)
    model = getattr(library, f"{prefix}For{suffix}").from_pretrained(FOLDER / name, subfolder=folder, file_name=file)
    tokenizer = AutoTokenizer.from_pretrained(FOLDER / name)
    assert_same(pipeline(task, model=model, tokenizer=tokenizer), name, tolerance)


@pytest.mark.parametrize("name", MODELS)
def test_pipeline_of_transformers(name):
    assert_same(pipeline(task_of(name)[0], model=str(FOLDER / name)), name, FP32)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("file", "tolerance"), OPENVINO)
def test_optimum_intel(name, file, tolerance):
    import optimum.intel

    assert_opened(optimum.intel, "OVModel", name, "openvino", file, tolerance)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("file", "tolerance"), ONNX)
def test_optimum_onnx(name, file, tolerance):
    library = pytest.importorskip("optimum.onnxruntime")
    assert_opened(library, "ORTModel", name, "onnx", file, tolerance)


@pytest.mark.parametrize("name", OF_PAIRS)
@pytest.mark.parametrize(
    ("backend", "file", "tolerance"),
    [("torch", None, FP32), *(("onnx", *each) for each in ONNX), *(("openvino", *each) for each in OPENVINO)],
)
def test_cross_encoder(name, backend, file, tolerance):
    """One score of a pair as it was learnt, or the logits of its classes."""
    from sentence_transformers import CrossEncoder

    if backend == "onnx":
        pytest.importorskip("optimum.onnxruntime")
    options = {"file_name": f"{backend}/{file}"} if file else {}
    model = CrossEncoder(str(FOLDER / name), backend=backend, model_kwargs=options, device="cpu")
    found = model.predict(EXPECTED["couples"])
    if name == "scores":
        assert found == pytest.approx([each["score"] for each in EXPECTED[name]], abs=tolerance)
        query, *documents = EXPECTED["texts"]
        ranked = model.rank(query, documents)
        assert [each["corpus_id"] for each in ranked] == np.argsort(-found, kind="stable").tolist()
    else:
        labels = [model.config.id2label[index] for index in range(found.shape[1])]
        shares = torch.from_numpy(found).softmax(dim=1).tolist()
        for own, expected in zip(shares, EXPECTED[name], strict=True):
            assert dict(zip(labels, own, strict=True)) == pytest.approx(expected, abs=tolerance)
