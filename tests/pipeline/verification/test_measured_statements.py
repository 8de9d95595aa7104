"""Speed and scores that a report states, against what is measured."""

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from distilrubert.common.derived import derive
from distilrubert.common.errors import UserError
from distilrubert.common.measurements import Environment, Measurements, Row
from distilrubert.evaluation.evaluation_settings import FinetuningSettings, QualitySettings
from distilrubert.evaluation.tasks.quality import measure_quality
from distilrubert.evaluation.tasks.task import TaskDefinition
from distilrubert.pipeline.verification import score_statements, speed_statements
from distilrubert.pipeline.verification.score_statements import check_scores, list_scores, margin_of
from distilrubert.pipeline.verification.speed_statements import check_sizes, check_speed


def row(case: str, latency: float, samples: float, noise: float = 0.0) -> Row:
    figures = {
        "latency_s": latency,
        "latency_spread_s": noise * latency,
        "samples_per_s": samples,
        "samples_spread_per_s": noise * samples,
    }
    return Row(case, figures, 1.0)


def report(*rows: Row, **environment: Any) -> Measurements:
    where = dataclasses.replace(Environment.capture(threads=1), **environment)
    return Measurements(
        where, list(rows), rows[0].case, {"sequence_length": 16, "starts": 1, "rounds": 1, "minimum_time_s": 0.0}
    )


STATED = report(row("teacher-pytorch-fp32", 4.0, 1.0), row("student-pytorch-fp32", 2.0, 3.0))


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Row]:
    """Rows that the next measurement gives."""
    rows: list[Row] = []
    monkeypatch.setattr(speed_statements, "measure_speed", lambda *_, **__: report(*rows))
    return rows


def verdicts(stated: Measurements, models: dict[str, Path], tolerance: float = 0.3) -> dict[str, str]:
    return {statement.quantity.split()[0]: statement.verdict for statement in check_speed(models, stated, tolerance)}


@pytest.fixture
def models(teacher_folder: Path, student_folder: Path) -> dict[str, Path]:
    return {"teacher": teacher_folder, "student": student_folder}


@pytest.mark.parametrize(
    ("latency", "samples", "noise", "expected"),
    [
        (2.0, 3.0, 0.0, ("holds", "holds")),
        (1.0, 9.0, 0.0, ("holds", "holds")),  # better than stated
        (2.59, 2.32, 0.0, ("holds", "holds")),  # gains of 1.544 and 2.32 times 1.3 reach 2 and 3
        (2.61, 2.30, 0.0, ("does not hold", "does not hold")),
        (3.1, 1.9, 0.2, ("holds", "does not hold")),  # 1.29 · (1 + .3 + .2 + .2) reaches 2, but 1.9 · 1.5 not 3
        (9.0, 0.1, 0.3, ("not checked", "does not hold")),  # latencies spread by .3 and .3: too much to say anything
    ],
)
def test_a_gain_may_be_smaller_by_tolerance_and_noise(
    measured: list[Row], models: dict[str, Path], latency: float, samples: float, noise: float, expected: Any
) -> None:
    teacher = row("teacher-pytorch-fp32", 4.0, 1.0)
    teacher.values["latency_spread_s"] = noise * 4.0
    measured += [teacher, row("student-pytorch-fp32", latency, samples, noise)]
    assert verdicts(STATED, models) == {"latency": expected[0], "throughput": expected[1]}


def test_a_report_cannot_widen_its_own_tolerance(measured: list[Row], models: dict[str, Path]) -> None:
    measured += [row("teacher-pytorch-fp32", 4.0, 1.0), row("student-pytorch-fp32", 4.0, 1.0)]
    for noise in (0.2, 0.9):
        boasting = report(row("teacher-pytorch-fp32", 4.0, 1.0, noise), row("student-pytorch-fp32", 2.6, 1.5, noise))
        assert verdicts(boasting, models) == {"latency": "does not hold", "throughput": "does not hold"}


