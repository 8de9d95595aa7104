import json
import re
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset
from transformers import AutoModelForTokenClassification, DistilBertConfig, ModernBertConfig

from distilrubert.common.errors import UserError
from distilrubert.common.training.batching import BatchPlan
from distilrubert.common.training.padding import padded_widths
from distilrubert.common.training.training_settings import OptimizationSettings
from distilrubert.common.training.update import Updater, build_optimizer
from distilrubert.evaluation.evaluation_settings import FinetuningSettings
from distilrubert.evaluation.tasks.finetuning import _load, _optimization, _set_dropout, finetune
from distilrubert.evaluation.tasks.kinds.task_kind import with_lengths
from distilrubert.evaluation.tasks.loading import load_encoder
from distilrubert.evaluation.tasks.task import TaskDefinition, load_task
from distilrubert.evaluation.tasks.task_data import TaskRows, load_rows
from distilrubert.evaluation.tasks.task_loss import TaskLoss, predict

SETTINGS = FinetuningSettings(epochs=10, patience=10, batch_size=8, precision="fp32")
RATE = 3e-3


@pytest.fixture(scope="module")
def rows(noun_task: TaskDefinition) -> TaskRows:
    return load_rows(noun_task)


@pytest.mark.parametrize("folder", ["teacher_folder", "student_folder"])
def test_teacher_and_student_learn_a_learnable_task(
    folder: str, noun_task: TaskDefinition, rows: TaskRows, request: pytest.FixtureRequest
) -> None:
    result = finetune(request.getfixturevalue(folder), noun_task, rows, SETTINGS, learning_rate=RATE, seed=1)
    assert set(result["test"]) == {"accuracy", "f1", "rows"}
    assert result["test"]["accuracy"] >= 0.9
    assert result["validation"]["accuracy"] >= 0.9
    assert result["epochs"] == 10


def test_the_same_seed_gives_the_same_scores_and_another_one_does_not(
    student_folder: Path, noun_task: TaskDefinition, rows: TaskRows
) -> None:
    settings = SETTINGS.model_copy(update={"epochs": 4})
    torch.manual_seed(5)
    first = finetune(student_folder, noun_task, rows, settings, learning_rate=RATE, seed=1)
    torch.manual_seed(6)  # what ran before must not matter
    again = finetune(student_folder, noun_task, rows, settings, learning_rate=RATE, seed=1)
    others = [finetune(student_folder, noun_task, rows, settings, learning_rate=RATE, seed=seed) for seed in (2, 3)]
    assert (first["test"], first["validation"]) == (again["test"], again["validation"])
    assert any(other["test"] != first["test"] for other in others)


def test_the_head_learns_at_its_own_rate(student_folder: Path, noun_task: TaskDefinition, rows: TaskRows) -> None:
    """At a rate of next to nothing for all the rest, only what the head learns can make a difference."""
    settings = SETTINGS.model_copy(update={"epochs": 2})
    unchanged, learned = (
        finetune(student_folder, noun_task, rows, settings, learning_rate=1e-12, seed=1)
        for settings in (settings, settings.model_copy(update={"head_learning_rate": 0.03}))
    )
    assert learned["test"] != unchanged["test"]


