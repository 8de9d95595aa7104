import pytest
import torch
from transformers import BertForSequenceClassification
from transformers.modeling_layers import GradientCheckpointingLayer

from distilrubert.modeling.architecture import StudentArchitecture
from distilrubert.modeling.heads import has_head, layers_of, mlm_head_of
from distilrubert.modeling.student import build_student
from distilrubert.modeling.teacher import Teacher


@pytest.mark.parametrize("kind", ["teacher", "student"])
def test_encoder_and_head_together_are_the_model(tiny_teacher: Teacher, sentences: list[str], kind: str) -> None:
    student = build_student(tiny_teacher, StudentArchitecture(layers=2))
    model, tokenizer = (
        (tiny_teacher.model, tiny_teacher.tokenizer) if kind == "teacher" else (student.model, student.tokenizer)
    )
    inputs = tokenizer(sentences[:8], padding=True, return_tensors="pt")
    real_BL = inputs["attention_mask"].bool()
    with torch.no_grad():
        hidden_ND = model.base_model(**inputs).last_hidden_state[real_BL]
        head = mlm_head_of(model)
        logits_NV = head.transform(hidden_ND) @ head.weight_VD.T + head.bias_V
        expected_NV = model(**inputs).logits[real_BL]
    torch.testing.assert_close(logits_NV, expected_NV, atol=1e-5, rtol=1e-5)


def test_the_head_is_a_view_on_the_model(tiny_teacher: Teacher) -> None:
    model = build_student(tiny_teacher, StudentArchitecture(layers=1)).model
    head = mlm_head_of(model)
    assert head.weight_VD is model.distilbert.embeddings.word_embeddings.weight
    assert head.bias_V is model.vocab_projector.bias
    head.transform(torch.ones(3, 32)).sum().backward()
    assert model.vocab_transform.weight.grad is not None


def test_an_encoder_has_no_head(tiny_teacher: Teacher) -> None:
    assert has_head(tiny_teacher.model)
    assert not has_head(tiny_teacher.model.base_model)
    assert not has_head(BertForSequenceClassification(tiny_teacher.model.config))


def test_the_blocks_are_the_layers_of_the_encoder(tiny_teacher: Teacher) -> None:
    student = build_student(tiny_teacher, StudentArchitecture(layers=1)).model
    for model in (tiny_teacher.model, student):
        assert len(layers_of(model)) == model.config.num_hidden_layers
        assert all(isinstance(block, GradientCheckpointingLayer) for block in layers_of(model))
