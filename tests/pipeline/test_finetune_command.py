"""`distilrubert finetune`, from files of labels to a folder in the clients that people use."""

import json
import os
import re
import shlex
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
import yaml
from filelock import FileLock
from transformers import AutoTokenizer, pipeline

from distilrubert.common.errors import UserError
from distilrubert.common.measurements import Measurements
from distilrubert.evaluation.evaluation_settings import FinetuningSettings
from distilrubert.evaluation.tasks import file_agreement
from distilrubert.evaluation.tasks.finetuning import Learner
from distilrubert.evaluation.tasks.task import load_task
from distilrubert.evaluation.tasks.task_data import load_rows
from distilrubert.evaluation.tasks.task_model import train_task_model
from distilrubert.modeling.architecture import StudentArchitecture
from distilrubert.modeling.checkpoints import save_checkpoint
from distilrubert.modeling.student import build_student, new_model, save_student
from distilrubert.modeling.teacher import new_teacher
from distilrubert.modeling.wordpiece import train_wordpiece
from distilrubert.pipeline import finetune_command
from distilrubert.pipeline.cli import main

from ..noun_tasks import NOUNS, phrases, write_tasks

PAGE = Path(__file__).parents[2] / "docs" / "tasks.md"
FAST = ["--set", "learning_rates=[0.003]", "--set", "batch_size=8", "--set", "precision=fp32", "--set", "epochs=5"]
CLASSES = {
    "nouns": "SequenceClassification",
    "tags": "TokenClassification",
    "answers": "QuestionAnswering",
    "several": "SequenceClassification",
    "scores": "SequenceClassification",
}
# Those whose outputs are of the whole text.
OF_TEXTS = ("nouns", "several", "scores")


@pytest.fixture(scope="module")
def student_folder(sentences, tmp_path_factory) -> Path:
    """A student of two layers that can learn."""
    tokenizer = train_wordpiece(sentences, size=220, max_length=64).tokenizer
    teacher = new_teacher(tokenizer, layers=3, dim=32, heads=4, hidden_dim=64, seed=7)
    folder = tmp_path_factory.mktemp("models") / "student"
    save_student(build_student(teacher, StudentArchitecture(layers=2)), folder)
    return folder


@pytest.fixture(scope="module")
def tasks(tmp_path_factory) -> Path:
    """A folder with a task of each kind."""
    folder = tmp_path_factory.mktemp("tasks")
    write_tasks(folder)
    return folder


@pytest.fixture(scope="module", params=[*CLASSES])
def finetuned(request, student_folder, tasks, tmp_path_factory) -> tuple[str, Path]:
    """The name of a task and the folder that the command has written."""
    output = tmp_path_factory.mktemp("finetuned") / "out"
    command = ["finetune", str(student_folder), "--task", str(tasks / f"{request.param}.yaml"), *FAST]
    # Tiny models of random weights are close to many a decision, and their scores close to each other.
    # (So close that bf16, in which OpenVINO computes its fp32 file on some machines, is no test of them.)
    of_openvino, bound = (["int8"], "0.5") if request.param == "scores" else (["fp32", "int8"], "0.8")
    files = ["--onnx", "fp32", "int8", "--openvino", *of_openvino, "--equal-decisions", bound]
    assert main([*command, "--output", str(output), *files]) == 0
    return request.param, output


def inputs_of(task: str, tokenizer) -> dict[str, torch.Tensor]:
    texts = [" ".join(words) for words, _ in phrases()[:20]]
    given = (["кто"] * 20, texts) if task == "answers" else (texts,)
    return tokenizer(*given, padding=True, return_tensors="pt")


def asked_of(pipe, task: str):
    return pipe(question="кто", context="вчера кот дома") if task == "answers" else pipe("вчера кот дома")


