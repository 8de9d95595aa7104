"""Losses over the head of a task, by hand and in the objective."""

import math

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification, PreTrainedModel

from distilrubert.common.errors import UserError
from distilrubert.distill.losses import LOSSES, TaskLossWeights
from distilrubert.distill.losses.objective import Objective
from distilrubert.distill.losses.rows import Rows
from distilrubert.distill.losses.task_term import TaskTerm, divergence
from distilrubert.distill.losses.term import Outputs, Setup
from distilrubert.distill.objective_settings import TaskObjectiveSettings
from distilrubert.modeling.architecture import StudentArchitecture
from distilrubert.modeling.student import build_student
from distilrubert.modeling.teacher import Teacher

BOTH = ["logits", "labels"]
SCALES = {"logits": 0.5, "labels": 2.0}
CLASSES = 3


def settings(temperature: float = 2.0, **weights: float) -> TaskObjectiveSettings:
    return TaskObjectiveSettings(temperature=temperature, weights=TaskLossWeights(**weights))


def head_of(
    teacher: Teacher, kind: type = AutoModelForSequenceClassification, layers: int = 2, outputs: int = CLASSES
) -> PreTrainedModel:
    """A student of a task, whose new head has large weights."""
    config = build_student(teacher, StudentArchitecture(layers=layers)).model.config
    config.num_labels = outputs
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = kind.from_config(config)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def term_of(teacher: Teacher, names: list[str] = BOTH, temperature: float = 2.0) -> TaskTerm:
    config = teacher.model.config
    return TaskTerm(names, Setup(settings(temperature, **dict.fromkeys(names, 1.0)), config, config, None))


def batch_of(labels: Tensor, logits: Tensor, compared: Tensor, length: int = 4) -> dict[str, Tensor]:
    ids = torch.arange(5, 5 + length).repeat(len(labels), 1)
    plain = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    return {**plain, "teacher_logits": logits, "compared": compared}


def test_divergence_worked_by_hand() -> None:
    # At temperature 2 the teacher's odds are e and 1 to 1, and the student's are even.
    teacher, student = torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 1.0]])
    p = math.e / (math.e + 1)
    expected = 4 * (p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p)))
    assert divergence(student, teacher, 2.0).item() == pytest.approx(expected, rel=1e-6)
    assert divergence(teacher + 7, teacher, 2.0).item() == pytest.approx(0, abs=1e-6)


def test_losses_of_texts_worked_by_hand(tiny_teacher: Teacher) -> None:
    """The first text has a label and no teacher, the second both, the third a teacher alone."""
    logits = torch.tensor([[0.0, 0.0], [math.log(3), 0.0], [5.0, 5.0]])
    teacher = torch.tensor([[99.0, -99.0], [math.log(3), 0.0], [0.0, 2.0]])
    compared = torch.tensor([False, True, True])
    rows = Rows.of(batch_of(torch.tensor([1, 0, -100]), teacher, compared))
    term = term_of(tiny_teacher)
    total, sums = term(Outputs(torch.zeros(3, 4, 1), logits=logits), None, rows, SCALES)
    p = 1 / (1 + math.e)
    kl = 4 * (p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p)))
    cross_entropy = math.log(2) + math.log(4 / 3)
    assert sums["logits"].item() == pytest.approx(kl, rel=1e-5)
    assert sums["labels"].item() == pytest.approx(cross_entropy, rel=1e-5)
    assert total.item() == pytest.approx(0.5 * kl + 2 * cross_entropy, rel=1e-5)
    assert {name: int(count) for name, count in term.counts(rows).items()} == {"logits": 2, "labels": 2}


def test_a_tagger_compares_chosen_tokens_alone(tiny_teacher: Teacher) -> None:
    labels = torch.tensor([[-100, 1, -100, 0], [-100, 2, -100, -100]])
    compared = torch.tensor([[False, True, False, True], [False, True, False, False]])
    generator = torch.Generator().manual_seed(0)
    logits, teacher = (torch.randn(2, 4, CLASSES, generator=generator) for _ in range(2))
    rows = Rows.of(batch_of(labels, teacher, compared))
    _, sums = term_of(tiny_teacher)(Outputs(torch.zeros(2, 4, 1), logits=logits), None, rows, SCALES)
    places = [(0, 1), (0, 3), (1, 1)]
    by_hand = sum(divergence(logits[place][None], teacher[place][None], 2.0).item() for place in places)
    assert sums["logits"].item() == pytest.approx(by_hand, rel=1e-5)
    # What stands elsewhere, padding among it, changes nothing.
    logits[~compared], teacher[~compared] = math.nan, math.inf
    rows = Rows.of(batch_of(labels, teacher, compared))
    assert term_of(tiny_teacher)(Outputs(torch.zeros(2, 4, 1), logits=logits), None, rows, SCALES)[1] == sums


