"""A fine-tuned model and its file give the same logits."""

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from distilrubert.conversion.conversion_settings import ConversionSettings
from distilrubert.conversion.writers import export_finetuned

pytestmark = pytest.mark.export


@pytest.mark.parametrize("of", ["teacher", "student"])
@pytest.mark.parametrize(
    ("task", "model_class"),
    [
        ("text-classification", AutoModelForSequenceClassification),
        ("token-classification", AutoModelForTokenClassification),
        ("question-answering", AutoModelForQuestionAnswering),
    ],
)
# OpenVINO's ranges are those of the eight texts, ONNX Runtime takes them from what it computes.
@pytest.mark.parametrize(("case", "tolerance"), [("onnx-fp32", 1e-5), ("onnx-int8", 0.1), ("openvino-int8", 0.12)])
def test_logits_of_pairs(of, task, model_class, case, tolerance, request, tiny_teacher, sentences, tmp_path):
    folder = request.getfixturevalue(f"tiny_{of}_folder")
    torch.manual_seed(0)
    labels = {} if task == "question-answering" else {"num_labels": 3}
    model = model_class.from_pretrained(folder, **labels).eval()
    tokenizer = tiny_teacher.tokenizer
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if of == "teacher" else [])]

    def inputs(first, second):
        encoding = tokenizer(first, second, padding=True, truncation=True, return_tensors="np")
        return {name: encoding[name].astype(np.int64) for name in names}

    pairs = [inputs([one], [two]) for one, two in zip(sentences[:10], sentences[10:20], strict=True)]
    examples = [{name: array[0].tolist() for name, array in pair.items()} for pair in pairs]
    settings = ConversionSettings(calibration_sentences=8)
    (tmp_path / "file").mkdir()
    run = export_finetuned(case, settings, model, tokenizer, task, examples, tmp_path / "file")
    batch = inputs(sentences[20:25], sentences[25:30])
    with torch.inference_mode():
        output = model(**{name: torch.from_numpy(array) for name, array in batch.items()})
    kinds = ("start_logits", "end_logits") if task == "question-answering" else ("logits",)
    usual = 0.0
    if task == "question-answering":
        # A new direction may lie across all vectors. A token's logits reach a quarter of what its weights can give a
        # vector after LayerNorm, which is as long as the root of its width.
        usual = (model.qa_outputs.weight.norm(dim=1).max() * model.qa_outputs.in_features**0.5).item() / 4
    real = slice(None) if task == "text-classification" else batch["attention_mask"] == 1
    for found, expected in zip(run(batch), (output[kind].numpy() for kind in kinds), strict=True):
        assert found.shape == expected.shape
        # By root mean squares: over six seeds of the random head, this is 0.05 to 0.11 in OpenVINO's int8, and the
        # largest error is 0.08 to 0.23 of the largest logit. Logits of another head would be at 1.
        assert _rms((found - expected)[real]) <= tolerance * max(usual, _rms(expected[real]))


def _rms(values):
    return np.sqrt(np.mean(values**2))


def test_a_head_that_int8_hurts_stays(tiny_teacher_folder, tiny_teacher, sentences, tmp_path):
    openvino = pytest.importorskip("openvino")
    # BERT's has a pooler before its classifier.
    model = AutoModelForSequenceClassification.from_pretrained(tiny_teacher_folder, num_labels=3).eval()
    examples = [dict(tiny_teacher.tokenizer(text)) for text in sentences[:4]]
    settings = ConversionSettings(largest_layer_error=1e-6)
    export_finetuned(
        "openvino-int8", settings, model, tiny_teacher.tokenizer, "text-classification", examples, tmp_path
    )
    graph = openvino.Core().read_model(next(tmp_path.rglob("*.xml")))
    quantised = [node for node in graph.get_ops() if node.get_type_name() == "FakeQuantize"]
    # No map, and no scores of heads so narrow.
    assert quantised == []
