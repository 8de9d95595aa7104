"""A recipe with a section task, from a teacher and files of labels to a published folder."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    pipeline,
)

from distilrubert.common.measurements import Measurements
from distilrubert.evaluation.tasks.finetuning import Learner
from distilrubert.evaluation.tasks.task import load_task
from distilrubert.evaluation.tasks.task_data import load_rows
from distilrubert.modeling.teacher import new_teacher, save_teacher
from distilrubert.modeling.wordpiece import train_wordpiece
from distilrubert.pipeline.cli import main
from distilrubert.pipeline.task_settings import TaskSettings

from ..hub.conftest import local_hub  # noqa: F401
from ..noun_tasks import NOUNS, define, phrases, write_tasks

# A run of a recipe checks for the packages that export.
pytestmark = pytest.mark.export

FAST = {"batch_size": 16, "precision": "fp32", "dropout": 0.0, "learning_rates": [0.003]}


@pytest.fixture(scope="module")
def teacher_folder(sentences, tmp_path_factory) -> Path:
    tokenizer = train_wordpiece(sentences, size=220, max_length=64).tokenizer
    folder = tmp_path_factory.mktemp("models") / "teacher"
    save_teacher(new_teacher(tokenizer, layers=3, dim=32, heads=4, hidden_dim=64, seed=7), folder)
    return folder


@pytest.fixture(scope="module")
def tasks(tmp_path_factory) -> Path:
    """A folder with a task of each kind, one with a class that no row has, a reranker, and text without labels."""
    folder = tmp_path_factory.mktemp("tasks")
    shares = {"test_share": 0.3, "validation_share": 0.25}
    write_tasks(folder, number=240, **shares)
    define(folder, "three", of="nouns", labels=[*NOUNS, "drink"], **shares)
    define(folder, "ranked", of="scores", metrics=["ndcg_at_10", "spearman"], **shares)
    (folder / "more.txt").write_text("\n".join(" ".join(words) for words, _ in phrases(120, seed=1)), encoding="utf-8")
    return folder


def recipe_of(teacher: Path, tasks: Path, name: str, **task: Any) -> dict[str, Any]:
    finetuning = {**FAST, "epochs": 6, "train_limit": 100}
    return {
        "name": f"{name}-tiny",
        "teacher": {"model": str(teacher)},
        "student": {"layers": 1},
        "task": {
            "name": str(tasks / f"{name}.yaml"),
            "finetuning": finetuning,
            "distillation": {**FAST, "epochs": 6, "weights": {"logits": 1.0, "labels": 0.5}},
            "equal_decisions": 0.8,
            **task,
        },
        "conversion": {"onnx": ["fp32", "int8"], "openvino": ["int8"]},
        "evaluation": {
            "speed": {
                "sequence_length": 16,
                "texts": 4,
                "batch_sizes": [1],
                "starts": 1,
                "rounds": 1,
                "minimum_time_s": 0.01,
            }
        },
        "card": {"language": "ru", "license": "mit", "title": "Nouns", "sentences": ["кот дома", "вчера хлеб"]},
    }


def write(folder: Path, recipe: dict[str, Any]) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, allow_unicode=True))
    return path


@pytest.fixture(scope="module")
def trained(teacher_folder, tasks, tmp_path_factory) -> Path:
    """The run directory of a classifier, up to the finished student."""
    folder = tmp_path_factory.mktemp("classifier")
    recipe = recipe_of(teacher_folder, tasks, "nouns", unlabelled=[str(tasks / "more.txt")])
    assert main(["distill", str(write(folder, recipe)), "--run-dir", str(folder / "run")]) == 0
    return folder / "run"


def test_the_student_learns_from_teacher_and_text_without_labels(trained):
    training = Measurements.load(trained / "reports" / "task-student.json")
    rows = training.details["rows"]
    # Of 168 rows to train on, 100 keep their labels, a quarter of those for validation.
    assert (rows["train_rows"], rows["validation_rows"], rows["test_rows"]) == (75, 25, 72)
    assert rows["unlabelled_rows"] > 68
    assert set(training.details["losses"]) == {"logits", "labels"}
    evaluations = training.details["choices"]["evaluations"]["0.003"]
    assert max(each["accuracy"] for each in evaluations) > 0.7
    model = AutoModelForSequenceClassification.from_pretrained(trained / "task-student")
    assert model.config.id2label == {0: "animal", 1: "food"}
    assert model.config.n_layers == 1


@pytest.mark.parametrize(
    ("name", "head", "metric"),
    [
        ("answers", "QuestionAnswering", "answer_f1"),
        ("tags", "TokenClassification", "span_f1"),
        ("pairs", "SequenceClassification", "accuracy"),
    ],
)
def test_other_heads_learn_from_their_teacher_too(name, head, metric, teacher_folder, tasks, tmp_path):
    recipe = write(tmp_path, recipe_of(teacher_folder, tasks, name))
    assert main(["distill", str(recipe), "--run-dir", str(tmp_path / "run")]) == 0
    training = Measurements.load(tmp_path / "run" / "reports" / "task-student.json")
    assert set(training.details["losses"]) == {"logits", "labels"}
    # The rest of the training part is read without its labels, each text once.
    assert training.details["rows"]["unlabelled_rows"] > 50
    scores = [each[metric] for each in training.details["choices"]["evaluations"]["0.003"]]
    assert max(scores) > 0.7
    config = json.loads((tmp_path / "run" / "task-student" / "config.json").read_text())
    assert config["architectures"] == [f"DistilBertFor{head}"]


# Of each kind: the classes of its model, the metric, and what a card says of it.
KINDS: dict[str, tuple[str, str, list[str]]] = {
    "nouns": (
        "single_label_classification",
        "accuracy",
        ["is a classifier of texts for Russian of", "- text: кот дома", "](assets/confusion.png)", "| `animal` |"],
    ),
    "several": (
        "multi_label_classification",
        "f1_micro",
        ["is a classifier of texts that can have several classes for Russian of", "top_k=None)", "| `animal` |"],
    ),
    "ranked": (
        "regression",
        "ndcg_at_10",
        ["is a model for scores of pairs of texts for Russian of", "model.rank(", "nDCG@10", "](assets/scores.png)"],
    ),
}
OF_CLASSES = ("nouns", "several")


@pytest.fixture(scope="module", params=[*KINDS])
def published(request, teacher_folder, tasks, tmp_path_factory) -> tuple[str, Path]:
    """The name of a task and the model repository of its run."""
    name = request.param
    if name == "nouns":
        run = request.getfixturevalue("trained")
        path = run.parent / "recipe.yaml"
    else:
        folder = tmp_path_factory.mktemp(name)
        recipe = recipe_of(teacher_folder, tasks, name, equal_decisions=0.5)
        # One file: each is run in a process of its own, to measure speed.
        recipe["conversion"] = {"onnx": ["int8"]}
        path, run = write(folder, recipe), folder / "run"
    assert main(["publish", str(path), "--run-dir", str(run), "--no-push"]) == 0
    return name, run / "hub"


def test_the_folder_is_complete_and_loads_in_clients(published):
    from optimum.onnxruntime import ORTModelForSequenceClassification

    name, folder = published
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["DistilBertForSequenceClassification"]
    labels = [*NOUNS] if name in OF_CLASSES else ["score"]
    assert config["label2id"] == {label: index for index, label in enumerate(labels)}
    assert config["problem_type"] == KINDS[name][0]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    files = ORTModelForSequenceClassification.from_pretrained(
        folder, subfolder="onnx", file_name="model_quantized.onnx"
    )
    for classify in (
        pipeline("text-classification", model=str(folder)),
        pipeline("text-classification", model=files, tokenizer=tokenizer),
    ):
        assert {answer["label"] for answer in classify(["кот дома", "вчера хлеб"])} <= {*labels}


def test_the_report_compares_teacher_student_files_and_baselines(published):
    name, folder = published
    metric = KINDS[name][1]
    report = Measurements.load(folder / "reports" / "finetuning.json")
    cases = {row.case for row in report.rows}
    files = {"onnx-fp32", "onnx-int8", "openvino-int8"} if name == "nouns" else {"onnx-int8"}
    assert cases >= files | {"pytorch-fp32", "student-alone", "teacher", "bag-of-words"}
    assert ("majority-class" in cases) == (name in OF_CLASSES)
    assert all(row.values["tasks"][name][metric]["values"] for row in report.rows)
    assert report.details["rows"]["unlabelled_rows"] > 0
    assert set(Measurements.load(folder / "reports" / "training.json").details["losses"]) == {"logits", "labels"}
    assert Measurements.load(folder / "reports" / "speed.json").details["texts"] == 4
    assert (report.details["confusion"] is None) == (name != "nouns")
    assert (report.details["calibration"] is None) == (report.details["reliability"] is None) == (name == "ranked")
    assert [each["class"] for each in report.details["class_counts"]] == ([*NOUNS] if name in OF_CLASSES else [])
    assert (report.details["score_bins"] is None) == (name != "ranked")


def test_matrix_and_bins_are_of_the_rows_that_are_scored(published):
    name, folder = published
    report = Measurements.load(folder / "reports" / "finetuning.json")
    test_rows = report.details["rows"]["test_rows"]
    if name == "ranked":
        assert sum(each["rows"] for each in report.details["score_bins"]) == test_rows
        return
    bins, rows = report.details["reliability"], test_rows * (len(NOUNS) if name == "several" else 1)
    assert sum(each["rows"] for each in bins) == rows
    if name == "nouns":
        matrix = report.details["confusion"]
        right = matrix[0][0] + matrix[1][1]
        assert sum(map(sum, matrix)) == test_rows
        accuracy = report["pytorch-fp32"].values["tasks"]["nouns"]["accuracy"]["values"][0]
        assert accuracy == pytest.approx(right / test_rows)
        assert sum(each["rows"] * each["right"] for each in bins) == pytest.approx(right)


def test_the_card_shows_it_and_is_verified(published, tasks, tmp_path, capsys):
    name, folder = published
    _, metric, said = KINDS[name]
    card = (folder / "README.md").read_text(encoding="utf-8")
    for text in (*said, "pipeline_tag: text-classification", "| Teacher |", "| The same student without a teacher |"):
        assert text in card
    assert (folder / "assets" / "reliability.png").is_file() == (name in OF_CLASSES)
    command = ["verify", str(folder), "--task", str(tasks / f"{name}.yaml"), "--all"]
    # Of pairs speed is measured again, too, on the task's texts. How fast four texts are is noise.
    is_of_pairs = name == "ranked"
    assert main([*command, *(["--speed", "--tolerance", "1e6"] if is_of_pairs else [])]) == 0
    shown = capsys.readouterr().out
    assert "equal_decisions" in shown
    assert "not checked: reports/finetuning.json: scores of " in shown
    assert ("throughput ratio to" in shown) == is_of_pairs
    assert f"model.safetensors, {name}: {metric}: stated" in shown
    if name != "nouns":
        return
    # A score that is not that of the weights is found.
    forged = shutil.copytree(folder, tmp_path / "forged")
    report = Measurements.load(forged / "reports" / "finetuning.json")
    report["pytorch-fp32"].values["tasks"][name][metric]["values"] = [0.123]
    report.save(forged / "reports" / "finetuning.json")
    assert main(["verify", str(forged), *command[2:]]) == 1
    assert f"does not hold: model.safetensors, {name}: {metric}: stated 0.123" in capsys.readouterr().out
    # Nor does a damaged file end the check of the others.
    (forged / "onnx" / "model_quantized.onnx").write_bytes(b"no graph")
    # Names of classes that others have taken the place of, and weights that no report speaks of.
    configuration = (forged / "config.json").read_text(encoding="utf-8")
    (forged / "config.json").write_text(configuration.replace('"id2label"', '"labels"'), encoding="utf-8")
    (forged / "more.bin").touch()
    assert main(["verify", str(forged), *command[2:]]) == 1
    shown = capsys.readouterr().out
    assert shown.count("does not hold: onnx/model_quantized.onnx: agreement: cannot be run") == 2
    assert f"{name}: {metric}: stated 0.123" in shown
    assert "does not hold: config.json: sha256" in shown
    assert "not checked: more.bin: file: a model file that reports/finetuning.json does not have" in shown


@pytest.mark.parametrize("published", ["ranked"], indirect=True)
def test_a_reranker_has_the_score_that_sentence_transformers_gives_it(published, tasks):
    from sentence_transformers import CrossEncoder
    from sentence_transformers.cross_encoder.evaluation import CrossEncoderRerankingEvaluator

    name, folder = published
    samples: dict[str, dict[str, Any]] = {}
    for row in load_rows(load_task(tasks / f"{name}.yaml")).test:
        sample = samples.setdefault(row["text"], {"query": row["text"], "positive": [], "negative": []})
        sample["positive" if row["label"] else "negative"].append(row["text_pair"])
    evaluated = CrossEncoderRerankingEvaluator(
        [each for each in samples.values() if each["positive"] and each["negative"]]
    )
    found = evaluated(CrossEncoder(str(folder), device="cpu"))["ndcg@10"]
    report = Measurements.load(folder / "reports" / "finetuning.json")
    assert found == pytest.approx(report["pytorch-fp32"].values["tasks"][name]["ndcg_at_10"]["values"][0], abs=1e-3)


@pytest.mark.parametrize("published", ["nouns"], indirect=True)
def test_it_is_published_with_its_page(published, trained, local_hub, monkeypatch, tmp_path, capsys):  # noqa: F811
    monkeypatch.setenv("HF_TOKEN", local_hub.tokens["me"])
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    recipe, run = trained.parent / "recipe.yaml", shutil.copytree(trained, tmp_path / "run", symlinks=True)
    target = ["--repo-id", "me/nouns", "--endpoint", local_hub.endpoint, "--space"]
    command = ["publish", str(recipe), "--run-dir", str(run), *target]
    assert main([*command, "--no-push"]) == 0
    assert f"Space me/nouns at {local_hub.endpoint}, main (a new repository): 5 to add" in capsys.readouterr().out
    assert local_hub.storage.repositories == {}
    assert main(command) == 0
    assert f"Demo page:\nPublished: {local_hub.endpoint}/spaces/me/nouns\n" in capsys.readouterr().out
    card = (run / "hub" / "README.md").read_text(encoding="utf-8")
    assert f"[Try it in your browser]({local_hub.endpoint}/spaces/me/nouns)" in card
    assert main([*command, "--verify-only"]) == 0
    assert capsys.readouterr().out.count("Verified: all ") == 2


def test_a_finished_stage_is_not_done_again_and_a_stopped_one_continues(
    trained, teacher_folder, tasks, tmp_path, monkeypatch
):
    """Stopped in the second epoch of the distillation, it ends with the weights of the run that was not stopped."""
    run, validate, calls = tmp_path / "run", Learner.validate, []
    recipe = str(trained.parent / "recipe.yaml")
    shutil.copytree(trained, run, symlinks=True)
    for stage in run.glob("stages/task-student-*"):
        shutil.rmtree(stage)

    def stopping(self: Learner) -> dict[str, float]:
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return validate(self)

    monkeypatch.setattr(Learner, "validate", stopping)
    assert main(["distill", recipe, "--run-dir", str(run)]) == 130
    assert main(["distill", recipe, "--run-dir", str(run)]) == 0
    epochs = len(Measurements.load(trained / "reports" / "task-student.json").details["evaluations"])
    # No epoch twice, and none of teacher and student alone.
    assert len(calls) == epochs
    one, other = (
        AutoModelForSequenceClassification.from_pretrained(folder / "task-student").state_dict()
        for folder in (trained, run)
    )
    assert all(torch.equal(weight, other[name]) for name, weight in one.items())


def test_the_vocabulary_is_trimmed_to_the_text_of_the_task(teacher_folder, tasks, tmp_path):
    """That of the student: the teacher keeps its own, and logits are compared by text."""
    recipe = recipe_of(teacher_folder, tasks, "nouns", unlabelled=[str(tasks / "more.txt")])
    recipe["student"] |= {"vocabulary": {"trim": {}}}
    for section in ("finetuning", "distillation"):
        recipe["task"][section] |= {"epochs": 1}
    path = write(tmp_path, recipe)
    assert main(["distill", str(path), "--run-dir", str(tmp_path / "run")]) == 0
    run = tmp_path / "run"
    whole, own = (json.loads((run / name / "config.json").read_text()) for name in ("task-teacher", "task-student"))
    tokenizer = AutoTokenizer.from_pretrained(run / "task-student")
    assert own["vocab_size"] == len(tokenizer) < whole["vocab_size"]
    known = AutoTokenizer.from_pretrained(run / "task-teacher")
    for text in ("вчера кот дома", "сыр опять"):
        assert tokenizer.tokenize(text) == known.tokenize(text)
    report = Measurements.load(run / "reports" / "vocabulary.json")
    assert report.details["held_out_texts"] == 25
    # Other text without labels, another vocabulary.
    recipe["task"]["unlabelled"] = []
    write(tmp_path, recipe)
    stages = run / "stages"
    before = {folder.name for folder in stages.glob("student-vocabulary-*")}
    assert main(["distill", str(path), "--run-dir", str(run)]) == 0
    assert {folder.name for folder in stages.glob("student-vocabulary-*")} != before


def test_a_start_whose_vocabulary_is_padded_is_published_without_the_padding(teacher_folder, tasks, tmp_path):
    model = AutoModelForMaskedLM.from_pretrained(teacher_folder)
    tokenizer = AutoTokenizer.from_pretrained(teacher_folder)
    model.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=64)
    assert model.config.vocab_size > len(tokenizer)
    start = tmp_path / "start"
    model.save_pretrained(start)
    tokenizer.save_pretrained(start)
    recipe = recipe_of(teacher_folder, tasks, "tags") | {"student": {"start_from": str(start)}}
    for section in ("finetuning", "distillation"):
        recipe["task"][section] |= {"epochs": 1}
    assert main(["distill", str(write(tmp_path, recipe)), "--run-dir", str(tmp_path / "run")]) == 0
    config = json.loads((tmp_path / "run" / "task-student" / "config.json").read_text())
    assert config["vocab_size"] == len(tokenizer)


def test_a_named_reader_whose_vocabulary_is_padded_is_learnt_from(teacher_folder, tasks, tmp_path):
    recipe = recipe_of(teacher_folder, tasks, "answers")
    for section in ("finetuning", "distillation"):
        recipe["task"][section] |= {"epochs": 1}
    assert main(["distill", str(write(tmp_path, recipe)), "--run-dir", str(tmp_path / "first")]) == 0
    fine_tuned, padded = tmp_path / "first" / "task-teacher", tmp_path / "padded"
    model, tokenizer = (auto.from_pretrained(fine_tuned) for auto in (AutoModelForQuestionAnswering, AutoTokenizer))
    model.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=64)
    model.save_pretrained(padded)
    tokenizer.save_pretrained(padded)
    recipe["task"]["teacher"] = str(padded)
    assert main(["distill", str(write(tmp_path, recipe)), "--run-dir", str(tmp_path / "second")]) == 0
    training = Measurements.load(tmp_path / "second" / "reports" / "task-student.json")
    assert set(training.details["losses"]) == {"logits", "labels"}


@pytest.mark.slow
def test_the_general_student_is_where_it_starts_from(sentences, tasks, tmp_path):
    """After a distillation on a corpus: the recipe trains its teacher, and the student has a vocabulary of its own."""
    recipe = recipe_of(tmp_path, tasks, "tags")
    (tmp_path / "corpus.txt").write_text("\n".join(sentences), encoding="utf-8")
    steps = {"max_steps": 2, "batch_tokens": 512, "batches_per_update": 1, "precision": "fp32"}
    sizes = {"layers": 2, "dim": 32, "heads": 4, "hidden_dim": 64, "vocabulary_size": 220, "max_positions": 64}
    recipe["teacher"] = {"pretrain": sizes | steps}
    recipe["corpus"] = {"sources": [{"path": "corpus.txt"}], "max_length": 32, "validation": 0.1}
    recipe["student"] = {"layers": 1, "vocabulary": {"train": {"size": 150}}}
    recipe["distillation"] = steps | {"weights": {"first_token": 1.0}}
    for section in ("finetuning", "distillation"):
        recipe["task"][section] |= {"epochs": 1}
    assert main(["distill", str(write(tmp_path, recipe)), "--run-dir", str(tmp_path / "run")]) == 0
    run = tmp_path / "run"
    general, own = (json.loads((run / name / "config.json").read_text()) for name in ("student", "task-student"))
    assert own["vocab_size"] == general["vocab_size"] < 220
    assert own["architectures"] == ["DistilBertForTokenClassification"]
    general, training = (Measurements.load(run / "reports" / f"{name}.json") for name in ("training", "task-student"))
    assert set(general.details["losses"]) == {"first_token"}
    assert set(training.details["losses"]) == {"logits", "labels"}


@pytest.mark.slow
def test_two_processes_make_the_student_of_one(teacher_folder, tasks, tmp_path):
    """Two batches an update: each process takes one of them."""
    recipe = recipe_of(teacher_folder, tasks, "tags")
    for section in ("finetuning", "distillation"):
        recipe["task"][section] |= {"epochs": 2, "batches_per_update": 2}
    path = write(tmp_path, recipe)
    for processes in (1, 2):
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
        command = [*torchrun, "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", "-m", "distilrubert.pipeline"]
        arguments = ["distill", str(path), "--run-dir", str(tmp_path / f"run-{processes}")]
        subprocess.run([*command, *arguments], env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True, timeout=600)
    one, two = (
        Measurements.load(tmp_path / f"run-{processes}" / "reports" / "task-student.json") for processes in (1, 2)
    )
    assert two.rows[0].values["processes"] == 2
    for mine, theirs in zip(one.details["curves"], two.details["curves"], strict=True):
        assert mine == pytest.approx(theirs, rel=1e-4)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"task": {"unlabelled": ["none.txt"]}}, "task.unlabelled: there is no file"),
        ({"task": {"finetuning": {}, "unlabelled": []}}, "task nouns: there is no text without labels; name files in"),
        ({"task": {"teacher": "TEACHER"}}, "is a BertForMaskedLM; a teacher of nouns is …ForSequenceClassification"),
        ({"task": {"distillation": {"weights": {"logits": 0}}}}, "task.distillation.weights: all are 0; at least one"),
        (
            {"task": {"distillation": {"weights": {"cosine": 1}}}},
            "logits and labels are 0, but the head learns from",
        ),
        ({"student": {"preset": "slim"}}, "student.prune: ranks the parts of the teacher on a corpus; add corpus, or"),
        (
            {"task": {"name": "PAIRS", "distillation": {"weights": {"hidden": 1, "labels": 1}}}},
            "hidden compare states, but the teacher tells the two texts of a pair apart and the student does not",
        ),
        (
            {"task": {"name": "ANSWERS", "distillation": {"weights": {"hidden": 1, "labels": 1}}}},
            "hidden compare states, but the teacher tells the two texts of a pair apart and the student does not",
        ),
        (
            {"task": {"distillation": {"weights": {"hidden": 1, "labels": 1}, "layer_map": [[9]]}}},
            "task.distillation.layer_map: teacher layer 9 for student layer 1; allowed are 0 to 3",
        ),
        (
            {"task": {"name": "THREE"}},
            "task three: no row to train on has the class drink; add rows, or take it out of",
        ),
        ({"student": {"layers": 9}}, "student.layers: 9; the teacher has 3"),
        (
            {
                "student": {"layers": 1, "vocabulary": {"trim": {}}},
                "task": {"distillation": {"weights": {"hidden": 1, "labels": 1}}},
            },
            "task.distillation.weights: hidden compare token by token, but the student has another vocabulary",
        ),
        ({"task": {"distillation": {"trackers": ["aim"]}}}, "task.distillation.trackers"),
        (
            {"task": {"name": "ANSWERS"}, "publish": {"space": True}},
            "publish.space: a page cannot show the task 'question-answering' (pipeline_tag), only fill-mask",
        ),
        (
            {"task": {"name": "RANKED"}, "publish": {"space": True}},
            "publish.space: a page shows probabilities of classes, and this model gives scores; leave it out",
        ),
        (
            {"task": {"name": "PAIRS"}, "publish": {"space": True}},
            "publish.space: a page has one text to classify, and this model reads pairs of texts; leave it out",
        ),
    ],
)
def test_what_cannot_work_is_told_in_one_line_before_any_work(
    teacher_folder, tasks, tmp_path, capsys, change: dict[str, Any], told: str
):
    recipe = recipe_of(teacher_folder, tasks, "nouns")
    for section, values in change.items():
        paths = {name.upper(): str(tasks / f"{name}.yaml") for name in ("three", "answers", "ranked", "pairs")}
        paths["TEACHER"] = str(teacher_folder)
        own = {key: paths.get(value, value) if isinstance(value, str) else value for key, value in values.items()}
        recipe[section] = recipe.get(section, {}) | own
    status = main(["distill", str(write(tmp_path, recipe)), "--run-dir", str(tmp_path / "run")])
    error = capsys.readouterr().err
    assert (status, len(error.splitlines())) == (2, 1), error
    assert told in error
    assert not (tmp_path / "run" / "stages").exists()


def test_the_student_alone_is_tried_at_the_rates_of_both(tasks):
    finetuning, distillation = {"learning_rates": [1e-4, 3e-5]}, {"learning_rates": [3e-4, 1e-4], "epochs": 9}
    settings = TaskSettings(name=str(tasks / "nouns.yaml"), finetuning=finetuning, distillation=distillation)
    assert settings.alone.learning_rates == [3e-5, 1e-4, 3e-4]
    assert settings.alone.epochs == settings.finetuning.epochs
    assert settings.finetuning.learning_rates == [1e-4, 3e-5]
