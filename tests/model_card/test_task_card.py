"""The card of a student of a task."""

import contextlib
import dataclasses
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertForQuestionAnswering

from distilrubert.common.errors import UserError
from distilrubert.common.measurements import Measurements
from distilrubert.common.persistence import write_json
from distilrubert.evaluation.tasks.kinds import KINDS
from distilrubert.model_card.card import card_data, render_card
from distilrubert.model_card.card_pictures import draw_scores
from distilrubert.model_card.inputs import CardInput, read_reports
from distilrubert.model_card.tables import class_table, task_table
from distilrubert.model_card.task_kinds import TASK_KINDS
from distilrubert.modeling.teacher import Teacher
from tests.model_card.example_run import task_report, with_settings

SENTENCES = ["Отличный день!", "Ужас."]


def card_of(run: CardInput, report: Measurements, **config: Any) -> CardInput:
    own = dict(run.config) | {"architectures": ["DistilBertForSequenceClassification"]} | config
    none = dict.fromkeys(("quality", "parity", "suite"))
    return with_settings(dataclasses.replace(run, finetuning=report, config=own, **none), sentences=SENTENCES)


def test_teacher_model_files_and_baselines_stand_in_this_order() -> None:
    table = task_table(task_report())
    assert [cells[:3] for cells in table.rows] == [
        ["Teacher", "0.670", "–"],
        ["This model", "0.660", "100.00 %"],
        ["`onnx/model_quantized.onnx`", "0.650", "99.50 %"],
        ["The same student without a teacher", "0.610", "–"],
        ["Majority class", "0.400", "–"],
    ]


def test_scores_of_a_class_are_those_of_the_matrix() -> None:
    """Of 50 rows that are called bad 30 are, and of 40 that are bad."""
    table = class_table(task_report())
    assert table.rows == [
        ["`bad`", "0.600", "0.750", "0.667", "40"],
        ["`good`", "0.800", "0.667", "0.727", "60"],
    ]
    assert class_table(task_report(confusion=None)).markdown == ""


def test_a_class_that_is_never_found_has_no_scores() -> None:
    assert class_table(task_report(confusion=[[0, 5], [0, 7]])).rows[0] == ["`bad`", "0.000", "0.000", "0.000", "5"]


def test_scores_of_several_classes_or_types_of_spans_are_those_of_the_counts() -> None:
    counts = [{"class": "PER", "expected": 4, "found": 5, "correct": 3}]
    table = class_table(task_report("token-classification", class_counts=counts, confusion=None))
    assert table.head[-1] == "Spans"
    assert table.rows == [["`PER`", "0.600", "0.750", "0.667", "4"]]
    counts[0]["class"] = "a|b"
    table = class_table(task_report("token-classification", class_counts=counts, confusion=None))
    assert table.markdown.splitlines()[-1] == r"| `a\|b` | 0.600 | 0.750 | 0.667 | 4 |"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda report: report["details"]["task"].update(kind="riddles"), r"details\.task\.kind: input should be"),
        (lambda report: report["details"].update(confusion=[[1]]), r"details\.confusion is not a row and a column"),
        (lambda report: report["details"].update(bounds={"int8": {}}), r"details\.bounds\.fp32 is missing"),
        (lambda report: report["details"].update(class_counts=[{"class": "a"}]), r"details\.class_counts\.0\.expected"),
        (lambda report: report["details"].update(score_bins=[{}]), r"details\.score_bins\.0\.prediction is missing"),
        (lambda report: report["rows"][1].update(size_mib=None), r"rows\.1: onnx-int8 has decisions and no size_mib"),
        (
            lambda report: report["rows"][1].pop("maximal_difference"),
            r"rows\.1: onnx-int8 has decisions and no maximal_difference",
        ),
        (
            lambda report: report["rows"][1].update(clear_decisions=5),
            r"rows\.1: onnx-int8 has decisions and no different_clear_decisions",
        ),
        (lambda report: report["rows"][1].update(sha256=["0"]), r"rows\.1\.sha256: "),
        (lambda report: report["rows"][1]["tasks"].clear(), r"onnx-int8 has no f1_macro of toy"),
    ],
)
def test_a_report_of_another_form_is_told(change: Callable[[Any], Any], said: str, tmp_path: Path) -> None:
    report = task_report().to_dict()
    change(report)
    write_json(tmp_path / "reports" / "finetuning.json", report)
    with pytest.raises(UserError, match=rf"finetuning\.json: {said}"):
        read_reports(tmp_path)


def test_what_is_said_of_each_kind_of_task_is_so() -> None:
    assert TASK_KINDS.keys() == KINDS.keys()
    for name, kind in KINDS.items():
        said = TASK_KINDS[name]
        assert said.pipeline == kind.export_task, name
        assert kind.model_class.__name__.endswith(f"For{said.suffix}"), name
        assert said.is_of_pairs == ("text_pair" in kind.columns), name
        assert said.gives_score == (kind.problem_type == "regression"), name
        assert said.is_of_several == (kind.problem_type == "multi_label_classification"), name


