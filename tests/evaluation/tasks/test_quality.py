import json
import shutil
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distilrubert.common.derived import derive
from distilrubert.common.errors import UserError
from distilrubert.common.measurements import Measurements
from distilrubert.evaluation.evaluation_settings import FinetuningSettings, IntrinsicSettings, QualitySettings
from distilrubert.evaluation.tasks import task_runs
from distilrubert.evaluation.tasks.baselines import BASELINES
from distilrubert.evaluation.tasks.exported import Exporter
from distilrubert.evaluation.tasks.finetuning import finetune
from distilrubert.evaluation.tasks.quality import measure_quality
from distilrubert.evaluation.tasks.task import TaskDefinition
from distilrubert.evaluation.tasks.task_data import load_rows
from distilrubert.modeling.teacher import Teacher, new_teacher, save_teacher
from distilrubert.modeling.wordpiece import train_wordpiece
from distilrubert.pipeline.verification.score_statements import check_scores

SETTINGS = QualitySettings(
    intrinsic=IntrinsicSettings(sequences=20, sentences=2),
    finetuning=FinetuningSettings(learning_rates=[1e-6, 3e-3], epochs=9, patience=9, batch_size=8, precision="fp32"),
    seeds=[1, 2],
)
FEW = SETTINGS.model_copy(update={"finetuning": SETTINGS.finetuning.model_copy(update={"epochs": 1})})


@pytest.fixture(scope="module")
def held_out(fresh_teacher: Teacher, sentences: list[str]) -> list[np.ndarray]:
    return [np.array(ids) for ids in fresh_teacher.tokenizer(sentences)["input_ids"]]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, int]]:
    """Learning rate and seed of each fine-tuning that is really run."""
    runs: list[tuple[float, int]] = []

    def count(*arguments: Any, **options: Any) -> Any:
        runs.append((options["learning_rate"], options["seed"]))
        return finetune(*arguments, **options)

    monkeypatch.setattr(task_runs, "finetune", count)
    return runs


def test_the_report_of_teacher_and_student(
    teacher_folder: Path, student_folder: Path, noun_task: TaskDefinition, held_out: list[np.ndarray], tmp_path: Path
) -> None:
    models = {"teacher": teacher_folder, "student": student_folder}
    rows = load_rows(noun_task)
    measured = measure_quality(models, [noun_task], SETTINGS, held_out, tmp_path / "cache")
    measured.save(tmp_path / "quality.json")
    assert Measurements.load(tmp_path / "quality.json") == measured
    report = derive(measured)
    assert [row.case for row in report.rows] == ["teacher", "student", "bag-of-words", "majority-class"]
    for case in models:
        figures = report[case].values
        scores = figures["tasks"]["nouns"]
        assert scores["run"]["learning_rate"] == 3e-3  # with the other one nothing is learnt
        assert scores["run"]["seeds"] == [1, 2]
        train, *_, test = rows.train["text"], rows.validation, rows.test["text"]
        twice = sum(text in set(train) for text in test)
        sizes = {"train_rows": 96, "validation_rows": 24, "test_rows": 40, "test_rows_in_train": twice}
        assert sizes.items() <= scores["run"].items()
        values = scores["accuracy"]["values"]
        assert len(values) == 2
        assert scores["accuracy"]["mean"] == pytest.approx(sum(values) / 2)
        assert scores["accuracy"]["std"] == pytest.approx(statistics.stdev(values))
        assert 0 <= figures["masked_accuracy"] <= 1
        assert figures["pseudo_perplexity"] > 1
    assert "kl_to_teacher_nats" not in report["teacher"].values
    assert report["student"].values["kl_to_teacher_nats"] >= 0
    words = report["bag-of-words"].values["tasks"]["nouns"]
    assert (words["accuracy"], words["run"]["train_rows"]) == ({"values": [1.0], "mean": 1.0, "std": None}, 96)
    assert report.baseline == "teacher"
    assert report["teacher"].ratio == 1
    means = [report[case].values["tasks"]["nouns"]["accuracy"]["mean"] for case in ("student", "teacher")]
    assert report["student"].ratio == pytest.approx(means[0] / means[1])
    assert report.details["tasks"]["nouns"]["main_metric"] == "accuracy"
    majority = report["majority-class"].values["tasks"]["nouns"]["accuracy"]["mean"]
    gain = report["student"].values["gain_over_majority"]["nouns"]
    assert gain["value"] == pytest.approx((means[0] - majority) / (means[1] - majority))
    assert gain["standard_error"] >= 0
    assert "gain_over_majority" not in report["teacher"].values


def test_what_is_probed_only_is_not_fine_tuned(
    student_folder: Path, noun_task: TaskDefinition, tmp_path: Path, counted: list[tuple[float, int]]
) -> None:
    report = derive(
        measure_quality({"student": student_folder}, [], SETTINGS, [], tmp_path / "cache", probed=[noun_task])
    )
    assert counted == []
    figures = report["student"].values
    assert figures["tasks"] == {}
    assert figures["linear_probe"]["nouns"]["accuracy"]["mean"] > 0.8
    assert report["bag-of-words"].values["tasks"]["nouns"]["accuracy"]["mean"] == 1.0
    assert report["student"].ratio is None
    assert report.details["tasks"]["nouns"]["split"] == "train"
    statements = check_scores({"student": student_folder}, report, noun_task, None, tmp_path / "again", {})
    assert {(statement.subject, statement.verdict) for statement in statements} == {
        (case, "holds") for case in ("student", "bag-of-words", "majority-class")
    }
    answers = noun_task.model_copy(update={"kind": "question-answering"})
    with pytest.raises(UserError, match="task nouns: has no classes, so there is no linear probe of it"):
        measure_quality({"student": student_folder}, [], SETTINGS, [], tmp_path / "cache", probed=[answers])


