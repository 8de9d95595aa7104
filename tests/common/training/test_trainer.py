"""One process: what is optimised, what is reported, what is refused."""

import dataclasses
import json
import logging
import os
import runpy
import shutil
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import nn

from distilrubert.common import precision
from distilrubert.common.errors import UserError
from distilrubert.common.measurements import Measurements
from distilrubert.common.training import trainer
from distilrubert.common.training.batching import BatchPlan, build_loader
from distilrubert.common.training.live_progress import read_live_progress
from distilrubert.common.training.run_checkpoints import Checkpoints, moments_of
from distilrubert.common.training.signals import Interrupted
from distilrubert.common.training.tracking import check_trackers, start_trackers
from distilrubert.common.training.training_settings import TRACKERS, OptimizationSettings
from distilrubert.common.training.update import Updater, build_optimizer, build_schedule, parameter_groups
from distilrubert.common.training.validation import Validation
from distilrubert.distill.batches.masking import Masker
from distilrubert.distill.batches.masking_settings import MaskingSettings
from distilrubert.distill.corpus.store import Corpus
from distilrubert.distill.corpus.tokenisation import tokenizer_sha256
from distilrubert.distill.distillation import distill, pretrain_teacher
from distilrubert.distill.distillation_settings import DistillationSettings, PretrainingSettings
from distilrubert.distill.losses.objective import Objective
from distilrubert.distill.objective_settings import ObjectiveSettings
from distilrubert.modeling.architecture import StudentArchitecture
from distilrubert.modeling.student import build_student
from distilrubert.modeling.teacher import load_teacher, save_teacher

tiny = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("tiny_run.py"))))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The tiny run, done."""
    folder = tmp_path_factory.mktemp("finished")
    student, report = tiny.run(folder)
    return SimpleNamespace(folder=folder, student=student, report=report, digest=tiny.digest(student))


def objective_of(teacher: Any, student: Any, **settings: Any) -> Objective:
    return Objective(student.model, teacher.model, ObjectiveSettings(**settings))


def masker_of(teacher: Any, corpus: Any) -> Masker:
    tokenizer = teacher.tokenizer
    special = tokenizer.all_special_ids
    settings = MaskingSettings()
    return Masker(settings, corpus.token_counts, special, tokenizer.mask_token_id, tiny.SEED)


# What is optimised


def test_every_trained_parameter_is_optimised_exactly_once_and_only_matrices_decay() -> None:
    teacher = tiny.tiny_teacher()
    student = tiny.tiny_student(teacher)
    student.model.distilbert.embeddings.position_embeddings.requires_grad_(False)
    objective = objective_of(teacher, student, weights={"mlm": 1.0, "hidden": 1.0})
    decayed, kept = parameter_groups(objective, 0.1)
    names = {id(parameter): name for name, parameter in objective.named_parameters()}
    listed = [names[id(parameter)] for group in (decayed, kept) for parameter in group["params"]]
    trained = [name for name, parameter in objective.named_parameters() if parameter.requires_grad]
    assert sorted(listed) == sorted(trained)
    assert len(trained) == len(names) - 1
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.1, 0.0)
    spared = {name for name in names.values() if name.endswith(".bias") or "layer_norm" in name or "LayerNorm" in name}
    assert {names[id(parameter)] for parameter in kept["params"]} == spared
    assert any("sa_layer_norm.weight" in name for name in spared)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("linear", [0.5, 1.0, 0.8, 0.6, 0.4, 0.2]),
        ("constant_with_warmup", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
        # (1 + cos(pi * k / 5)) / 2
        ("cosine", [0.5, 1.0, 0.904508, 0.654508, 0.345492, 0.095492]),
    ],
)
def test_the_learning_rate_rises_over_the_warm_up_and_no_update_is_for_nothing(
    schedule: str, expected: list[float]
) -> None:
    settings = OptimizationSettings(learning_rate=2.0, warmup=1 / 3, schedule=schedule)
    factor = build_schedule(build_optimizer(nn.Linear(2, 2), settings), settings, total_steps=6)
    assert [factor(step) for step in range(6)] == pytest.approx(expected, abs=1e-6)


def test_without_a_warm_up_the_first_update_has_the_full_learning_rate() -> None:
    settings = OptimizationSettings(learning_rate=2.0, warmup=0)
    factor = build_schedule(build_optimizer(nn.Linear(2, 2), settings), settings, total_steps=4)
    assert [factor(step) for step in range(4)] == pytest.approx([1.0, 0.75, 0.5, 0.25])


def test_the_split_into_batches_does_not_change_an_update() -> None:
    """Each loss is a mean over all rows of the update, not a mean of the batches' means."""
    teacher = tiny.tiny_teacher()
    corpus = tiny.tiny_corpus(teacher)
    masker = masker_of(teacher, corpus)
    settings = OptimizationSettings(learning_rate=0.005, warmup=0, precision="fp32", dropout=False)
    accelerator = Accelerator(cpu=True)
    results = []
    for plan in ([range(40)], [range(1), range(1, 30), range(30, 40)]):
        objective = objective_of(teacher, tiny.tiny_student(teacher))
        prepare, planned = objective.preparation(), [np.array(batch) for batch in plan]
        batches = list(build_loader(corpus.train, masker, planned, epoch=0, prepare=prepare))
        done = Updater(accelerator, objective, settings, 1, 0)(0, 0, range(len(plan)), batches, {})
        results.append((done, objective))
    (whole, one), (parts, other) = results
    assert parts.tokens == whole.tokens == corpus.train.lengths[:40].sum()
    assert whole.losses["kl"] > 0.1
    assert parts.losses == pytest.approx(whole.losses, rel=1e-5)
    for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_only_the_student_changes(tmp_path: Path) -> None:
    teacher = tiny.tiny_teacher()
    before = {name: value.clone() for name, value in teacher.model.state_dict().items()}
    student = tiny.tiny_student(teacher)
    untouched = tiny.digest(student)
    distill(teacher, student, tiny.tiny_corpus(teacher), tiny.settings(max_steps=2), tmp_path, tiny.SEED)
    assert all(torch.equal(value, before[name]) for name, value in teacher.model.state_dict().items())
    assert tiny.digest(student) != untouched
    assert not student.model.training
    assert student.model.distilbert.embeddings.word_embeddings.weight is student.model.vocab_projector.weight