@pytest.mark.export
def test_the_folder_is_complete_and_of_stock_classes(finetuned):
    task, output = finetuned
    config = json.loads((output / "config.json").read_text())
    assert config["architectures"] == [f"DistilBertFor{CLASSES[task]}"]
    if task == "nouns":
        assert config["id2label"] == {"0": "animal", "1": "food"}
        assert config["label2id"] == {"animal": 0, "food": 1}
        assert config["problem_type"] == "single_label_classification"
    assert str(output.parent) not in json.dumps(config)
    assert not (output / "onnx" / "config.json").exists()
    # What training kept is gone, and nothing is left beside the folder.
    assert [path.name for path in output.parent.iterdir()] == ["out"]


@pytest.mark.export
def test_it_loads_in_the_clients_that_people_use(finetuned):
    from optimum import intel, onnxruntime

    task, output = finetuned
    name, title = CLASSES[task], re.sub("(?<=[a-z])([A-Z])", r"-\1", CLASSES[task]).lower()
    title = title.replace("sequence", "text")
    tokenizer = AutoTokenizer.from_pretrained(output)
    model = getattr(transformers, f"AutoModelFor{name}").from_pretrained(output)
    inputs = inputs_of(task, tokenizer)
    with torch.no_grad():
        expected = model(**inputs)
    outputs = ["start_logits", "end_logits"] if task == "answers" else ["logits"]
    answer = asked_of(pipeline(title, model=str(output)), task)
    for opener, subfolder, file, tolerance in (
        (getattr(onnxruntime, f"ORTModelFor{name}"), "onnx", "model.onnx", 1e-4),
        (getattr(onnxruntime, f"ORTModelFor{name}"), "onnx", "model_quantized.onnx", 0.5),
        (getattr(intel, f"OVModelFor{name}"), "openvino", "openvino_model_qint8_quantized.xml", 0.5),
    ):
        exported = opener.from_pretrained(output, subfolder=subfolder, file_name=file)
        found = exported(**inputs)
        real = slice(None) if task in OF_TEXTS else inputs["attention_mask"] == 1
        for output_name in outputs:
            difference = (torch.as_tensor(found[output_name]) - expected[output_name])[real]
            assert difference.square().mean().sqrt() <= tolerance * expected[output_name][real].std()
        assert exported.config.id2label == model.config.id2label
        assert type(asked_of(pipeline(title, model=exported, tokenizer=tokenizer), task)) is type(answer)


@pytest.mark.export
def test_the_report_says_how_each_file_agrees_and_scores(finetuned):
    task, output = finetuned
    report = Measurements.load(output / "reports" / "finetuning.json")
    files = ["pytorch-fp32", "onnx-fp32", "onnx-int8", *(["openvino-fp32"] * (task != "scores")), "openvino-int8"]
    assert [row.case for row in report.rows if "-in-" not in row.case][: len(files)] == files
    for row in report.rows:
        assert row.values["tasks"][task][report.details["task"]["main_metric"]]["values"]
    for case in (name for name in files if name.endswith("fp32")):
        assert report[case].values["different_decisions"] == 0
        assert report[case].values["maximal_difference"] < 1e-4
    assert report["pytorch-fp32"].values["maximal_difference"] == 0
    assert report["onnx-int8"].values["maximal_difference"] > 1e-4
    assert (report.details["calibration"] is not None) == (task in ("nouns", "tags", "several"))
    assert (report.details["score_bins"] is not None) == (task == "scores")
    assert [each["class"] for each in report.details["class_counts"]] == {
        "nouns": [*NOUNS], "tags": ["PET"], "several": [*NOUNS],
    }.get(task, [])  # fmt: skip
    assert report.details["int8"]["calibration_sentences"] <= report.details["rows"]["train_rows"]
    rows = report.details["rows"]
    units = {"tags": np.mean([len(words) for words, _ in phrases()]), "several": len(NOUNS)}.get(task, 1)
    assert report["pytorch-fp32"].values["decisions"] == pytest.approx(
        units * (rows["validation_rows"] + rows["test_rows"]), rel=0.1
    )