def test_the_chosen_learning_rate_gives_what_finetune_gives(
    student_folder: Path, noun_task: TaskDefinition, tmp_path: Path
) -> None:
    report = measure_quality({"student": student_folder}, [noun_task], FEW, [], tmp_path)
    scores = report["student"].values["tasks"]["nouns"]
    rows = load_rows(noun_task)
    for seed, value in zip(FEW.seeds, scores["accuracy"]["values"], strict=True):
        alone = finetune(
            student_folder,
            noun_task,
            rows,
            FEW.finetuning,
            learning_rate=scores["run"]["learning_rate"],
            seed=seed,
        )
        assert alone["test"]["accuracy"] == value


def test_finished_runs_are_not_run_again(
    student_folder: Path, noun_task: TaskDefinition, tmp_path: Path, counted: list[tuple[float, int]]
) -> None:
    first = measure_quality({"student": student_folder}, [noun_task], FEW, [], tmp_path)
    assert len(counted) == 3  # two learning rates with the first seed, one with the second
    assert {seed for _, seed in counted} == {1, 2}
    again = measure_quality({"student": student_folder}, [noun_task], FEW, [], tmp_path)
    assert (again.rows, again.baseline, again.details) == (first.rows, first.baseline, first.details)
    assert len(counted) == 3
    more = FEW.model_copy(update={"seeds": [1, 2, 3]})
    measure_quality({"student": student_folder}, [noun_task], more, [], tmp_path)
    assert [seed for _, seed in counted[3:]] == [3]


def test_an_interrupted_measurement_goes_on_where_it_stopped(
    student_folder: Path, noun_task: TaskDefinition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def stop_at_the_second(*arguments: Any, **options: Any) -> Any:
        calls.append(options["learning_rate"])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return finetune(*arguments, **options)

    monkeypatch.setattr(task_runs, "finetune", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        measure_quality({"student": student_folder}, [noun_task], FEW, [], tmp_path)
    besides = ("probe", *BASELINES)
    assert len([path for path in tmp_path.iterdir() if not any(name in path.name for name in besides)]) == 1
    measure_quality({"student": student_folder}, [noun_task], FEW, [], tmp_path)
    assert len(calls) == 4
    assert calls[0] != calls[1] == calls[2]


def test_another_model_or_protocol_is_measured_anew(
    student_folder: Path, noun_task: TaskDefinition, tmp_path: Path, counted: list[tuple[float, int]]
) -> None:
    one = FEW.model_copy(
        update={"seeds": [1], "finetuning": FEW.finetuning.model_copy(update={"learning_rates": [3e-3]})}
    )
    copy = tmp_path / "copy"
    shutil.copytree(student_folder, copy)
    measure_quality({"student": student_folder}, [noun_task], one, [], tmp_path / "cache")
    measure_quality({"student": copy}, [noun_task], one, [], tmp_path / "cache")
    assert len(counted) == 1  # the folder's name does not matter
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"dropout": 0.3}))
    measure_quality({"student": copy}, [noun_task], one, [], tmp_path / "cache")
    assert len(counted) == 2
    longer = one.model_copy(update={"finetuning": one.finetuning.model_copy(update={"epochs": 2})})
    measure_quality({"student": student_folder}, [noun_task], longer, [], tmp_path / "cache")
    measure_quality(
        {"student": student_folder}, [noun_task.model_copy(update={"split_seed": 1})], one, [], tmp_path / "cache"
    )
    assert len(counted) == 4


def test_without_tasks_there_is_no_ratio_no_bag_of_words_and_no_row_of_a_file(
    teacher_folder: Path, held_out: list[np.ndarray], tmp_path: Path
) -> None:
    exporters = {"teacher": {"onnx-int8": Exporter(lambda *_: pytest.fail("there is nothing to score"))}}
    report = measure_quality({"teacher": teacher_folder}, [], SETTINGS, held_out, tmp_path, exporters=exporters)
    assert [(row.case, row.ratio) for row in derive(report).rows] == [("teacher", None)]


def test_a_model_with_another_vocabulary_is_not_measured_on_the_teachers_pieces(
    teacher_folder: Path, sentences: list[str], held_out: list[np.ndarray], tmp_path: Path
) -> None:
    other = new_teacher(
        train_wordpiece(sentences, size=150, max_length=64).tokenizer, layers=1, dim=16, heads=2, hidden_dim=16, seed=0
    )
    save_teacher(other, tmp_path / "other")
    models = {"teacher": teacher_folder, "other": tmp_path / "other"}
    report = measure_quality(models, [], SETTINGS, held_out, tmp_path / "cache")
    assert report["other"].values == {"tasks": {}}
    assert "masked_accuracy" in report["teacher"].values


def test_a_folder_without_a_model_is_told_before_anything_is_run(
    student_folder: Path, noun_task: TaskDefinition, tmp_path: Path, counted: list[tuple[float, int]]
) -> None:
    with pytest.raises(UserError, match=r"nowhere: holds no model: there is no config\.json"):
        measure_quality(
            {"student": student_folder, "x": tmp_path / "nowhere"}, [noun_task], SETTINGS, [], tmp_path / "cache"
        )
    assert counted == []
    assert not (tmp_path / "cache").exists()


def test_a_model_that_cannot_be_loaded_is_told_before_anything_is_trained(
    student_folder: Path, noun_task: TaskDefinition, tmp_path: Path
) -> None:
    damaged = shutil.copytree(student_folder, tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes(b"")
    models = {"student": student_folder, "damaged": damaged}
    with pytest.raises(UserError, match="damaged: cannot be loaded as a model to fine-tune"):
        measure_quality(models, [noun_task], FEW, [], tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