def test_frozen_embeddings_stay_and_all_else_is_trained(tmp_path: Path) -> None:
    before = tiny.tiny_student(tiny.tiny_teacher()).model
    after = tiny.run(tmp_path, freeze_embeddings=True, dropout=False)[0].model
    stayed = {
        name
        for (name, old), new in zip(before.named_parameters(), after.parameters(), strict=True)
        if torch.equal(old, new)
    }
    assert stayed == {"distilbert.embeddings.word_embeddings.weight"}
    assert all(parameter.requires_grad for parameter in after.parameters())


def test_training_lowers_the_losses(tmp_path: Path) -> None:
    changes = {"weights": {"kl": 1.0, "cosine": 1.0}, "learning_rate": 0.003, "dropout": False}
    _, report = tiny.run(tmp_path, epochs=10, batches_per_update=1, checkpoint_every=None, **changes)
    first, last = report.details["validation"][0], report.details["validation"][-1]
    for name in ("kl", "cosine"):
        assert last[name] < 0.8 * first[name], name
    assert report.details["curves"][-1]["loss"] < report.details["curves"][0]["loss"]


def test_a_precision_that_something_else_gave_the_process_is_no_obstacle(tmp_path: Path) -> None:
    AcceleratorState._reset_state()
    Accelerator(cpu=True, mixed_precision="bf16")
    try:
        _, report = tiny.run(tmp_path, precision="fp32", max_steps=1)
        assert report.rows[0].values["precision"] == "fp32"
    finally:
        AcceleratorState._reset_state()