CONFIGS = {
    "bert": lambda **other: transformers.BertConfig(**other),
    "xlm-roberta": lambda **other: transformers.XLMRobertaConfig(type_vocab_size=1, **other),
    "modernbert": lambda **other: transformers.ModernBertConfig(local_attention=8, **other),
}


@pytest.fixture(params=[*CONFIGS])
def any_folder(request, sentences, tmp_path) -> Path:
    """A new model of each family whose students are of another class than DistilBERT, or are none."""
    tokenizer = train_wordpiece(sentences, size=220, max_length=60).tokenizer
    names = {"pad": tokenizer.pad_token_id, "bos": tokenizer.cls_token_id, "eos": tokenizer.sep_token_id}
    names |= {"cls": tokenizer.cls_token_id, "sep": tokenizer.sep_token_id}
    ids = {f"{name}_token_id": number for name, number in names.items()}
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
    config = CONFIGS[request.param](**sizes, **ids, vocab_size=len(tokenizer), max_position_embeddings=64)
    (tmp_path / "model").mkdir()
    save_checkpoint(new_model(config, seed=0), tokenizer, tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.export
def test_models_of_every_family_are_taken(any_folder, tasks, tmp_path):
    command = ["finetune", str(any_folder), *FAST[:-1], "epochs=2", "--output", str(tmp_path / "out")]
    files = ["--onnx", "fp32", "--openvino", "int8"]
    assert main([*command, "--task", str(tasks / "nouns.yaml"), *files]) == 0
    report = Measurements.load(tmp_path / "out" / "reports" / "finetuning.json")
    assert report["onnx-fp32"].values["maximal_difference"] < 1e-4
    classify = pipeline("text-classification", model=str(tmp_path / "out"))
    assert classify("вчера кот дома")[0]["label"] in NOUNS


def test_one_process_at_a_time_writes_a_model(student_folder, tasks, tmp_path, capsys, monkeypatch):
    command = ["finetune", str(student_folder), "--task", str(tasks / "nouns.yaml"), "--output", str(tmp_path / "out")]
    (tmp_path / "out.training").mkdir()
    with FileLock(tmp_path / "out.training" / ".lock"):
        assert main(command) == 2
    assert f"{tmp_path / 'out.training'}: another process is working in this folder" in capsys.readouterr().err

    def refuse(*_: object) -> None:
        raise UserError("no")

    monkeypatch.setattr(finetune_command, "train_task_model", refuse)
    assert main(command) == 2
    assert list(tmp_path.glob("out*")) == [], "a refused start leaves nothing"


@pytest.mark.export
def test_what_cannot_be_exported_is_told_before_training(any_folder, tasks, tmp_path, capsys):
    command = ["finetune", str(any_folder), "--task", str(tasks / "answers.yaml"), "--output", str(tmp_path / "out")]
    status = main([*command, *FAST[:-1], "epochs=1", "--onnx", "fp32"])
    error = capsys.readouterr().err
    if json.loads((any_folder / "config.json").read_text())["model_type"] == "modernbert":
        said = "task answers: is question-answering, of which no ONNX or OpenVINO file of a modernbert can be made"
        assert (status, len(error.splitlines())) == (2, 1)
        assert said in error
        assert not (tmp_path / "out.training").exists()
    else:
        assert status == 0


def test_the_scores_beside_the_baselines_are_shown(student_folder, tasks, tmp_path, capsys):
    output = tmp_path / "out"
    command = ["finetune", str(student_folder), "--task", str(tasks / "nouns.yaml"), *FAST, "--output", str(output)]
    assert main(command) == 0
    shown = capsys.readouterr()
    for name in ("This model", "Bag of words", "Majority class"):
        assert re.search(rf"^{name} +[01]\.\d{{3}} ", shown.out, re.M)
    assert "test rows are training rows, too; scores on them say little" in shown.err
    assert f"The model is in {output}" in shown.out
    report = Measurements.load(output / "reports" / "finetuning.json")
    score = report["pytorch-fp32"].values["tasks"]["nouns"]["accuracy"]["values"][0]
    assert score > report["majority-class"].values["tasks"]["nouns"]["accuracy"]["values"][0] + 0.2
    calibration = report.details["calibration"]
    limit = ", the limit of what is tried; " if calibration["is_at_limit"] else "; "
    assert f"Probabilities: temperature {calibration['temperature']:.2f}{limit}" in shown.out
    assert calibration["calibration_error"] != calibration["calibration_error_before"]
    assert {path.name for path in output.iterdir()} >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert not (output / "onnx").exists()


def test_probabilities_are_those_of_the_training_at_a_temperature(student_folder, tasks, tmp_path):
    """The kept weights, loaded from the folder, give the logits of the same training, divided."""
    settings = FinetuningSettings(learning_rates=[0.003], batch_size=8, precision="fp32", epochs=5)
    task = load_task(tasks / "nouns.yaml")
    trained = train_task_model(student_folder, task, load_rows(task), settings, tmp_path / "work", 1)
    command = ["finetune", str(student_folder), "--task", str(tasks / "nouns.yaml"), *FAST]
    assert main([*command, "--output", str(tmp_path / "out")]) == 0
    report = Measurements.load(tmp_path / "out" / "reports" / "finetuning.json")
    kept = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    inputs = inputs_of("nouns", trained.tokenizer)
    with torch.no_grad():
        found, before = kept(**inputs).logits, trained.learner.model.eval()(**inputs).logits
    torch.testing.assert_close(found * report.details["calibration"]["temperature"], before)


def test_an_interrupted_command_is_continued_by_the_same_one(student_folder, tasks, tmp_path, capsys, monkeypatch):
    validate, calls = Learner.validate, []

    def stopping(self):
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return validate(self)

    monkeypatch.setattr(Learner, "validate", stopping)
    outputs = [tmp_path / "stopped", tmp_path / "whole"]
    commands = [
        ["finetune", str(student_folder), "--task", str(tasks / "nouns.yaml"), *FAST, "--output", str(output)]
        for output in outputs
    ]
    assert main(commands[0]) == 130
    assert "the same command continues from there" in capsys.readouterr().err
    assert not outputs[0].exists()
    assert main(commands[0]) == 0
    assert len(calls) == 5
    assert main(commands[1]) == 0
    files = [{path.name: path.read_bytes() for path in output.iterdir() if path.is_file()} for output in outputs]
    assert files[0] == files[1]


def test_a_file_that_decides_otherwise_is_refused_and_no_training_is_lost(
    student_folder, tasks, tmp_path, capsys, monkeypatch
):
    output = tmp_path / "out"
    command = ["finetune", str(student_folder), "--task", str(tasks / "nouns.yaml"), *FAST, "--output", str(output)]
    measure = file_agreement.FileComparison.measure
    monkeypatch.setattr(
        file_agreement.FileComparison,
        "measure",
        lambda self, case, run: measure(self, case, lambda inputs: tuple(-logits for logits in run(inputs))),
    )
    assert main(command) == 2
    assert "model.safetensors: differs too much from the fine-tuned model: a logit by" in capsys.readouterr().err
    assert not output.exists()
    monkeypatch.setattr(file_agreement.FileComparison, "measure", measure)
    monkeypatch.setattr(Learner, "validate", None)  # nothing is trained again
    assert main(command) == 0


def broken(tasks: Path, tmp_path: Path, name: str, rows: str | None = None, **definition) -> list[str]:
    """A command on a task of these files with something wrong in it."""
    task = yaml.safe_load((tasks / f"{name}.yaml").read_text()) | definition
    file = task["files"]["train"]
    text = (tasks / file).read_text(encoding="utf-8") if rows is None else rows
    (tmp_path / file).write_text(text, encoding="utf-8")
    (tmp_path / "empty.csv").write_text("text,label\n", encoding="utf-8")
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(task))
    return ["--task", str(tmp_path / "task.yaml"), "--output", str(tmp_path / "out"), *FAST]


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("nouns", {"rows": "text,class\nкот,animal\n"}, "nouns.csv: has no column label; it has text, class"),
        ("nouns", {"files": {"train": "nouns.csv", "validation": "empty.csv"}}, "empty.csv: has no rows"),
        ("nouns", {"rows": ""}, "nouns.csv: has no rows"),
        (
            "nouns",
            {"rows": "text,label\n" + ",animal\n,food\n" * 20},
            "the texts to train on have nothing in common, or nothing in them",
        ),
        ("nouns", {"labels": ["animal", "food", "drink"]}, "no row to train on has the class drink"),
        ("nouns", {"rows": "text,label\nкот,animal\nсыр,fod\n"}, "nouns.csv: row 2: unknown label 'fod'"),
        (
            "answers",
            {"rows": '{"question": "кто", "context": "вчера кот", "answer": "кот", "answer_start": 2}\n'},
            "answers.jsonl: row 1: the answer 'кот' does not begin at character 2 of its context",
        ),
    ],
)
def test_mistakes_in_the_data_are_one_line(student_folder, tasks, tmp_path, capsys, name, changes, said):
    arguments = broken(tasks, tmp_path, name, **changes)
    assert main(["finetune", str(student_folder), *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1
    assert {path.name for path in tmp_path.iterdir()} <= {"nouns.csv", "answers.jsonl", "empty.csv", "task.yaml"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--output", "there", "--task", "nouns"], "--output"),
        (["--output", "new", "--task", "noun"], "task noun: unknown"),
        (["--output", "new", "--task", "rucola", "--set", "epoch=3"], "did you mean epochs?"),
        (["--output", "new", "--task", "rucola", "--seed", "-1"], "'-1' is not a whole number from 0 to 4294967295"),
        (["--output", "new", "--task", "t", "--equal-decisions", "97"], "'97' is not a number from 0 to 1"),
        (["--output", "new", "--task", "t", "--onnx", "masked-lm-int8"], "--onnx: input should be 'fp32', "),
        (["--output", f"{__file__}/new", "--task", "t"], "is no folder that can be written to"),
    ],
)
def test_mistakes_on_the_command_line(tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine.txt").write_text("kept")
    try:
        status = main(["finetune", "m", *arguments])
    except SystemExit as left:
        status = left.code
    assert status == 2
    assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == ["there", "mine.txt"]


def test_what_the_page_says_works(student_folder, tmp_path, monkeypatch):
    """The task, its rows and the command of docs/tasks.md, on a tiny model and without the exporters' packages."""
    page = PAGE.read_text(encoding="utf-8")
    (rows,) = re.findall(r"```csv\n(.*?)```", page, re.S)
    definition, _ = re.findall(r"```yaml\n(.*?)```", page, re.S)
    command = next(line for line in page.splitlines() if line.startswith("distilrubert finetune"))
    arguments = shlex.split(command)[1:]
    monkeypatch.chdir(tmp_path)
    head, *examples = rows.splitlines()
    Path(yaml.safe_load(definition)["files"]["train"]).write_text("\n".join([head, *examples * 10]), encoding="utf-8")
    Path(arguments[arguments.index("--task") + 1]).write_text(definition, encoding="utf-8")
    arguments[1] = str(student_folder)
    if "--onnx" in arguments:
        del arguments[arguments.index("--onnx") :]
    assert main([*arguments, *FAST]) == 0
    folder = arguments[arguments.index("--output") + 1]
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    assert [*model.config.id2label.values()] == [*yaml.safe_load(definition)["labels"]]