def test_processors_without_known_instruction_sets_are_told_apart_by_name(
    measured: list[Row], models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = dataclasses.replace(Environment.capture(), instruction_sets=[], cpu="arm")
    monkeypatch.setattr(Environment, "capture", lambda threads=None: here)
    measured += [row("teacher-pytorch-fp32", 4.0, 1.0), row("student-pytorch-fp32", 8.0, 0.5)]
    same, other = (
        dataclasses.replace(STATED, environment=dataclasses.replace(here, threads=1, cpu=cpu)) for cpu in ("arm", "z80")
    )
    assert set(verdicts(same, models).values()) == {"does not hold"}
    assert set(verdicts(other, models).values()) == {"not checked"}


def test_another_kind_of_processor_is_shown_and_not_judged(measured: list[Row], models: dict[str, Path]) -> None:
    measured += [row("teacher-pytorch-fp32", 4.0, 1.0), row("student-pytorch-fp32", 8.0, 0.5)]
    stranger = report(*STATED.rows, instruction_sets=["z80"], cpu="Z80")
    statements = list(check_speed(models, stranger, 0.3))
    assert {statement.verdict for statement in statements} == {"not checked"}
    assert statements[0].found == 0.5
    assert statements[0].reason.startswith("another kind of processor: stated for Z80")


def test_without_the_teacher_the_first_file_is_the_measure(measured: list[Row], models: dict[str, Path]) -> None:
    stated = report(*STATED.rows, row("student-pytorch-bf16", 1.0, 6.0))
    measured += [row("student-pytorch-fp32", 2.0, 3.0), row("student-pytorch-bf16", 1.0, 6.0)]
    statements = list(check_speed({"student": models["student"]}, stated, 0.3))
    assert [
        (statement.subject, statement.quantity, statement.stated, statement.verdict) for statement in statements
    ] == [
        ("teacher-pytorch-fp32", "speed", None, "not checked"),
        ("student-pytorch-bf16", "latency ratio to student-pytorch-fp32", 2.0, "holds"),
        ("student-pytorch-bf16", "throughput ratio to student-pytorch-fp32", 2.0, "holds"),
    ]


def test_a_real_measurement_is_compared_with_itself(models: dict[str, Path]) -> None:
    """The report's own settings are used: with sixteen tokens this takes a moment."""
    statements = list(check_speed(models, STATED, tolerance=0.3))
    assert [statement.stated for statement in statements] == [2.0, 3.0]
    assert all(isinstance(statement.found, float) and statement.found > 0 for statement in statements)
    broken = dataclasses.replace(STATED, details={"batch_sizes": []})
    with pytest.raises(UserError, match=r"speed\.json: details\.batch_sizes"):
        list(check_speed(models, broken, 0.3))


def test_sizes_and_parameters(models: dict[str, Path]) -> None:
    size = (models["student"] / "model.safetensors").stat().st_size / 2**20
    stated = [
        Row("teacher-pytorch-fp32", {"parameters": 7}),
        Row("student-pytorch-fp32", {"size_mib": size, "parameters": 7}),
        Row("student-onnx-int8", {"size_mib": 1.0}),
    ]
    found = check_sizes({"student": models["student"]}, report(*stated))
    assert [(statement.quantity, statement.verdict) for statement in found] == [
        ("parameters", "not checked"),
        ("size_mib", "holds"),
        ("parameters", "does not hold"),
        ("size_mib", "does not hold"),  # there is no such file
    ]


def test_margins_are_those_of_the_t_distribution() -> None:
    # Of three runs: 4.303 standard errors. Few runs: 1.960 errors of the spread that is thought possible.
    assert margin_of(0.01, 3, 3, 1) == pytest.approx(4.3027 * 0.01 * (1 / 3 + 1) ** 0.5, rel=1e-4)
    assert margin_of(None, 1, 1, 1) == margin_of(0.04, 2, 1, 1) == pytest.approx(1.95996 * 0.05 * 2**0.5, rel=1e-4)
    assert margin_of(0.1, 3, 2, 2) == pytest.approx(1.95996 * 0.1, rel=1e-4)
    assert margin_of(0.001, 3, 3, 3) == 0.02


@pytest.fixture(scope="module")
def quality(student_folder: Path, noun_task: TaskDefinition, tmp_path_factory: pytest.TempPathFactory) -> Measurements:
    protocol = FinetuningSettings(learning_rates=[3e-3], epochs=3, patience=3, batch_size=8, precision="fp32")
    settings = QualitySettings(finetuning=protocol, seeds=[1, 2])
    cache = tmp_path_factory.mktemp("cache")
    return derive(measure_quality({"student": student_folder}, [noun_task], settings, [], cache))


def test_scores_are_measured_again(
    quality: Measurements, student_folder: Path, noun_task: TaskDefinition, tmp_path: Path
) -> None:
    def check(stated: Measurements, seeds: list[int] | None = None) -> dict[tuple[str, str], Any]:
        statements = check_scores({"student": student_folder}, stated, noun_task, seeds, tmp_path, {}, processes=2)
        return {(statement.subject, statement.quantity): statement for statement in statements}

    statements = check(quality)
    assert {statement.verdict for statement in statements.values()} == {"holds"}
    assert all(statement.stated == statement.found for statement in statements.values())
    assert statements.keys() >= {
        ("student", "nouns: accuracy"), ("student", "linear probe, nouns: accuracy"), ("bag-of-words", "nouns: f1"),
    }  # fmt: skip
    # No luck stands between a stated and a new score of what has no seeds, also where the report statements some.
    invented = copy.deepcopy(quality)
    for case, part in (("student", "linear_probe"), ("bag-of-words", "tasks")):
        figures = invented[case].values[part]["nouns"]
        figures["accuracy"]["mean"] += 0.03
        figures["run"] |= {"seeds": [1]}
    wrong = {key: statement.reason for key, statement in check(invented).items() if statement.verdict != "holds"}
    assert wrong == dict.fromkeys(
        [("student", "linear probe, nouns: accuracy"), ("bag-of-words", "nouns: accuracy")], "± 0.020"
    )
    alone = check(quality, seeds=[2])[("student", "nouns: accuracy")]
    assert alone.found == quality["student"].values["tasks"]["nouns"]["accuracy"]["values"][1]

    boasting = copy.deepcopy(quality)
    for part in ("tasks", "linear_probe"):
        boasting["student"].values[part]["nouns"]["accuracy"] |= {"mean": 2.0, "std": 0.01}
    wrong = {key for key, statement in check(boasting).items() if statement.verdict == "does not hold"}
    assert wrong == {("student", "nouns: accuracy"), ("student", "linear probe, nouns: accuracy")}


@pytest.mark.parametrize(
    ("stated", "found", "verdict"),
    [
        # Three new runs .01 apart, against three: an error of .0082, so a margin of .035.
        ([0.70, 0.70, 0.70], [0.72, 0.73, 0.74], "holds"),
        ([0.70, 0.70, 0.70], [0.73, 0.74, 0.75], "does not hold"),
        # Two tell little of their spread.
        ([0.70, 0.70], [0.705, 0.725], "holds"),
        ([0.69, 0.69], [0.71, 0.73], "not checked"),
        # However far apart the stated runs are, the new ones decide.
        ([0.50, 0.90], [0.75, 0.75], "does not hold"),
        ([0.70, 0.70], [0.66, 0.82], "not checked"),
        ([0.70, 0.70], [0.95, 0.99], "does not hold"),
        # Of one new run only the stated spread is known: .01, so a margin of .0497.
        ([0.70, 0.71, 0.72], [0.755], "holds"),
        ([0.70, 0.71, 0.72], [0.765], "does not hold"),
        ([0.50, 0.90], [0.65], "not checked"),
        # Of one against one nothing is known.
        ([0.70], [0.71], "holds"),
        ([0.70], [0.80], "not checked"),
        ([0.70], [0.85], "does not hold"),
    ],
)
def test_means_are_compared_as_far_as_new_runs_agree(
    stated: list[float],
    found: list[float],
    verdict: str,
    noun_task: TaskDefinition,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def report_of(values: list[float]) -> Measurements:
        run = {"learning_rate": 1e-3, "seeds": list(range(len(values)))}
        details = {"settings": {"finetuning": FinetuningSettings().model_dump()}, "tasks": {"nouns": {}}}
        row = Row("student", {"tasks": {"nouns": {"accuracy": {"values": values}, "run": run}}})
        return derive(Measurements(Environment.capture(), [row], "student", details))

    monkeypatch.setattr(score_statements, "measure_quality", lambda *_, **__: report_of(found))
    (statement,) = check_scores({"student": tmp_path}, report_of(stated), noun_task, None, tmp_path, {})
    assert statement.verdict == verdict


def test_a_metric_that_the_definition_does_not_list_is_named(
    quality: Measurements, student_folder: Path, noun_task: TaskDefinition, tmp_path: Path
) -> None:
    stated = copy.deepcopy(quality)
    figures = stated["student"].values["tasks"]["nouns"]
    figures["f1_macro"] = {"mean": 0.99, "std": 0.0, "values": [0.99, 0.99]}
    statements = check_scores({"student": student_folder}, stated, noun_task, None, tmp_path, {})
    (statement,) = (statement for statement in statements if statement.quantity == "nouns: f1_macro")
    assert (statement.verdict, statement.stated) == ("not checked", 0.99)
    assert statement.reason == "the task's definition does not list this metric"


def test_a_model_that_is_not_at_hand_and_a_task_that_nobody_measured(
    quality: Measurements, noun_task: TaskDefinition, tmp_path: Path
) -> None:
    statements = list(check_scores({}, quality, noun_task, None, tmp_path, {}))
    assert {statement.verdict for statement in statements} == {"not checked"}
    other = noun_task.model_copy(update={"name": "verbs"})
    with pytest.raises(UserError, match=r"task verbs: reports/quality\.json has no scores on it, only on nouns"):
        list(check_scores({}, quality, other, None, tmp_path, {}))


def test_what_was_not_asked_for_is_listed(quality: Measurements) -> None:
    assert [statement.quantity for statement in list_scores(quality, [])] == ["scores on nouns"]
    assert list(list_scores(quality, ["nouns"])) == []
