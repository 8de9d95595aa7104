"""The objective on students and teachers of every family."""

import pytest
import torch
from torch import Tensor

from distilrubert.common.errors import UserError
from distilrubert.distill.losses import LossWeights
from distilrubert.distill.losses.objective import Objective
from distilrubert.distill.objective_settings import ObjectiveSettings
from distilrubert.modeling.architecture import StudentArchitecture
from distilrubert.modeling.families import MODEL_TYPES
from distilrubert.modeling.student import build_student
from distilrubert.modeling.teacher import Teacher
from tests.random_teachers import make_teacher


@pytest.fixture(scope="module")
def batch(tiny_teacher: Teacher, sentences: list[str]) -> dict[str, Tensor]:
    inputs = tiny_teacher.tokenizer(sentences[:6], padding=True, return_tensors="pt")
    ids_BL, mask_BL = inputs["input_ids"], inputs["attention_mask"]
    assert not mask_BL.all()
    labels_BL = torch.full_like(ids_BL, -100)
    labels_BL[:, 2] = ids_BL[:, 2]
    return {"input_ids": ids_BL, "attention_mask": mask_BL, "labels": labels_BL}


def losses_of(teacher: Teacher, batch: dict[str, Tensor], layers: int, **weights: float) -> dict[str, Tensor]:
    student = build_student(teacher, StudentArchitecture(layers=layers))
    settings = ObjectiveSettings(weights=LossWeights(**weights), layer_map="last-of-block")
    objective = Objective(student.model, teacher.model, settings)
    losses = objective(batch, objective.counts(batch))
    losses["loss"].backward()
    trained = [parameter for parameter in student.model.base_model.parameters() if parameter.grad is not None]
    assert len(trained) >= len(list(student.model.base_model.parameters())) - 1  # a RoBERTa has token types of one row
    return losses


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_student_with_all_layers_has_nothing_to_learn(
    tiny_teacher: Teacher, batch: dict[str, Tensor], model_type: str
) -> None:
    """Also where the embeddings are looked up outside of the model, and where attention goes to windows."""
    teacher = make_teacher(model_type, tiny_teacher.tokenizer)
    same = losses_of(teacher, batch, 7, kl=1.0, cosine=1.0, attention=1.0)
    assert max(same[name].item() for name in ("kl", "cosine", "attention")) < 1e-5
    fewer = losses_of(teacher, batch, 3, kl=1.0, mlm=1.0, cosine=1.0, attention=1.0)
    assert min(fewer[name].item() for name in ("kl", "mlm", "cosine", "attention")) > 1e-3


@pytest.mark.parametrize("model_type", ["bert", "xlm-roberta", "modernbert"])
def test_an_encoder_teaches_all_but_predictions(
    tiny_teacher: Teacher, batch: dict[str, Tensor], model_type: str
) -> None:
    teacher = make_teacher(model_type, tiny_teacher.tokenizer, with_head=False)
    assert losses_of(teacher, batch, 7, cosine=1.0, attention=1.0)["loss"] < 1e-5
    with pytest.raises(UserError, match="kl compares predictions, but the teacher is an encoder without"):
        losses_of(teacher, batch, 7, kl=1.0, cosine=1.0)