@pytest.mark.parametrize("folder", ["teacher_folder", "student_folder"])
def test_only_the_head_has_its_own_rate_and_decays_as_before(
    folder: str, noun_task: TaskDefinition, request: pytest.FixtureRequest
) -> None:
    model, _, head = _load(request.getfixturevalue(folder), noun_task, SETTINGS, 1)
    module = TaskLoss(model, dict.fromkeys(head, 1e-2))
    names = {id(weight): name for name, weight in model.named_parameters()}
    settings = OptimizationSettings(learning_rate=1e-4, weight_decay=0.01)
    groups = build_optimizer(module, settings, module.peak_rates()).param_groups
    found = {names[id(weight)]: (group["lr"], group["weight_decay"]) for group in groups for weight in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(found) == len(names)
    own = {name for name, (rate, _) in found.items() if rate == 1e-2}
    assert own == {name for name in names.values() if "classifier" in name or "pooler" in name}
    assert {rate for rate, _ in found.values()} == {1e-2, 1e-4}
    assert all((decay == 0.01) == (not re.search("bias|norm", name.lower())) for name, (_, decay) in found.items())


def test_both_rates_follow_the_schedule(student_folder: Path, noun_task: TaskDefinition) -> None:
    model, tokenizer, head = _load(student_folder, noun_task, SETTINGS, 1)
    module = TaskLoss(model, dict.fromkeys(head, 1e-2))
    settings = OptimizationSettings(learning_rate=1e-4, warmup=0.5, precision="fp32")
    update = Updater(Accelerator(cpu=True), module, settings, 4, 0)
    batch = module.preparation()({**tokenizer(["кот"], return_tensors="pt"), "labels": torch.tensor([0])})
    for step, factor in enumerate([0.5, 1.0, 2 / 3, 1 / 3]):
        assert update(step, 0, [0], [batch], {}).learning_rate == pytest.approx(1e-4 * factor)
        assert [group["lr"] for group in update.optimizer.param_groups] == pytest.approx(
            [1e-4 * factor, 1e-4 * factor, 1e-2 * factor, 1e-2 * factor]
        )


def test_an_update_has_batch_size_rows_of_similar_length() -> None:
    lengths = np.random.default_rng(0).integers(3, 60, 101).astype(np.int32)
    plan = BatchPlan(lengths, _optimization(SETTINGS, RATE, lengths), 1)
    assert plan.total_steps == 10 * 13
    _, _, batches = next(plan.remaining(0))
    assert sorted(map(len, batches)) == [5, *[8] * 12]
    assert max(np.ptp(padded_widths(lengths[batch])) for batch in batches) <= 16


def test_the_loss_is_the_models_own_over_all_labels(teacher_folder: Path) -> None:
    """Of words that have a label, in two batches with different numbers of them."""
    torch.manual_seed(0)
    model = AutoModelForTokenClassification.from_pretrained(teacher_folder, num_labels=3).eval()
    ids = torch.randint(5, 50, (3, 8))
    labels = torch.tensor([[-100, 0, 1, 2, -100, 1, 0, -100], [-100, 2, *[-100] * 6], [-100] * 8])
    whole = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    batches = [{name: value[rows] for name, value in whole.items()} for rows in ([0], [1], [2])]
    module = TaskLoss(model, {})
    assert [int(module.counts(batch)["task"]) for batch in (whole, *batches)] == [6, 5, 1, 0]
    losses = [module(batch, {"task": 6})["loss"] for batch in batches]
    assert float(sum(losses)) == pytest.approx(float(model(**whole).loss), rel=1e-5)
    assert float(losses[2]) == 0.0
    losses[2].backward()
    assert all(weight.grad is None or not weight.grad.any() for weight in model.parameters())


def test_predictions_are_in_the_order_of_the_features_and_do_not_depend_on_their_batches(student_folder: Path) -> None:
    model, tokenizer, _ = load_encoder(AutoModelForTokenClassification, student_folder, "a model")
    texts = ["кот", "собака дома", "летом у бабушки хлеб и чай, зимой тоже", "сыр"]
    features = with_lengths(tokenizer(texts))
    together, alone = (predict(model, features, tokenizer, "fp32", size) for size in (4, 1))
    for row, length in enumerate(features["length"]):
        expected = model(**tokenizer(texts[row], return_tensors="pt")).logits[0].detach()
        for logits in (together, alone):
            torch.testing.assert_close(torch.from_numpy(logits[row, :length]), expected, rtol=1e-4, atol=1e-5)


def test_it_stops_when_validation_no_longer_improves(
    student_folder: Path, noun_task: TaskDefinition, rows: TaskRows
) -> None:
    settings = SETTINGS.model_copy(update={"epochs": 40, "patience": 2})
    result = finetune(student_folder, noun_task, rows, settings, learning_rate=RATE, seed=1)
    assert result["epochs"] < 40


def test_the_best_epoch_is_scored_not_the_last(student_folder: Path, noun_task: TaskDefinition, rows: TaskRows) -> None:
    """With such a learning rate scores jump about: a longer run keeps the best epoch that a shorter one found."""
    settings = SETTINGS.model_copy(update={"warmup": 0.0, "epochs": 6})
    whole, stopped = (
        finetune(student_folder, noun_task, rows, settings, learning_rate=0.03, seed=1)
        for settings in (settings, settings.model_copy(update={"patience": 1}))
    )
    assert stopped["epochs"] < whole["epochs"]
    assert whole["validation"]["accuracy"] >= stopped["validation"]["accuracy"]


def test_nothing_is_left_behind_and_nothing_is_said(
    student_folder: Path,
    noun_task: TaskDefinition,
    rows: TaskRows,
    tmp_path: Path,
    capfd: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    settings = SETTINGS.model_copy(update={"epochs": 1})
    before = sorted(path.name for path in student_folder.iterdir())
    finetune(student_folder, noun_task, rows, settings, learning_rate=RATE, seed=1)
    assert list(tmp_path.iterdir()) == []
    assert sorted(path.name for path in student_folder.iterdir()) == before
    assert capfd.readouterr() == ("", "")


def test_pairs_are_told_apart_by_the_second_text(
    teacher_folder: Path, student_folder: Path, noun_task: TaskDefinition, rows: TaskRows
) -> None:
    """The class stands in the second text, for the teacher with its token types as for the student without."""
    pairs = noun_task.model_copy(update={"kind": "sentence-pair-classification"})

    def paired(part: Dataset) -> Dataset:
        return part.rename_column("text", "text_pair").add_column("text", ["что это"] * len(part))

    parts = TaskRows(paired(rows.train), paired(rows.validation), paired(rows.test))
    for folder in (teacher_folder, student_folder):
        result = finetune(folder, pairs, parts, SETTINGS, learning_rate=RATE, seed=1)
        assert result["test"]["accuracy"] >= 0.9


@pytest.mark.parametrize(
    ("kind", "bias", "problem_type"),
    [
        ("sentence-classification", "classifier.bias", "single_label_classification"),
        ("question-answering", "qa_outputs.bias", None),
    ],
)
def test_what_an_earlier_task_left_in_a_configuration_decides_nothing(
    teacher_folder: Path, noun_task: TaskDefinition, tmp_path: Path, kind: str, bias: str, problem_type: str | None
) -> None:
    folder = shutil.copytree(teacher_folder, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    of_another = {"problem_type": "multi_label_classification", "id2label": dict.fromkeys("012345", "x")}
    (folder / "config.json").write_text(json.dumps(config | of_another))
    classes = {"labels": []} if kind == "question-answering" else {}
    model, _, head = _load(folder, noun_task.model_copy(update={"kind": kind, **classes}), SETTINGS, 1)
    assert model.config.problem_type == problem_type
    assert bias in head
    assert len(model.get_parameter(bias)) == 2


@pytest.mark.parametrize(
    ("labels", "is_kept"), [(["animal", "food"], True), (["food", "animal"], False), (["a", "b"], False)]
)
def test_the_last_layer_is_kept_only_for_the_same_classes_in_their_order(
    teacher_folder: Path, noun_task: TaskDefinition, tmp_path: Path, labels: list[str], is_kept: bool
) -> None:
    model, tokenizer, _ = _load(teacher_folder, noun_task, SETTINGS, 1)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again, _, head = _load(tmp_path, noun_task.model_copy(update={"labels": labels}), SETTINGS, 2)
    assert list(again.config.id2label.values()) == labels
    assert (head == []) == is_kept
    assert torch.equal(again.classifier.weight, model.classifier.weight) == is_kept
    assert is_kept or head == ["classifier.weight", "classifier.bias"]


@pytest.mark.parametrize("kind", ["sentence-regression", "question-answering"])
def test_the_last_layer_of_scores_and_answers_is_kept(
    teacher_folder: Path, noun_task: TaskDefinition, tmp_path: Path, kind: str
) -> None:
    task = noun_task.model_copy(update={"kind": kind, "labels": []})
    model, tokenizer, head = _load(teacher_folder, task, SETTINGS, 1)
    assert head
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again, _, head = _load(tmp_path, task, SETTINGS, 2)
    assert head == []
    assert all(torch.equal(weight, again.state_dict()[name]) for name, weight in model.state_dict().items())


def test_a_folder_without_a_model_is_told(tmp_path: Path, noun_task: TaskDefinition, rows: TaskRows) -> None:
    with pytest.raises(UserError, match="cannot be loaded as a model to fine-tune"):
        finetune(tmp_path, noun_task, rows, SETTINGS, learning_rate=RATE, seed=1)


def test_dropout_is_set_wherever_an_architecture_has_it() -> None:
    config = DistilBertConfig()
    _set_dropout(config, 0.0)
    assert (config.dropout, config.attention_dropout, config.seq_classif_dropout, config.qa_dropout) == (0, 0, 0, 0)
    assert not hasattr(config, "hidden_dropout_prob")
    modern = ModernBertConfig(embedding_dropout=0.1, mlp_dropout=0.1)
    _set_dropout(modern, 0.0)
    assert {value for name, value in modern.to_dict().items() if "dropout" in name} == {0.0}


@pytest.mark.data
def test_a_tiny_model_goes_through_rusentiment(data_folder: Path, student_folder: Path) -> None:
    task = load_task("rusentiment")
    rows = load_rows(task, train_limit=200)
    settings = SETTINGS.model_copy(update={"epochs": 1})
    result = finetune(student_folder, task, rows, settings, learning_rate=RATE, seed=1)
    assert 0 < result["test"]["f1_weighted"] < 1
    assert (len(rows.train), len(rows.validation), len(rows.test)) == (180, 20, 2967)
