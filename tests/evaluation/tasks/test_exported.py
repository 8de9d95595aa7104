"""Scores of files: with an exporter that only runs the model, they are the model's."""

from pathlib import Path

import pytest
import torch
from datasets import Dataset

from distilrubert.evaluation.evaluation_settings import FinetuningSettings, QualitySettings
from distilrubert.evaluation.tasks.exported import Exporter
from distilrubert.evaluation.tasks.finetuning import finetune
from distilrubert.evaluation.tasks.kinds.question_answering import QUESTION_ANSWERING
from distilrubert.evaluation.tasks.quality import measure_quality
from distilrubert.evaluation.tasks.task import TaskDefinition, TaskFiles
from distilrubert.evaluation.tasks.task_data import TaskRows, load_rows

SETTINGS = FinetuningSettings(learning_rates=[3e-3], epochs=4, patience=4, batch_size=8, precision="fp32")


def running(sign: int, seen: list | None = None, task_name: str = "text-classification", **settings: int) -> Exporter:
    """An exporter whose "file" is the model itself, or with -1 one that always prefers what the model likes least."""
    kinds = ("start_logits", "end_logits") if task_name == "question-answering" else ("logits",)

    def export(model, tokenizer, task, calibration, folder):
        assert (task, list(folder.iterdir()), model.training) == (task_name, [], False)
        if seen is not None:
            seen.extend(calibration)

        @torch.inference_mode()
        def run(inputs):
            output = model(**{name: torch.from_numpy(array) for name, array in inputs.items()})
            return tuple(sign * output[kind].numpy() for kind in kinds)

        return run

    return Exporter(export, settings)


def test_the_files_are_scored_on_the_test_part(student_folder: Path, noun_task: TaskDefinition) -> None:
    calibration: list = []
    rows = load_rows(noun_task)
    exporters = {"same": running(1, calibration), "contrary": running(-1)}
    result = finetune(student_folder, noun_task, rows, SETTINGS, learning_rate=3e-3, seed=1, exporters=exporters)
    assert result["exported"]["same"] == result["test"]
    assert result["exported"]["contrary"]["accuracy"] == pytest.approx(1 - result["test"]["accuracy"])
    assert result["test"]["accuracy"] > 0.6
    assert len(calibration) == len(rows.train)
    assert all(inputs.keys() == {"input_ids", "attention_mask"} for inputs in calibration)
    assert all(isinstance(inputs["input_ids"], list) for inputs in calibration)


def test_each_kind_of_file_has_a_row(
    teacher_folder: Path, student_folder: Path, noun_task: TaskDefinition, tmp_path: Path
) -> None:
    settings = QualitySettings(finetuning=SETTINGS, seeds=[1, 2])
    models = {"teacher": teacher_folder, "student": student_folder}
    report = measure_quality(
        models, [noun_task], settings, [], tmp_path, exporters={"student": {"onnx-int8": running(1, level=7)}}
    )
    cases = ["teacher", "student", "student-pytorch-fp32", "student-onnx-int8", "bag-of-words", "majority-class"]
    assert [row.case for row in report.rows] == cases
    own, file = (report[case].values["tasks"]["nouns"] for case in ("student", "student-onnx-int8"))
    assert file["accuracy"] == own["accuracy"]
    assert report["student-pytorch-fp32"].values["tasks"]["nouns"]["accuracy"] == own["accuracy"]
    assert len(file["accuracy"]["values"]) == 2
    assert report.details["exported"] == {"onnx-int8": {"level": 7}}
    assert [bool(row.values.get("linear_probe")) for row in report.rows] == [True, True, False, False, False, False]


def test_answers_are_scored_by_both_outputs(student_folder: Path) -> None:
    texts = ["Вчера шёл дождь.", "Сегодня светит солнце, а завтра обещают снег.", "Мама мыла раму."]
    raws = [{"question": "Что?", "context": text, "answer": text[:5], "answer_start": 0} for text in texts * 4]
    rows = Dataset.from_list([QUESTION_ANSWERING.read_row(raw, {}) for raw in raws])
    task = TaskDefinition(
        name="answers", title="Answers", kind="question-answering", files=TaskFiles(train="unused", test="unused"),
        max_length=64, metrics=["answer_f1"], licence="CC0-1.0", source="these tests",
    )  # fmt: skip
    exporters = {
        name: running(sign, task_name="question-answering") for name, sign in {"same": 1, "contrary": -1}.items()
    }
    result = finetune(
        student_folder, task, TaskRows(rows, rows, rows), SETTINGS, learning_rate=3e-3, seed=1, exporters=exporters
    )
    assert result["test"]["answer_f1"] > 0
    assert result["exported"]["same"] == result["test"]
    assert result["exported"]["contrary"] != result["test"]