def test_start_and_end_of_an_answer_are_rows_over_the_tokens(tiny_teacher: Teacher) -> None:
    """Two texts, the second of two tokens: padding is no place for an answer, whatever its logits are."""
    log3 = math.log(3)
    logits = torch.tensor([[[log3, 0.0, 0.0], [0.0, 0.0, 0.0]], [[0.0, 0.0, 50.0], [log3, 0.0, 50.0]]])
    teacher = torch.tensor([[[9.0, 0.0, 0.0], [9.0, 0.0, 0.0]], [[0.0, 0.0, -1e4], [2.0, 0.0, -1e4]]])
    labels = torch.tensor([[0, 2], [-100, -100]])
    batch = batch_of(labels, teacher, torch.tensor([[False, False], [True, True]]), length=3)
    batch["attention_mask"][1, 2] = 0
    rows = Rows.of(batch)
    _, sums = term_of(tiny_teacher)(Outputs(torch.zeros(2, 3, 1), logits=logits), None, rows, SCALES)
    # At temperature 2 the student's odds are √3 to 1 and the teacher's e to 1.
    p, q = math.e / (math.e + 1), math.sqrt(3) / (math.sqrt(3) + 1)
    kl = 4 * (p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q)))
    assert sums["logits"].item() == pytest.approx(kl, rel=1e-4)
    assert sums["labels"].item() == pytest.approx(math.log(5 / 3) + math.log(3), rel=1e-5)


def test_losses_of_several_classes_worked_by_hand(tiny_teacher: Teacher) -> None:
    """The first text has labels and no teacher, the second a teacher and no labels: NaN stands for these."""
    log3 = math.log(3)
    logits = torch.tensor([[log3, -log3], [0.0, 0.0]], requires_grad=True)
    teacher = torch.tensor([[math.nan, math.nan], [2.0, 0.0]])
    labels, compared = torch.tensor([[1.0, 1.0], [math.nan, math.nan]]), torch.tensor([False, True])
    rows, term = Rows.of(batch_of(labels, teacher, compared)), term_of(tiny_teacher)
    total, sums = term(Outputs(torch.zeros(2, 4, 1), logits=logits), None, rows, SCALES)
    p = math.e / (math.e + 1)
    # The mean over the two classes: of the second both say one half.
    kl = 4 * (p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p))) / 2
    cross_entropy = (math.log(4 / 3) + math.log(4)) / 2
    assert sums["logits"].item() == pytest.approx(kl, rel=1e-5)
    assert sums["labels"].item() == pytest.approx(cross_entropy, rel=1e-5)
    assert {name: int(count) for name, count in term.counts(rows).items()} == {"logits": 1, "labels": 1}
    total.backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_losses_of_numbers_are_squared_differences(tiny_teacher: Teacher) -> None:
    """At any temperature, and with a number that stands for no class elsewhere."""
    logits = torch.tensor([[0.5], [2.0], [7.0]], requires_grad=True)
    labels, compared = torch.tensor([-100.0, math.nan, 4.0]), torch.tensor([True, True, False])
    teacher = torch.tensor([[1.5], [-1.0], [math.nan]])
    rows, term = Rows.of(batch_of(labels, teacher, compared)), term_of(tiny_teacher, temperature=5.0)
    total, sums = term(Outputs(torch.zeros(3, 4, 1), logits=logits), None, rows, SCALES)
    assert sums["logits"].item() == pytest.approx(1 + 9)
    assert sums["labels"].item() == pytest.approx(100.5**2 + 9)
    assert {name: int(count) for name, count in term.counts(rows).items()} == {"logits": 2, "labels": 2}
    total.backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_a_batch_without_labels_has_no_loss_of_them(tiny_teacher: Teacher) -> None:
    rows = Rows.of(batch_of(torch.tensor([-100, -100]), torch.zeros(2, 2), torch.tensor([True, True])))
    logits = torch.zeros(2, 2, requires_grad=True)
    total, sums = term_of(tiny_teacher, ["labels"])(Outputs(torch.zeros(2, 4, 1), logits=logits), None, rows, SCALES)
    total.backward()
    assert float(sums["labels"].detach()) == 0
    assert logits.grad is not None
    assert logits.grad.abs().max() == 0