def test_a_run_keeps_the_arithmetic_that_it_began_with(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(precision, "bf16_gain", lambda: 2.0)
    straight, report = tiny.run(tmp_path / "straight", precision="auto")
    assert report.rows[0].values["precision"] == "bf16"
    update = Updater.__call__

    def stop_at_the_fourth(self: Updater, step: int, *arguments: Any) -> Any:
        if step == 3:
            raise RuntimeError("killed")
        return update(self, step, *arguments)

    with monkeypatch.context() as dying:
        dying.setattr(Updater, "__call__", stop_at_the_fourth)
        with pytest.raises(RuntimeError, match="killed"):
            tiny.run(tmp_path / "killed", precision="auto", checkpoint_every=1)
    # The machine is another, or was busy when it was asked.
    monkeypatch.setattr(precision, "bf16_gain", lambda: 0.5)
    resumed, report = tiny.run(tmp_path / "killed", precision="auto", checkpoint_every=1)
    assert (report.rows[0].values["precision"], report.rows[0].values["resumes"]) == ("bf16", 1)
    assert tiny.digest(resumed) == tiny.digest(straight)


def test_a_teacher_is_pretrained_in_place(tmp_path: Path) -> None:
    teacher = tiny.tiny_teacher()
    before = teacher.model.bert.embeddings.word_embeddings.weight.clone()
    settings = PretrainingSettings(**tiny.SETTINGS | {"epochs": 10, "checkpoint_every": None})
    report = pretrain_teacher(teacher, tiny.tiny_corpus(teacher), settings, tmp_path, tiny.SEED)
    assert report.rows[0].case == "pretraining"
    assert set(report.rows[0].values["losses"]) == {"loss", "mlm"}
    assert report.details["validation"][-1]["mlm"] < report.details["validation"][0]["mlm"]
    assert not torch.equal(teacher.model.bert.embeddings.word_embeddings.weight, before)
    assert not teacher.model.training
    assert not any(parameter.requires_grad for parameter in teacher.model.parameters())


def test_dropout_can_be_left_out(finished: SimpleNamespace, tmp_path: Path) -> None:
    without, _ = tiny.run(tmp_path, dropout=False)
    assert tiny.digest(without) != finished.digest


def test_the_same_run_again_is_the_same_and_the_callers_generator_is_left_alone(
    finished: SimpleNamespace, tmp_path: Path
) -> None:
    torch.manual_seed(123)
    state = torch.get_rng_state()
    again, report = tiny.run(tmp_path, num_workers=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert tiny.digest(again) == finished.digest
    assert report.details["curves"] == finished.report.details["curves"]


def test_bf16_trains(tmp_path: Path) -> None:
    student, report = tiny.run(tmp_path, precision="bf16", max_steps=3)
    assert report.rows[0].values["precision"] == "bf16"
    assert np.isfinite(tiny.weights_of(student)).all()
    assert next(student.model.parameters()).dtype == torch.float32


def test_an_update_that_is_not_finite_changes_neither_weights_nor_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = tiny.tiny_teacher()
    corpus = tiny.tiny_corpus(teacher)
    objective = objective_of(teacher, tiny.tiny_student(teacher))
    settings = OptimizationSettings(warmup=0, precision="fp32")
    update = Updater(Accelerator(cpu=True), objective, settings, 3, 0)
    masker, prepare = masker_of(teacher, corpus), objective.preparation()
    batches = list(build_loader(corpus.train, masker, [np.arange(8)], epoch=0, prepare=prepare))
    assert not update(0, 0, [0], batches, {}).is_skipped
    weights = [weight.clone() for weight in objective.parameters()]
    moments = {name: value.clone() for name, value in moments_of(update.optimizer).items()}
    monkeypatch.setattr(Objective, "forward", Objective.forward)
    tiny.poison(Objective, divisor=1)
    skipped = update(1, 0, [1], batches, {"save": True})
    assert skipped.is_skipped
    assert skipped.requests == {"save": True}
    assert all(torch.equal(old, new) for old, new in zip(weights, objective.parameters(), strict=True))
    assert all(torch.equal(value, moments[name]) for name, value in moments_of(update.optimizer).items())
    assert all(weight.grad is None for weight in objective.parameters())


def test_updates_that_are_not_finite_are_skipped_and_counted_and_a_resumed_run_skips_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Objective, "forward", Objective.forward)
    tiny.poison(Objective)
    straight, report = tiny.run(tmp_path / "straight", log_every=1)
    skipped = report.rows[0].values["skipped_updates"]
    assert 0 < skipped < 12
    assert report.rows[0].values["steps"] == 14
    assert len(report.details["curves"]) == 14 - skipped
    assert np.isfinite(tiny.weights_of(straight)).all()
    assert sum("the update is skipped" in message for message in caplog.messages) == skipped
    update = Updater.__call__

    def stop_at_the_eighth(self: Updater, step: int, *arguments: Any) -> Any:
        if step == 7:
            raise RuntimeError("killed")
        return update(self, step, *arguments)

    with monkeypatch.context() as dying:
        dying.setattr(Updater, "__call__", stop_at_the_eighth)
        with pytest.raises(RuntimeError, match="killed"):
            tiny.run(tmp_path / "killed", log_every=1, checkpoint_every=1)
    resumed, again = tiny.run(tmp_path / "killed", log_every=1, checkpoint_every=1)
    assert tiny.digest(resumed) == tiny.digest(straight)
    assert (again.rows[0].values["skipped_updates"], again.details["curves"]) == (skipped, report.details["curves"])


# The plan of batches and the validation


def test_the_plan_can_be_entered_at_any_update() -> None:
    lengths = np.random.default_rng(0).integers(3, 20, 100).astype(np.int32)
    plan = BatchPlan(lengths, OptimizationSettings(batch_tokens=128, batches_per_update=2, epochs=3), seed=1)
    whole = [(epoch, batch.tolist()) for epoch, _, batches in plan.remaining(0) for batch in batches]
    assert len(whole) == 2 * plan.total_steps
    for step in range(plan.total_steps + 1):
        rest = [(epoch, batch.tolist()) for epoch, _, batches in plan.remaining(step) for batch in batches]
        assert rest == whole[2 * step :]
    (_, _, whole_epoch), (epoch, first, rest_of_epoch) = next(plan.remaining(0)), next(plan.remaining(3))
    assert (epoch, first) == (0, 6)
    assert rest_of_epoch[0].tolist() == whole_epoch[6].tolist()


@pytest.mark.parametrize(("max_steps", "expected"), [(5, 5), (10_000, None), (None, None)])
def test_the_plan_ends_at_max_steps_or_with_the_epochs(max_steps: int | None, expected: int | None) -> None:
    lengths = np.random.default_rng(0).integers(3, 20, 100).astype(np.int32)
    changes = {"batch_tokens": 128, "batches_per_update": 2, "epochs": 2}
    plan = BatchPlan(lengths, OptimizationSettings(**changes, max_steps=max_steps), seed=1)
    examples = [index for *_, batches in plan.remaining(0) for batch in batches for index in batch.tolist()]
    if expected:
        assert plan.total_steps == expected
        assert sum(len(batches) for *_, batches in plan.remaining(0)) == 2 * expected
    else:
        assert sorted(examples) == sorted([*range(100), *range(100)])


def test_the_validation_does_not_depend_on_the_batches() -> None:
    teacher = tiny.tiny_teacher()
    corpus = tiny.tiny_corpus(teacher)
    objective = objective_of(teacher, tiny.tiny_student(teacher)).train()
    measured = []
    for batch_tokens in (24, 4096):
        settings = OptimizationSettings(batch_tokens=batch_tokens)
        masker, accelerator = masker_of(teacher, corpus), Accelerator(cpu=True)
        validation = Validation(corpus.validation, masker, objective, settings, 0, accelerator)
        measured += [validation.measure("fp32"), validation.measure("fp32")]
    assert set(measured[0]) == {"kl", "mlm", "cosine", "loss"}
    assert measured[0] == measured[1]
    assert measured[0] == pytest.approx(measured[2], rel=1e-5)


def test_without_held_out_text_there_is_no_validation(tmp_path: Path) -> None:
    teacher = tiny.tiny_teacher()
    corpus = tiny.tiny_corpus(teacher, held_out=0)
    report = distill(teacher, tiny.tiny_student(teacher), corpus, tiny.settings(max_steps=2), tmp_path, 0)
    assert report.details["validation"] == []
    assert report.rows[0].values["validation_losses"] is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_mac_trains_on_its_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its GPU has no float64, which sums over processes need."""
    monkeypatch.setattr("accelerate.state.is_mps_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setenv("PYTORCH_ENABLE_MPS_FALLBACK", "1")
    PartialState._reset_state()
    _, report = tiny.run(tmp_path, max_steps=1)
    assert report.rows[0].values["steps"] == 1
    assert PartialState().device.type == "cpu"


# The report


def test_the_report_says_what_was_done(finished: SimpleNamespace) -> None:
    figures, curves = finished.report.rows[0].values, finished.report.details["curves"]
    corpus = tiny.tiny_corpus(tiny.tiny_teacher())
    assert finished.report.rows[0].case == "distillation"
    assert figures["tokens"] == 2 * corpus.train.lengths.sum()
    assert figures["epochs"] == 2.0
    assert 0 < figures["padded_share"] < 0.5
    assert figures["parameters"] == sum(parameter.numel() for parameter in finished.student.model.parameters())
    assert [point["step"] for point in curves] == [3, 6, 9, 12, 14]
    assert curves[-1]["step"] == figures["steps"] == 14
    assert curves[-1]["tokens"] == figures["tokens"]
    weights = {"kl": 5.0, "mlm": 2.0, "cosine": 1.0}
    for point in curves:
        assert point["loss"] == pytest.approx(sum(weight * point[name] for name, weight in weights.items()), rel=1e-5)
    assert figures["losses"] == {name: curves[-1][name] for name in (*weights, "loss")}
    assert [point["step"] for point in finished.report.details["validation"]] == [6, 12, 14]
    parts = [figures[f"{name}_time_s"] for name in ("training", "validation", "checkpoint")]
    assert all(part > 0 for part in parts)
    assert sum(parts) == pytest.approx(figures["wall_time_s"])
    assert figures["tokens_per_s"] == pytest.approx(figures["tokens"] / figures["training_time_s"])
    assert figures["peak_memory_mib"] > 50
    assert (figures["peak_gpu_memory_mib"], figures["resumes"], figures["processes"]) == (None, 0, 1)


def test_whoever_watches_reads_how_far_it_is(finished: SimpleNamespace) -> None:
    progress = read_live_progress(finished.folder)
    assert progress is not None
    steps = finished.report.rows[0].values["steps"]
    assert (progress["step"], progress["total_steps"], progress["left_s"]) == (steps, steps, 0)
    assert progress["losses"] == pytest.approx(finished.report.rows[0].values["losses"])
    assert progress["tokens_per_s"] > 0
    assert 0 <= time.time() - progress["written_at"] < 3600


def test_the_report_is_a_measurement_file(finished: SimpleNamespace, tmp_path: Path) -> None:
    path = tmp_path / "training.json"
    finished.report.save(path)
    assert Measurements.load(path) == finished.report
    measurements = Measurements.load(path)
    assert measurements["distillation"].values["steps"] == 14
    assert set(measurements.details) == {"settings", "losses", "curves", "validation"}
    assert set(measurements.details["losses"]) == {"kl", "mlm", "cosine"}
    assert measurements.details["settings"]["learning_rate"] == 0.01


def test_no_bar_is_drawn_where_standard_error_is_no_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "distilrubert"):
        tiny.run(tmp_path, max_steps=3)
    assert "\r" not in capfd.readouterr().err
    (line,) = [message for message in caplog.messages if "step 3" in message]
    for shown in ("kl", "mlm", "cosine", "learning_rate", "tokens/s"):
        assert shown in line


# Going on


def test_a_finished_run_is_only_loaded(finished: SimpleNamespace) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.folder.rglob("*")}
    student, report = tiny.run(finished.folder)
    assert tiny.digest(student) == finished.digest
    assert report == finished.report
    assert {path: path.stat().st_mtime_ns for path in finished.folder.rglob("*.*")}.items() <= before.items()


def test_asked_to_stop_before_the_first_update_it_begins_from_there(
    finished: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "start_trackers", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted, match=r"stopped at step 0; the newest checkpoint is .*checkpoint-00000000"):
            tiny.run(tmp_path)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == handlers
    assert caplog.messages.count("asked to stop: saving a checkpoint first; Ctrl-C now stops without one") == 1
    student, report = tiny.run(tmp_path)
    assert tiny.digest(student) == finished.digest
    assert report.details["curves"] == finished.report.details["curves"]


def test_a_checkpoint_holds_the_student_and_no_teacher(finished: SimpleNamespace) -> None:
    tensors = load_file(finished.folder / "checkpoints" / "checkpoint-00000014" / "model.safetensors")
    parameters = sum(parameter.numel() for parameter in finished.student.model.parameters())
    assert sum(tensor.numel() for tensor in tensors.values()) == parameters


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"learning_rate": 0.02}, "distillation.learning_rate was 0.01 and is 0.02"),
        ({"weights": {"kl": 1.0}}, "distillation.weights.cosine was 1.0 and is 0.0"),
        ({"masking": {"probability": 0.2}}, "distillation.masking.probability was 0.15 and is 0.2"),
        ({"max_steps": 5}, "distillation.max_steps was null and is 5"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused(finished: SimpleNamespace, change: Any, told: str) -> None:
    with pytest.raises(UserError, match="checkpoint-00000014: belongs to another run") as caught:
        tiny.run(finished.folder, **change)
    assert told in str(caught.value)
    assert (finished.folder / "checkpoints" / "checkpoint-00000014").exists()


def test_a_checkpoint_of_another_corpus_or_seed_is_refused(finished: SimpleNamespace) -> None:
    teacher = tiny.tiny_teacher()
    student, other = tiny.tiny_student(teacher), tiny.tiny_corpus(teacher, sequences=80)
    with pytest.raises(UserError, match=r"corpus\.sequences was 90 and is 80"):
        distill(teacher, student, other, tiny.settings(), finished.folder, tiny.SEED)
    with pytest.raises(UserError, match="seed was 7 and is 8"):
        distill(teacher, student, tiny.tiny_corpus(teacher), tiny.settings(), finished.folder, 8)


def test_a_checkpoint_of_a_student_with_other_heads_is_refused(finished: SimpleNamespace) -> None:
    """The shapes of the weights do not tell."""
    teacher = tiny.tiny_teacher()
    student = build_student(teacher, StudentArchitecture(layers=1, heads=1, initialise_from="random"), tiny.SEED)
    with pytest.raises(UserError, match=r"belongs to another run: config\.n_heads was 2 and is 1"):
        distill(teacher, student, tiny.tiny_corpus(teacher), tiny.settings(), finished.folder, tiny.SEED)


def test_a_checkpoint_of_another_teacher_is_refused_and_not_one_of_a_teacher_that_was_moved(
    finished: SimpleNamespace, tmp_path: Path
) -> None:
    save_teacher(tiny.tiny_teacher(), tmp_path / "moved")
    moved = load_teacher(tmp_path / "moved")
    student, corpus = tiny.tiny_student(moved), tiny.tiny_corpus(moved)
    distill(moved, student, corpus, tiny.settings(), finished.folder, tiny.SEED)
    assert tiny.digest(student) == finished.digest
    with torch.no_grad():
        moved.model.bert.embeddings.LayerNorm.bias[3] += 0.5
    with pytest.raises(UserError, match=r"belongs to another run: teacher\.sha256 was [0-9a-f]{64} and is"):
        distill(moved, student, corpus, tiny.settings(), finished.folder, tiny.SEED)


@pytest.mark.parametrize("part", ["identity", "progress"])
def test_a_checkpoint_of_another_version_is_refused_in_one_line(
    finished: SimpleNamespace, tmp_path: Path, part: str
) -> None:
    shutil.copytree(finished.folder, tmp_path / "old")
    path = tmp_path / "old/checkpoints/checkpoint-00000014/state.json"
    state = json.loads(path.read_text())
    if part == "progress":
        state["progress"]["forgotten"] = 1.0
    else:
        del state["identity"]
    path.write_text(json.dumps(state))
    with pytest.raises(UserError, match="checkpoint-00000014: was written by another version of distilrubert; remove"):
        tiny.run(tmp_path / "old")


def test_a_checkpoint_of_a_version_without_a_setting_is_resumed_while_that_is_at_its_default(
    finished: SimpleNamespace, tmp_path: Path
) -> None:
    shutil.copytree(finished.folder, tmp_path / "old")
    path = tmp_path / "old/checkpoints/checkpoint-00000014/state.json"
    state = json.loads(path.read_text())
    del state["identity"]["distillation"]["freeze_embeddings"], state["identity"]["distillation"]["weights"]["hidden"]
    path.write_text(json.dumps(state))
    student, _ = tiny.run(tmp_path / "old")
    assert tiny.digest(student) == finished.digest
    with pytest.raises(UserError, match=r"freeze_embeddings was not set and is true"):
        tiny.run(tmp_path / "old", freeze_embeddings=True)


def test_recomputing_blocks_changes_nothing_but_memory(finished: SimpleNamespace, tmp_path: Path) -> None:
    student, report = tiny.run(tmp_path, gradient_checkpointing=True)
    assert tiny.digest(student) == finished.digest
    assert report.details["curves"] == finished.report.details["curves"]
    assert not student.model.is_gradient_checkpointing


def test_what_is_only_shown_or_kept_may_change(finished: SimpleNamespace) -> None:
    student, _ = tiny.run(finished.folder, log_every=1, validate_every=2, checkpoint_every=7, keep_checkpoints=9)
    assert tiny.digest(student) == finished.digest


def test_checkpoints_come_by_the_clock_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[int] = []
    save = Checkpoints.save
    monkeypatch.setattr(Checkpoints, "save", lambda self, step, *rest: (saved.append(step), save(self, step, *rest))[1])
    tiny.run(tmp_path, checkpoint_every=None, checkpoint_minutes=1e-9, max_steps=4)
    assert saved == [1, 2, 3, 4]


# What is refused


def test_too_many_updates_in_a_row_that_are_not_finite_end_training_and_the_checkpoint_stays(tmp_path: Path) -> None:
    changes = {"learning_rate": 1e30, "max_grad_norm": 1e30, "warmup": 0, "checkpoint_every": 1}
    with pytest.raises(UserError, match=r"distillation: step 5 is not finite: .*loss (nan|inf).*the 3 upd") as caught:
        tiny.run(tmp_path, **changes, max_skipped_updates=3)
    (newest, *_) = sorted((tmp_path / "checkpoints").iterdir(), reverse=True)
    assert str(newest) in str(caught.value)
    tensors = load_file(newest / "model.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())


def test_a_batch_that_is_too_large_for_the_gpu_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(*arguments: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(Objective, "forward", forward)
    with pytest.raises(UserError, match="distillation: a batch needs more memory than the GPU has; make the batches"):
        tiny.run(tmp_path, max_steps=2)


def test_a_run_of_which_no_update_is_finite_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Objective, "forward", Objective.forward)
    tiny.poison(Objective, divisor=1)
    with pytest.raises(UserError, match="distillation: step 2 is not finite"):
        tiny.run(tmp_path, max_steps=2)


def test_a_corpus_too_small_for_one_update_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="batches_per_update: 200 batches cannot be made of 90 sequences"):
        tiny.run(tmp_path, batches_per_update=200)


def test_a_corpus_of_another_vocabulary_is_refused(tmp_path: Path) -> None:
    teacher = tiny.tiny_teacher()
    corpus = tiny.tiny_corpus(teacher)
    corpus = Corpus(corpus.train, corpus.validation, {}, corpus.token_counts[:-1])
    size = len(teacher.tokenizer)
    with pytest.raises(UserError, match=rf"corpus: it was tokenised with {size - 1} \w+, and the model has {size}"):
        distill(teacher, tiny.tiny_student(teacher), corpus, tiny.settings(), tmp_path, 0)


def test_a_corpus_of_another_tokenizer_of_the_same_size_is_refused(tmp_path: Path) -> None:
    teacher = tiny.tiny_teacher()
    corpus, student = tiny.tiny_corpus(teacher), tiny.tiny_student(teacher)
    own = dataclasses.replace(corpus, manifest={"tokenizer": {"sha256": tokenizer_sha256(teacher.tokenizer)}})
    distill(teacher, student, own, tiny.settings(max_steps=1), tmp_path / "own", tiny.SEED)
    other = dataclasses.replace(corpus, manifest={"tokenizer": {"sha256": "0" * 64}})
    with pytest.raises(UserError, match="corpus: it was tokenised with another tokenizer than the model has"):
        distill(teacher, student, other, tiny.settings(max_steps=1), tmp_path / "other", tiny.SEED)


def test_a_folder_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(UserError, match="run/checkpoints: cannot be written: Not a directory"):
        tiny.run(tmp_path / "run")


# Trackers


def test_tensorboard_receives_the_curves(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _, report = tiny.run(tmp_path, trackers=["tensorboard"])
    events = EventAccumulator(str(tmp_path / "trackers" / "distilrubert"))
    events.Reload()
    measured = {"epoch", "tokens_per_s", "peak_memory_mib", "skipped_updates"}
    assert measured <= set(events.Tags()["scalars"])
    assert events.Scalars("epoch")[-1].value == 2.0
    for name in ("loss", "kl", "mlm", "cosine", "learning_rate", "gradient_norm"):
        written = [(event.step, event.value) for event in events.Scalars(name)]
        assert written == [(point["step"], pytest.approx(point[name], rel=1e-6)) for point in report.details["curves"]]
    assert [event.step for event in events.Scalars("validation/mlm")] == [6, 12, 14]


def test_a_resumed_run_goes_on_in_its_trackers_with_all_its_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    update = Updater.__call__

    def stop_at_the_sixth(self: Updater, step: int, *arguments: Any) -> Any:
        if step == 5:
            raise RuntimeError("killed")
        return update(self, step, *arguments)

    changes = {"trackers": ["tensorboard"], "log_every": 1, "checkpoint_every": 3}
    with monkeypatch.context() as dying:
        dying.setattr(Updater, "__call__", stop_at_the_sixth)
        with pytest.raises(RuntimeError, match="killed"):
            tiny.run(tmp_path, **changes)
    tiny.run(tmp_path, **changes)
    folder = tmp_path / "trackers" / "distilrubert"
    events = EventAccumulator(str(folder))
    events.Reload()
    # The fourth and fifth update were logged twice; the first time no longer counts.
    assert [event.step for event in events.Scalars("loss")] == list(range(1, 15))
    (hparams,) = folder.glob("*/hparams.yml")
    settings = yaml.safe_load(hparams.read_text())
    assert settings["weights.kl"] == 5.0
    assert settings["masking.probability"] == 0.15
    assert (settings["betas.0"], settings["trackers.0"]) == (0.9, "tensorboard")
    assert settings["seed"] == tiny.SEED


def test_a_tracker_is_told_which_run_it_is() -> None:
    """Weights & Biases goes on with an id that we choose, MLflow with the one that it gave."""
    seen: list[dict[str, Any]] = []
    started = SimpleNamespace(name="mlflow", tracker=SimpleNamespace(info=SimpleNamespace(run_id="its own")))
    accelerator = SimpleNamespace(
        project_dir="folder",
        trackers=[started],
        is_main_process=True,
        init_trackers=lambda project, config, init_kwargs: seen.append(
            {"project": project, "config": config, **init_kwargs}
        ),
    )
    ids = start_trackers(accelerator, "recipe", "distillation", {"weights": {"kl": 1.0}, "max_steps": None}, 0, {})
    assert start_trackers(accelerator, "recipe", "distillation", {}, 7, ids) == ids
    new, resumed = seen
    assert new["project"] == "recipe"
    assert new["config"] == {"weights.kl": 1.0, "max_steps": "null"}
    assert new["wandb"] == {
        "dir": "folder",
        "id": ids["run"],
        "name": f"distillation-{ids['run'][:8]}",
        "resume": "allow",
    }
    assert resumed["wandb"] == new["wandb"]
    assert resumed["config"] is None
    assert (new["mlflow"]["run_id"], resumed["mlflow"]["run_id"]) == (None, "its own")
    assert resumed["tensorboard"] == {"purge_step": 8}


def test_an_unknown_tracker_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"unknown tracker 'tensorbord'; allowed are .*tensorboard"):
        DistillationSettings(trackers=["tensorbord"])


def test_a_tracker_that_is_not_installed_is_refused(tmp_path: Path) -> None:
    from accelerate.tracking import get_available_trackers

    missing = next(name for name in TRACKERS if name not in map(str, get_available_trackers()))
    with pytest.raises(UserError, match=rf"distillation\.trackers: {missing} is not installed"):
        tiny.run(tmp_path, trackers=[missing])
    check_trackers([], "distillation.trackers")
