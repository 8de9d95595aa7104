"""Models of tasks in transformers 5 and optimum-intel.

Run by ``make test-clients``, without this package: ``FOLDER=… pytest check_tasks.py``.
"""

import json
import os
from pathlib import Path

import pytest
from transformers import AutoTokenizer, pipeline

FOLDER = Path(os.environ["FOLDER"]) / "tasks"
EXPECTED = json.loads((FOLDER / "expected.json").read_text(encoding="utf-8"))
# How far a probability may be; OpenVINO computes an fp32 file in bf16 where the CPU has it.
FP32, BF16, INT8 = 1e-4, 0.02, 0.15


def assert_same(ask, name: str, tolerance: float) -> None:
    """The answers of a pipeline are those that are expected."""
    expected = EXPECTED[name]
    if name == "tagger":
        found = [[[part["word"], part["entity"]] for part in parts] for parts in ask(EXPECTED["texts"])]
        assert found == expected or tolerance == INT8
        assert {tag for parts in found for _, tag in parts} <= {"O", "B-PET"}
        return
    for own, other in zip(ask(EXPECTED["texts"], top_k=None), expected, strict=True):
        assert {each["label"]: each["score"] for each in own} == pytest.approx(other, abs=tolerance)


def task_of(name: str) -> tuple[str, str]:
    """The pipeline of a model, and the end of the names of its classes."""
    if name == "tagger":
        return "token-classification", "TokenClassification"
    return "text-classification", "SequenceClassification"


@pytest.mark.parametrize("name", ["classifier", "several", "tagger"])
def test_pipeline_of_transformers(name):
    assert_same(pipeline(task_of(name)[0], model=str(FOLDER / name)), name, FP32)


@pytest.mark.parametrize("name", ["classifier", "several", "tagger"])
@pytest.mark.parametrize(
    ("file", "tolerance"), [("openvino_model.xml", BF16), ("openvino_model_qint8_quantized.xml", INT8)]
)
def test_optimum_intel(name, file, tolerance):
    import optimum.intel

    task, suffix = task_of(name)
    opener = getattr(optimum.intel, f"OVModelFor{suffix}")
    model = opener.from_pretrained(FOLDER / name, subfolder="openvino", file_name=file)
    tokenizer = AutoTokenizer.from_pretrained(FOLDER / name)
    assert_same(pipeline(task, model=model, tokenizer=tokenizer), name, tolerance)