@pytest.mark.parametrize("kind", [AutoModelForSequenceClassification, AutoModelForTokenClassification])
def test_the_objective_runs_the_head(tiny_teacher: Teacher, kind: type) -> None:
    """The loss of the labels is that of transformers, and the gradient reaches every weight."""
    model = head_of(tiny_teacher, kind)
    is_tagger = kind is AutoModelForTokenClassification
    labels = torch.tensor([[-100, 1, 2, 0], [-100, 2, 1, -100]]) if is_tagger else torch.tensor([2, 0])
    compared = labels != -100
    batch = batch_of(labels, torch.zeros(*labels.shape, CLASSES), compared)
    objective = Objective(model, None, settings(logits=1.0, labels=1.0), peak_rates={"classifier.weight": 0.5})
    losses = objective(batch, objective.counts(batch))
    expected = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss
    assert losses["labels"].item() == pytest.approx(expected.item(), rel=1e-5)
    losses["loss"].backward()
    assert all(parameter.grad is not None for parameter in objective.parameters())
    assert objective.peak_rates() == {"model.classifier.weight": 0.5}


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        (torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]]), "multi_label_classification"),
        (torch.tensor([0.5, -3.0]), "regression"),
    ],
)
def test_the_loss_of_labels_is_that_of_transformers(tiny_teacher: Teacher, labels: Tensor, problem: str) -> None:
    outputs = CLASSES if labels.ndim == 2 else 1
    model = head_of(tiny_teacher, outputs=outputs)
    model.config.problem_type = problem
    batch = batch_of(labels, torch.zeros(2, outputs), torch.tensor([True, True]))
    objective = Objective(model, None, settings(logits=1.0, labels=1.0))
    losses = objective(batch, objective.counts(batch))
    expected = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss
    assert losses["labels"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_state_losses_run_the_teacher_beside_the_logits(tiny_teacher: Teacher) -> None:
    """A student that is its teacher's encoder, with all layers, has no distance of states."""
    teacher = AutoModelForSequenceClassification.from_config(tiny_teacher.model.config)
    teacher.bert.load_state_dict(tiny_teacher.model.bert.state_dict(), strict=False)
    student = head_of(tiny_teacher, layers=4)
    copied = build_student(tiny_teacher, StudentArchitecture(layers=4)).model
    student.distilbert.load_state_dict(copied.distilbert.state_dict())
    objective = Objective(student, teacher.eval(), settings(logits=1.0, hidden=1.0, attention=1.0))
    batch = batch_of(torch.tensor([0, -100]), torch.randn(2, 2), torch.tensor([True, True]))
    losses = objective(batch | {"teacher_logits": torch.randn(2, CLASSES)}, dict.fromkeys(objective.counts(batch), 1.0))
    assert losses["hidden"].item() == pytest.approx(0, abs=1e-5)
    assert losses["attention"].item() == pytest.approx(0, abs=1e-6)
    assert losses["logits"].item() > 0


@pytest.mark.parametrize("name", [name for name, loss in LOSSES.items() if loss.of_tasks])
def test_every_loss_of_tasks_has_a_term_and_a_sentence(tiny_teacher: Teacher, name: str) -> None:
    objective = Objective(head_of(tiny_teacher), tiny_teacher.model, settings(**{name: 1.0}))
    (term,) = objective.terms.values()
    assert term.names == (name,)
    assert "{" not in objective.describe()[name]["meaning"]


def test_messages_name_the_section_of_the_task(tiny_teacher: Teacher) -> None:
    with pytest.raises(UserError, match=r"^task.distillation.weights: all are 0"):
        Objective(head_of(tiny_teacher), None, settings())
    with pytest.raises(UserError, match=r"^task.distillation.weights: of hidden only logits and labels work without"):
        Objective(head_of(tiny_teacher), None, settings(hidden=1.0))
    deeper = settings(hidden=1.0).model_copy(update={"layer_map": [[9], [9]]})
    with pytest.raises(UserError, match=r"^task.distillation.layer_map: teacher layer 9 for student layer 1"):
        Objective(head_of(tiny_teacher), tiny_teacher.model, deeper)
