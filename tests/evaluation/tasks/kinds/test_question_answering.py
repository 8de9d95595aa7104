from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

from distilrubert.common.errors import UserError
from distilrubert.evaluation.evaluation_settings import FinetuningSettings
from distilrubert.evaluation.tasks.finetuning import finetune
from distilrubert.evaluation.tasks.kinds.question_answering import QUESTION_ANSWERING
from distilrubert.evaluation.tasks.task import TaskDefinition, TaskFiles
from distilrubert.evaluation.tasks.task_data import TaskRows
from distilrubert.modeling.teacher import Teacher

CONTEXT = "Вчера шёл дождь, сегодня светит солнце, а завтра обещают снег. Мама мыла раму, а папа читал газету."


def row(answer: str, question: str = "Что?", context: str = CONTEXT) -> dict[str, object]:
    raw = {"question": question, "context": context, "answer": answer, "answer_start": context.index(answer)}
    return QUESTION_ANSWERING.read_row(raw, {})


ROWS = Dataset.from_list([row("дождь"), row("светит солнце"), row("газету"), row("Вчера")])


def true_logits(features: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Scores as a model gives them that knows where each answer begins and ends, and sees where it is not."""
    shape = len(features), max(features["length"])
    starts, ends = np.full(shape, -100.0), np.full(shape, -100.0)
    for index, length in enumerate(features["length"]):
        starts[index, :length] = ends[index, :length] = 0
        starts[index, features["start_positions"][index]] = 10
        ends[index, features["end_positions"][index]] = 10
    return starts, ends


@pytest.mark.parametrize("max_length", [30, 200])
def test_decoding_the_true_spans_gives_the_answers(tiny_teacher: Teacher, max_length: int) -> None:
    features = QUESTION_ANSWERING.encode(ROWS, tiny_teacher.tokenizer, max_length)
    assert (len(features) > len(ROWS)) == (max_length == 30)  # short windows: several for each passage
    assert set(features["row"]) == {0, 1, 2, 3}
    order = np.argsort(features["length"][:], kind="stable")[::-1]
    features = features.select(order)
    predictions, references = QUESTION_ANSWERING.decode(ROWS, features, true_logits(features), [])
    assert references == [["дождь"], ["светит солнце"], ["газету"], ["Вчера"]]
    assert predictions == ["дождь", "светит солнце", "газету", "Вчера"]


def test_windows_without_the_answer_point_at_cls(tiny_teacher: Teacher) -> None:
    features = QUESTION_ANSWERING.encode(Dataset.from_list([row("газету")]), tiny_teacher.tokenizer, 30)
    starts = features["start_positions"][:]
    assert starts[0] == 0
    assert max(starts) > 0


def test_the_answer_never_lies_in_the_question(tiny_teacher: Teacher) -> None:
    rows = Dataset.from_list([row("дождь", question="Шёл ли дождь вчера?")])
    features = QUESTION_ANSWERING.encode(rows, tiny_teacher.tokenizer, 200)
    starts, ends = np.zeros((1, features["length"][0])), np.zeros((1, features["length"][0]))
    starts[0, :6] = ends[0, :6] = 10  # [CLS] and the question
    starts[0, features["start_positions"][0]] = 1
    ends[0, features["end_positions"][0]] = 1
    assert QUESTION_ANSWERING.decode(rows, features, (starts, ends), [])[0] == ["дождь"]


def test_all_references_are_kept() -> None:
    raw = {"question": "Что?", "context": CONTEXT, "answer": ["дождь", "шёл дождь"], "answer_start": [10, 6]}
    assert QUESTION_ANSWERING.read_row(raw, {})["answers"] == ["дождь", "шёл дождь"]


@pytest.mark.parametrize(
    ("answer", "start", "message"),
    [
        ("дождь", 3, "does not begin at character 3"),
        ("шёл", CONTEXT.index("шёл") - len(CONTEXT), "does not begin at character -"),
        ([], [], "0 answers"),
        ("дождь", "x", "invalid literal"),
        ("", 0, "an answer is empty"),
        (["дождь", 7], [10, 10], "no text"),
    ],
)
def test_answers_that_do_not_fit_are_refused(answer: object, start: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        QUESTION_ANSWERING.read_row(
            {"question": "Что?", "context": CONTEXT, "answer": answer, "answer_start": start}, {}
        )


def task(max_length: int) -> TaskDefinition:
    return TaskDefinition(
        name="weather",
        title="Weather",
        kind="question-answering",
        files=TaskFiles(train="unused"),
        test_share=0.5,
        max_length=max_length,
        metrics=["answer_f1", "exact_match"],
        licence="CC0-1.0",
        source="here",
    )


def test_answers_can_be_learnt(student_folder: Path) -> None:
    """Where the answer is always the same word, a model that learns anything finds it."""
    fillers = ["вчера", "сегодня", "дома", "летом", "опять", "завтра"]
    contexts = [
        " ".join([*(fillers * 2)[index % 6 :][: 2 + index % 3], "кот", *fillers[index % 4 :]]) for index in range(90)
    ]
    rows = Dataset.from_list([row("кот", "кто там?", context) for context in contexts])
    parts = TaskRows(rows.select(range(60)), rows.select(range(60, 75)), rows.select(range(75, 90)))
    settings = FinetuningSettings(epochs=8, patience=8, batch_size=8, precision="fp32")
    result = finetune(student_folder, task(48), parts, settings, learning_rate=3e-3, seed=1)
    assert result["test"]["answer_f1"] >= 0.7


def test_a_question_that_leaves_no_room_is_told(student_folder: Path) -> None:
    rows = Dataset.from_list([row("дождь", question="Почему " * 20)])
    settings = FinetuningSettings(epochs=1, precision="fp32")
    with pytest.raises(UserError, match=r"task weather: a question of \d+ tokens leaves no room for its passage"):
        finetune(student_folder, task(24), TaskRows(rows, rows, rows), settings, learning_rate=1e-3, seed=1)