def test_the_front_matter_names_the_task_and_its_score(run: CardInput) -> None:
    data = card_data(card_of(run, task_report())).to_dict()
    assert data["pipeline_tag"] == "text-classification"
    assert data["widget"] == [{"text": text} for text in SENTENCES]
    (result,) = data["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "f1", "value": 0.66, "name": "macro F1"}]


def test_the_card_says_what_the_model_is_and_what_it_learnt_from(run: CardInput) -> None:
    text = render_card(card_of(run, task_report()))
    assert "is a classifier of texts for" in text
    assert "Its classes are `bad` and `good` (Toy \\*task\\*)." in text
    assert "It learnt from 1,800 rows with labels and from what a teacher" in text
    assert "of 16,000 without labels" in text
    assert "divided by a temperature of 1.70" in text
    assert "It was distilled on sequences of at most 48 tokens." in text
    assert "fill-mask" not in text
    assert "AutoModel.from_pretrained" not in text
    assert "ORTModelForSequenceClassification.from_pretrained(" in text


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("sentence-pair-classification", 'print(model({"text": "Отличный день!", "text_pair": "Ужас."}))'),
        ("token-classification", 'pipeline("token-classification", model='),
        ("token-classification", 'texts = [" ".join(re.findall(r"\\w+|[^\\w\\s]", text)) for text in texts]'),
        ("question-answering", 'question, context = "Отличный день!", "Ужас."'),
    ],
)
def test_every_kind_is_called_as_its_pipeline_wants(run: CardInput, kind: str, expected: str) -> None:
    classes = {} if kind != "question-answering" else {"classes": []}
    report = task_report(kind)
    report.details["task"] |= classes
    text = render_card(card_of(run, dataclasses.replace(report, details=report.details)))
    assert expected in text


def test_the_code_of_a_reader_finds_an_answer(run: CardInput, tiny_teacher: Teacher, tmp_path: Path) -> None:
    config = tiny_teacher.model.config
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertForQuestionAnswering(config).save_pretrained(tmp_path)
    tiny_teacher.tokenizer.save_pretrained(tmp_path)
    report = task_report("question-answering")
    report.details["task"]["classes"] = []
    text = render_card(card_of(run, report)).partition("### Transformers")[2]
    code = (
        text.split("```python\n")[1]
        .split("```")[0]
        .replace(f'"{run.facts.repo_id or run.facts.name}"', repr(str(tmp_path)))
    )
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code, {})
    answer = printed.getvalue().strip()
    assert answer
    assert answer in SENTENCES[-1]


def test_the_widget_of_pairs_is_left_out(run: CardInput) -> None:
    """It would ask about single texts."""
    assert "widget" not in card_data(card_of(run, task_report("sentence-pair-classification"))).to_dict()


def test_a_teacher_that_came_fine_tuned_is_not_said_to_have_the_same_labels(run: CardInput) -> None:
    teacher = run.facts.teacher.model_copy(update={"name": "a/large", "id": "a/large", "is_fine_tuned": True})
    facts = run.facts.model_copy(update={"teacher": teacher, "start": "a/base"})
    card = dataclasses.replace(card_of(run, task_report()), training=run.training)
    card = dataclasses.replace(card, facts=facts.model_copy(update={"settings": card.settings}))
    text = render_card(card)
    assert "The teacher was fine-tuned elsewhere; it may have seen other labels" in text
    assert "that was fine-tuned on the same labels" not in text
    assert "of a/base's 12 (the first layer is 1)" in text
    assert card_data(card).to_dict()["base_model"] == ["a/base", "a/large"]


def test_a_model_with_several_classes_says_that_it_gives_any_number_of_them(run: CardInput) -> None:
    text = render_card(card_of(run, task_report("multi-label-classification", confusion=None)))
    assert "is a classifier of texts that can have several classes for" in text
    assert "A text has each class whose probability is above one half" in text
    assert "top_k=None)" in text
    assert "gets one of them, too" not in text


def test_a_model_of_scores_is_called_in_sentence_transformers_too(run: CardInput) -> None:
    bins = [{"prediction": 0.1 * place, "reference": 0.2, "reference_std": 0.1, "rows": 7} for place in range(3)]
    report = task_report("sentence-pair-regression", confusion=None, calibration=None, score_bins=bins)
    report.details["task"]["classes"] = []
    text = render_card(card_of(run, report))
    assert "is a model for scores of pairs of texts for" in text
    assert 'model = CrossEncoder("' in text
    assert 'model.rank("Отличный день!", ["Ужас."])' in text
    assert "differ by at most a tenth of their standard deviation" in text
    assert "Its scores are not probabilities" in text
    assert "### Probabilities" not in text
    assert draw_scores(report) is not None
    assert draw_scores(task_report()) is None


def test_the_card_says_which_agreement_was_asked_for(run: CardInput) -> None:
    bounds = {"fp32": {"equal_decisions": 0.999, "of_all": 0.999}, "int8": {"equal_decisions": 0.99, "of_all": 0.97}}
    report = task_report(bounds=bounds)
    report["onnx-int8"].values.update(clear_decisions=150, different_clear_decisions=0)
    assert [cells[2:4] for cells in task_table(report).rows][2] == ["99.50 %", "100.00 %"]
    text = render_card(card_of(run, report))
    assert "A decision is clear where the most probable class is ahead of the next one by at least 0.1." in text
    assert "At least 99.9 % of the clear decisions of an fp32 file had to be equal, and 99.0 % of those of" in text
    # Earlier reports do not tell which decisions are clear.
    assert "is clear" not in render_card(card_of(run, task_report()))
