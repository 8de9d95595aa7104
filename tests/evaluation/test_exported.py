"""Scores of files: with an exporter that only runs the model, they are the model's."""

from pathlib import Path

import numpy as np
import pytest
import torch

from distilrubert.evaluation.exported import Exporter
from distilrubert.evaluation.finetuning import finetune
from distilrubert.evaluation.quality import measure_quality
from distilrubert.evaluation.settings import FinetuningSettings, QualitySettings
from distilrubert.evaluation.task import TaskDefinition
from distilrubert.evaluation.task_data import load_rows
from distilrubert.modeling.errors import UserError

SETTINGS = FinetuningSettings(learning_rates=[3e-3], epochs=4, patience=4, batch_size=8, precision="fp32")


def running(sign: int, seen: list | None = None) -> Exporter:
    """An exporter whose "file" is the model itself, or with -1 one that always prefers the other class."""

    def export(model, tokenizer, task, calibration, folder):
        assert (task, list(folder.iterdir()), model.training) == ("text-classification", [], False)
        if seen is not None:
            seen.extend(calibration)

        @torch.inference_mode()
        def run(inputs):
            return sign * model(**{name: torch.from_numpy(array) for name, array in inputs.items()}).logits.numpy()

        return run

    return Exporter(export)


def test_the_files_are_scored_on_the_test_part(student_folder: Path, noun_task: TaskDefinition) -> None:
    calibration: list = []
    rows = load_rows(noun_task)
    exporters = {"same": running(1, calibration), "contrary": running(-1)}
    result = finetune(student_folder, noun_task, rows, SETTINGS, learning_rate=3e-3, seed=1, exporters=exporters)
    assert result.exported["same"] == result.test
    assert result.exported["contrary"]["accuracy"] == pytest.approx(1 - result.test["accuracy"])
    assert result.test["accuracy"] > 0.6
    assert len(calibration) == len(rows.train)
    assert all(inputs.keys() == {"input_ids", "attention_mask"} for inputs in calibration)
    assert {inputs["input_ids"].dtype for inputs in calibration} == {np.dtype("int64")}


def test_each_kind_of_file_has_a_row(
    teacher_folder: Path, student_folder: Path, noun_task: TaskDefinition, tmp_path: Path
) -> None:
    settings = QualitySettings(finetuning=SETTINGS, seeds=[1, 2])
    models = {"teacher": teacher_folder, "student": student_folder}
    report = measure_quality(
        models, [noun_task], settings, [], tmp_path, exporters={"student": {"onnx-int8": running(1)}}
    )
    assert [row.case for row in report.rows] == ["teacher", "student", "student-onnx-int8", "bag-of-words"]
    own, file = (report[case].figures["tasks"]["nouns"] for case in ("student", "student-onnx-int8"))
    assert file["accuracy"] == own["accuracy"]
    assert len(file["accuracy"]["values"]) == 2
    assert report["student-onnx-int8"].ratio == report["student"].ratio
    assert [bool(row.figures.get("linear_probe")) for row in report.rows] == [True, True, False, False]


def test_a_kind_without_a_single_output_is_refused_before_any_work(student_folder: Path, tmp_path: Path) -> None:
    answers = TaskDefinition.model_construct(name="answers", kind="question-answering")
    with pytest.raises(UserError, match="task answers: exported files cannot be scored on a task of kind question-ans"):
        measure_quality(
            {"student": student_folder}, [answers], QualitySettings(), [], tmp_path / "cache",
            exporters={"student": {"onnx-int8": running(1)}},
        )  # fmt: skip
    assert not (tmp_path / "cache").exists()
