"""What a student of a task learns from a teacher: which rows, which logits, and at which places of a batch."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

from distilrubert.common.errors import UserError
from distilrubert.distill.losses.objective import Objective
from distilrubert.evaluation.tasks import task_distillation
from distilrubert.evaluation.tasks.kinds.question_answering import QUESTION_ANSWERING
from distilrubert.evaluation.tasks.kinds.token_classification import TOKEN_CLASSIFICATION
from distilrubert.evaluation.tasks.task import TaskDefinition
from distilrubert.evaluation.tasks.task_data import TaskRows, load_rows
from distilrubert.evaluation.tasks.task_distillation import (
    DistillationCollator,
    TaskDistillation,
    TeacherLogits,
    ask_teacher,
    check_teacher,
)
from distilrubert.evaluation.tasks.task_loss import TaskCollator
from distilrubert.pipeline.task_settings import TaskDistillationSettings

LABELS = {"O": 0, "B-PET": 1}
WORDS = [["кот", "дома"], ["почтальон", "Печкин", "принёс", "заметку"], ["чай"]]


def head_on(folder: Path, kind: type, classes: list[str], target: Path) -> Path:
    """A checkpoint with a random head for these classes."""
    torch.manual_seed(0)
    labels = {"id2label": dict(enumerate(classes)), "label2id": {name: i for i, name in enumerate(classes)}}
    model = kind.from_pretrained(folder, num_labels=len(classes), **labels)
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(folder).save_pretrained(target)
    return target


@pytest.fixture(scope="module")
def classifier(teacher_folder: Path, noun_task: TaskDefinition, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("classifier") / "teacher"
    return head_on(teacher_folder, AutoModelForSequenceClassification, noun_task.classes, target)


@pytest.fixture(scope="module")
def tagger(teacher_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("tagger") / "teacher"
    return head_on(teacher_folder, AutoModelForTokenClassification, list(LABELS), target)


@pytest.fixture
def tag_task(noun_task: TaskDefinition) -> TaskDefinition:
    return noun_task.model_copy(update={"kind": "token-classification", "labels": list(LABELS), "metrics": ["span_f1"]})


@pytest.fixture
def tagged() -> TaskRows:
    """Two sentences with tags and one without."""
    known = [{"tokens": words, "tags": ["O"] * len(words)} for words in WORDS[:2]]
    labelled = Dataset.from_list([TOKEN_CLASSIFICATION.read_row(row, LABELS) for row in known])
    bare = Dataset.from_list([TOKEN_CLASSIFICATION.read_text({"tokens": WORDS[2]}, LABELS)])
    return TaskRows(labelled, labelled, labelled, bare)


def test_each_text_has_the_logits_of_the_teacher(classifier: Path, noun_task: TaskDefinition, tmp_path: Path) -> None:
    rows = load_rows(noun_task, train_limit=60, unlabelled=[])
    assert rows.unlabelled is not None
    logits = ask_teacher(classifier, "it", noun_task, rows, tmp_path)
    asked = [*rows.train["text"], *rows.unlabelled["text"]]
    assert sorted(logits.rows_N) == list(range(len(asked)))
    model, tokenizer = (
        auto.from_pretrained(classifier) for auto in (AutoModelForSequenceClassification, AutoTokenizer)
    )
    for row in (0, len(rows.train), len(asked) - 1):
        with torch.no_grad():
            expected = model.eval()(**tokenizer(asked[row], return_tensors="pt")).logits[0]
        (index,) = np.flatnonzero(logits.rows_N == row)
        torch.testing.assert_close(torch.from_numpy(logits.values_NC[index]), expected, atol=1e-5, rtol=1e-4)


def test_a_teacher_is_asked_once_about_each_row_also_by_who_was_stopped(
    classifier: Path, noun_task: TaskDefinition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = load_rows(noun_task, train_limit=60, unlabelled=[])
    (tmp_path / "whole").mkdir()
    whole = ask_teacher(classifier, "it", noun_task, rows, tmp_path / "whole")
    asked: list[int] = []
    predict = task_distillation.predict

    def counted(model: Any, features: Dataset, *others: Any) -> Any:
        if len(asked) == 2:
            asked.append(0)
            raise KeyboardInterrupt
        asked.append(len(features))
        return predict(model, features, *others)

    monkeypatch.setattr(task_distillation, "predict", counted)
    monkeypatch.setattr(task_distillation, "ROWS_AT_ONCE", 25)
    with pytest.raises(KeyboardInterrupt):
        ask_teacher(classifier, "it", noun_task, rows, tmp_path)
    parts = ask_teacher(classifier, "it", noun_task, rows, tmp_path)
    assert len(asked) > 4
    assert sum(asked) == len(whole.rows_N)
    order, expected = np.argsort(parts.rows_N), np.argsort(whole.rows_N)
    assert parts.rows_N[order].tolist() == whole.rows_N[expected].tolist() == list(range(sum(asked)))
    np.testing.assert_allclose(parts.values_NC[order], whole.values_NC[expected], atol=1e-6)
    ask_teacher(classifier, "it", noun_task, rows, tmp_path)
    assert sum(asked) == len(whole.rows_N)
    # Other rows are asked about anew.
    ask_teacher(classifier, "it", noun_task, dataclasses.replace(rows, unlabelled=None), tmp_path)
    assert sum(asked) == len(whole.rows_N) + len(rows.train)


def test_words_meet_their_logits_whatever_the_tokens_are(
    tagger: Path, tag_task: TaskDefinition, tagged: TaskRows, tiny_word_pieces: Path, tmp_path: Path
) -> None:
    """The student splits words into other pieces than the teacher."""
    logits = ask_teacher(tagger, "it", tag_task, tagged, tmp_path)
    assert sorted(zip(logits.rows_N.tolist(), logits.words_N.tolist(), strict=True)) == [
        (0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (1, 3), (2, 0),
    ]  # fmt: skip
    # A number for each word, in place of what the random teacher says.
    numbers = (10 * logits.rows_N + logits.words_N).astype(np.float32)
    logits = dataclasses.replace(logits, values_NC=np.stack([numbers, -numbers], axis=1))
    tokenizer = AutoTokenizer.from_pretrained(tiny_word_pieces)
    features = {part: TOKEN_CLASSIFICATION.encode(own, tokenizer, 32) for part, own in tagged.parts.items()}
    distillation = TaskDistillation(lambda model, rates: pytest.fail("no loss is needed"), logits, {})
    examples = distillation.examples(features, tokenizer)
    collator = DistillationCollator(TaskCollator(TOKEN_CLASSIFICATION, tokenizer))
    batch = collator.collate([examples[i] for i in range(len(examples))], 0, [0, 1, 2])
    assert batch["compared"].sum(dim=1).tolist() == [2, 4, 1]
    compared = [batch["teacher_logits"][row][batch["compared"][row]][:, 0].tolist() for row in range(3)]
    assert compared == [[0, 1], [10, 11, 12, 13], [20]]
    # Each compared place begins a word, and is no padding and no special token.
    for row, words in enumerate(WORDS):
        first = [tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in words]
        assert batch["input_ids"][row][batch["compared"][row]].tolist() == first
    # The last sentence has no labels, the others have them where the teacher is compared.
    assert (batch["labels"][2] == -100).all()
    assert torch.equal(batch["labels"][:2] != -100, batch["compared"][:2])


def test_a_reader_is_compared_window_by_window(teacher_folder: Path, noun_task: TaskDefinition, tmp_path: Path) -> None:
    """A context in several windows, and one in a single window, without an answer."""
    folder = head_on(teacher_folder, AutoModelForQuestionAnswering, ["a", "b"], tmp_path / "teacher")
    task = noun_task.model_copy(
        update={"kind": "question-answering", "labels": [], "metrics": ["exact_match"], "max_length": 24}
    )
    raws = [("кто", "дома кот " * 12, "кот", 5), ("что", "вот чай", "чай", 4)]
    known = [dict(zip(QUESTION_ANSWERING.columns, raw, strict=True)) for raw in raws]
    part = Dataset.from_list([QUESTION_ANSWERING.read_row(row, {}) for row in known[:1]])
    bare = Dataset.from_list([QUESTION_ANSWERING.read_text(known[1], {})], features=part.features)
    rows = TaskRows(part, part, part, bare)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    logits = ask_teacher(folder, "it", task, rows, tmp_path)
    features = {name: QUESTION_ANSWERING.encode(own, tokenizer, 24) for name, own in rows.parts.items()}
    windows = len(features["train"])
    assert windows > 1
    examples = TaskDistillation(lambda model, rates: pytest.fail("no loss is needed"), logits, {}).examples(
        features, tokenizer
    )
    collator = DistillationCollator(TaskCollator(QUESTION_ANSWERING, tokenizer))
    batch = collator.collate([examples[i] for i in range(windows + 1)], 0, [*range(windows + 1)])
    assert batch["compared"].all()
    assert (batch["labels"][:windows] >= 0).all()
    assert batch["labels"][windows].tolist() == [-100, -100]
    model = AutoModelForQuestionAnswering.from_pretrained(folder).eval()
    with torch.no_grad():
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
        output = model(**inputs)
    real = batch["attention_mask"].bool()
    for place, expected in enumerate((output.start_logits, output.end_logits)):
        torch.testing.assert_close(batch["teacher_logits"][:, place][real], expected[real], atol=1e-4, rtol=1e-3)
        assert (batch["teacher_logits"][:, place][~real] == -1e4).all()


def test_a_question_without_room_for_its_text_is_one_line(
    teacher_folder: Path, noun_task: TaskDefinition, tmp_path: Path
) -> None:
    folder = head_on(teacher_folder, AutoModelForQuestionAnswering, ["a", "b"], tmp_path / "teacher")
    task = noun_task.model_copy(update={"kind": "question-answering", "labels": [], "max_length": 24})
    bare = Dataset.from_list([QUESTION_ANSWERING.read_text({"question": "кто " * 30, "context": "вот чай"}, {})])
    with pytest.raises(UserError, match=r"^task nouns: a question of \d+ tokens leaves no room for its passage"):
        ask_teacher(folder, "it", task, TaskRows(bare, bare, bare, None), tmp_path)


def test_states_of_pairs_are_compared_with_both_texts_told_apart(classifier: Path) -> None:
    """A BERT learns from itself: nothing is left to learn only if its teacher reads the second text as the second."""
    tokenizer = AutoTokenizer.from_pretrained(classifier)
    student, teacher = (AutoModelForSequenceClassification.from_pretrained(classifier).eval() for _ in range(2))
    settings = TaskDistillationSettings(weights={"hidden": 1.0, "labels": 1.0})
    objective = Objective(student, teacher, settings)
    batch = tokenizer([("кот дома", "вот чай")], return_tensors="pt")
    assert batch["token_type_ids"].any()
    decided = {"labels": torch.tensor([0]), "teacher_logits": torch.zeros(1, 2), "compared": torch.tensor([True])}
    prepared = objective.preparation()({**batch, **decided})
    assert objective(prepared.tensors, prepared.counts)["hidden"] == pytest.approx(0, abs=1e-6)


def test_a_word_that_the_teacher_did_not_see_is_not_compared(
    tagger: Path, tag_task: TaskDefinition, tagged: TaskRows, tmp_path: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tagger)
    features = {part: TOKEN_CLASSIFICATION.encode(own, tokenizer, 32) for part, own in tagged.parts.items()}
    whole = ask_teacher(tagger, "it", tag_task, tagged, tmp_path)
    seen = whole.words_N < 3
    cut = TeacherLogits(whole.values_NC[seen], whole.rows_N[seen], whole.words_N[seen])
    examples = TaskDistillation(lambda model, rates: pytest.fail("no loss is needed"), cut, {}).examples(
        features, tokenizer
    )
    assert [len(examples[index]["places"]) for index in range(3)] == [2, 3, 1]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"id2label": {"0": "food", "1": "animal"}}, "teacher: its labels are food, animal; those of task nouns are"),
        (
            {"id2label": {"0": "animal", "1": "food", "2": "drink"}},
            "teacher: its labels are animal, food, drink; those",
        ),
        (
            {"architectures": ["BertForTokenClassification"]},
            "teacher: is a BertForTokenClassification; a teacher of nouns is …ForSequenceClassification",
        ),
        ({"architectures": None}, "teacher: is a model without a class; a teacher of nouns is"),
    ],
)
def test_a_teacher_of_something_else_is_refused(
    classifier: Path, noun_task: TaskDefinition, tmp_path: Path, change: dict, told: str
) -> None:
    folder = shutil.copytree(classifier, tmp_path / "teacher")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(UserError, match="^" + told):
        check_teacher(folder, "teacher", noun_task)


@pytest.mark.parametrize("config", ["{", "[]", '{"id2label": {"first": "a"}}', '{"architectures": 5}'])
def test_a_damaged_configuration_of_a_teacher_is_told(config: str, noun_task: TaskDefinition, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(UserError, match=r"config\.json: "):
        check_teacher(tmp_path, "teacher", noun_task)


def test_a_teacher_of_another_kind_of_head_is_told(classifier: Path, noun_task: TaskDefinition, tmp_path: Path) -> None:
    """Of the same class of transformers, with the same names: what it was trained for differs."""
    several = noun_task.model_copy(update={"kind": "multi-label-classification"})
    check_teacher(classifier, "teacher", several)
    folder = shutil.copytree(classifier, tmp_path / "teacher")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"problem_type": "single_label_classification"}))
    told = "^teacher: was trained for single_label_classification; a teacher of nouns is for multi_label_classification"
    with pytest.raises(UserError, match=told):
        check_teacher(folder, "teacher", several)
    scores = noun_task.model_copy(update={"kind": "sentence-regression", "labels": []})
    with pytest.raises(UserError, match=r"^teacher: has 2 outputs; a teacher of nouns has one, the score"):
        check_teacher(classifier, "teacher", scores)


@pytest.mark.parametrize(
    "stated",
    [
        {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"}},
        {"sbert_ce_default_activation_function": "torch.nn.modules.activation.Sigmoid"},
    ],
)
def test_scores_that_a_cross_encoder_changes_are_none_to_learn_from(
    teacher_folder: Path, noun_task: TaskDefinition, tmp_path: Path, stated: dict[str, Any]
) -> None:
    scores = noun_task.model_copy(update={"kind": "sentence-pair-regression", "labels": []})
    head_on(teacher_folder, AutoModelForSequenceClassification, ["score"], tmp_path)
    check_teacher(tmp_path, "teacher", scores)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    identity = {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}
    path.write_text(json.dumps(config | identity))
    check_teacher(tmp_path, "teacher", scores)
    path.write_text(json.dumps(config | stated))
    with pytest.raises(UserError, match="teacher: its scores go through Sigmoid; a teacher of nouns gives them as"):
        check_teacher(tmp_path, "teacher", scores)


@pytest.mark.parametrize(
    ("kind", "outputs", "label", "read"),
    [
        ("multi-label-classification", 2, "labels", [["animal"], ["animal", "food"]]),
        ("sentence-regression", 1, "score", [0.5, -3.0]),
    ],
)
def test_batches_of_several_classes_and_of_numbers(
    teacher_folder: Path, noun_task: TaskDefinition, tmp_path: Path, kind: str, outputs: int, label: str, read: list
) -> None:
    """Floating labels are of the whole text; a text without labels has NaN and the teacher's logits."""
    folder = head_on(teacher_folder, AutoModelForSequenceClassification, ["a", "b"][:outputs], tmp_path / "teacher")
    labels = ["animal", "food"] if outputs == 2 else []
    task = noun_task.model_copy(update={"kind": kind, "labels": labels if outputs == 2 else []})
    if labels:
        head_on(teacher_folder, AutoModelForSequenceClassification, labels, folder)
    known = [
        task.task_kind.read_row({"text": text, label: value}, task.label_ids)
        for text, value in zip(("кот", "чай и кот"), read, strict=True)
    ]
    part = Dataset.from_list(known)
    bare = Dataset.from_list([task.task_kind.read_text({"text": "дом"}, task.label_ids)], features=part.features)
    rows = TaskRows(part, part, part, bare)
    logits = ask_teacher(folder, "it", task, rows, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(teacher_folder)
    features = {name: task.task_kind.encode(own, tokenizer, 32) for name, own in rows.parts.items()}
    distillation = TaskDistillation(lambda model, rates: pytest.fail("no loss is needed"), logits, {})
    examples = distillation.examples(features, tokenizer)
    collator = DistillationCollator(TaskCollator(task.task_kind, tokenizer))
    batch = collator.collate([examples[index] for index in range(3)], 0, [0, 1, 2])
    assert batch["compared"].tolist() == [True] * 3
    assert batch["teacher_logits"].shape == (3, outputs)
    expected = torch.tensor([[1.0, 0.0], [1.0, 1.0]]) if outputs == 2 else torch.tensor([0.5, -3.0])
    torch.testing.assert_close(batch["labels"][:2], expected)
    assert batch["labels"][2].isnan().all()
