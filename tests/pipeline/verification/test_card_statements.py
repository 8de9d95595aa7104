"""A card that a person has edited is found out, figure by figure; one that another version has worded is not."""

import json
import re
from pathlib import Path

import pytest

from distilrubert.common.errors import UserError
from distilrubert.model_card.card import write_card
from distilrubert.pipeline.verification.card_statements import check_card, read_reports
from distilrubert.pipeline.verification.statement import Statement
from tests.model_card.conftest import write_run


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    return write_card(write_run(tmp_path / "run")).parent


# How the lines of a card begin that no report of its repository decides: on the corpus, the start, the energy.
UNDECIDED = ("It was distilled on sequences", "The student starts from", "Read from", "An estimate, not a measurement")


def claims(hub: Path) -> list[Statement]:
    return [claim for claim in check_card(hub, read_reports(hub)) if not str(claim.stated).startswith(UNDECIDED)]


def further(hub: Path) -> list[tuple[str, object]]:
    return [
        (claim.subject, claim.stated) for claim in claims(hub)
        if (claim.verdict, claim.reason) == ("not checked", "nothing in the repository decides it")
    ]  # fmt: skip


def wrong(hub: Path) -> list[tuple[str, object, object]]:
    return [(claim.quantity, claim.stated, claim.found) for claim in claims(hub) if claim.verdict == "does not hold"]


def edit(hub: Path, pattern: str, replacement: str) -> None:
    card = (hub / "README.md").read_text(encoding="utf-8")
    edited, times = re.subn(pattern, replacement, card, count=1, flags=re.MULTILINE)
    assert times == 1
    (hub / "README.md").write_text(edited, encoding="utf-8")


def test_a_card_as_it_was_written_holds(hub: Path) -> None:
    found = claims(hub)
    assert {claim.verdict for claim in found} == {"holds"}
    assert {claim.subject for claim in found} == {
        "README.md, model-index", "README.md, Files", "README.md, Speed", "README.md, Quality",
        "README.md, Agreement of the files", "README.md, How it was distilled", "README.md, text",
    }  # fmt: skip
    others = [claim for claim in check_card(hub, read_reports(hub)) if claim not in found]
    assert {claim.verdict for claim in others} == {"not checked"}
    assert len(others) == len(UNDECIDED)


BOAST = "| Task | This model |\n| :--- | ---: |\n| Everything | 0.998 |\n"


@pytest.mark.parametrize(
    ("pattern", "added", "expected"),
    [
        ("^## Files$", f"## Benchmarks\n\n{BOAST}\n", ("README.md, Benchmarks", "1 figures")),
        ("^## Files$", f"{BOAST}\n", ("README.md, How to use", "1 figures")),
        # Beside the table that a report decides, under its heading.
        (r"^Random sequences of", f"\n{BOAST}\n", ("README.md, Speed", "1 figures")),
        # Where such a table has names and words.
        (
            r" \| you fine-tune",
            ", 99.9 % exact",
            ("README.md, Files", "PyTorch fp32, with the masked-language-modelling head, 99.9 % exact"),
        ),
        (r" int8 \| 129 \|", " 250x faster,", ("README.md, Speed", "Student, ONNX Runtime 250x faster, int8")),
        *(
            ("^## Files$", f"{line}\n\n", ("README.md, text", line))
            for line in (
                "It is 250 times faster and keeps 99.9 % of its teacher's accuracy.",
                "It is 250x faster.",
                "Ten times faster!",
                "- `99.9 %` accuracy",
                "1. 99.9 % accuracy (int8)",
                "Everything 0.998 | nothing 0.1",
                # Once more in the same words, with another figure.
                "In all it has 35.4 million parameters, 1.31 times fewer than the teacher's 177.9 million.",
            )
        ),
        *(
            ("^## Files$", f"{line}\n\n", None)
            for line in (
                "```python\nbatch = 64  # 10 times faster\n```",
                "It needs torch 2.13.0, `onnx-1.2` and int8; see [the page](https://example.org/v1/2) of 2026-03-14.",
                "Under CC BY-SA 4.0, Apache 2.0 or CC0 1.0; as in [12], LREC 2016.",
                "The first of two kinds.",
                "| a | b |\n|---|---|\n| int8 | fp32 |",
            )
        ),
    ],
)
def test_what_no_report_decides_is_not_passed_over_in_silence(
    hub: Path, pattern: str, added: str, expected: tuple[str, str] | None
) -> None:
    edit(hub, rf"(?={pattern})", added)
    assert further(hub) == ([expected] if expected else [])
    assert wrong(hub) == []


def test_an_edited_setting_of_the_training(hub: Path) -> None:
    edit(hub, r"^(\| KL divergence .*)\| 5 \|$", r"\1| 0 |")
    edit(hub, "peak learning rate of 0.0005", "peak learning rate of 0.5")
    (weight, shown, true), (_, claimed, measured) = wrong(hub)
    assert weight.startswith("KL divergence")
    assert (shown, true) == ("0", "5")
    assert "rate of 0.5," in str(claimed)
    assert "rate of 0.0005," in str(measured)


def test_an_edited_score_of_the_front_matter(hub: Path) -> None:
    edit(hub, r"value: 0\.7645$", "value: 0.8645")
    assert wrong(hub) == [("RuSentiment: weighted F1", 0.8645, 0.7645)]


@pytest.mark.parametrize(
    ("value", "verdict"),
    [
        ("0.764", "holds"),
        ("0.76", "holds"),
        ("0.76450", "holds"),
        ("76.45 %", "holds"),
        ("0.8", "not checked"),
        ("1.0", "not checked"),
        ("good", "not checked"),
        (".nan", "not checked"),
        ("0.9", "does not hold"),
        ("0.77", "does not hold"),
        ("0.7646", "does not hold"),
        ("76.45", "does not hold"),
    ],
)
def test_a_score_of_the_front_matter_is_compared_by_its_digits(hub: Path, value: str, verdict: str) -> None:
    edit(hub, r"value: 0\.7645$", f"value: {value}")
    (claim,) = (claim for claim in claims(hub) if claim.quantity == "RuSentiment: weighted F1")
    assert (claim.verdict, claim.found) == (verdict, 0.7645)


def test_a_score_of_nothing_is_a_score(hub: Path) -> None:
    report = json.loads((hub / "reports/quality.json").read_text(encoding="utf-8"))
    (student,) = (row for row in report["rows"] if row["case"] == "student")
    student["tasks"]["rusentiment"]["accuracy"] = 0.0
    (hub / "reports/quality.json").write_text(json.dumps(report), encoding="utf-8")
    edit(hub, r"value: 0\.7617$", "value: 0.0")
    (claim,) = (claim for claim in claims(hub) if claim.quantity == "RuSentiment: accuracy")
    assert (claim.verdict, claim.found, claim.reason) == ("holds", 0.0, "")


def test_a_score_that_nobody_measured(hub: Path) -> None:
    edit(hub, "type: accuracy$", "type: exact_match")
    assert wrong(hub) == [("RuSentiment: accuracy", 0.7617, None)]


def test_an_edited_cell_is_named_by_row_and_column(hub: Path) -> None:
    edit(hub, r"^(\| Student, ONNX Runtime int8 .*)\| 5\.70 \| 5\.02 \|$", r"\1| 7.50 | 5.02 |")
    assert wrong(hub) == [("Student, ONNX Runtime int8: Latency gain, ×", "7.50", "5.70")]


@pytest.mark.parametrize("shown", ["**7.50**", "× 7.5", "570 %"])
def test_an_edited_cell_is_read_whatever_stands_around_it(hub: Path, shown: str) -> None:
    edit(hub, r"^(\| Student, ONNX Runtime int8 .*)\| 5\.70 \|", rf"\1| {shown} |")
    expected = [] if shown == "570 %" else [("Student, ONNX Runtime int8: Latency gain, ×", shown, "5.70")]
    assert wrong(hub) == expected


@pytest.mark.parametrize("shown", ["6", "about six"])
def test_a_cell_that_says_next_to_nothing_is_not_checked(hub: Path, shown: str) -> None:
    edit(hub, r"^(\| Student, ONNX Runtime int8 .*)\| 5\.70 \|", rf"\1| {shown} |")
    (vague,) = (claim for claim in claims(hub) if claim.verdict == "not checked")
    assert (vague.stated, vague.found, vague.reason) == (shown, "5.70", "no figure that can be compared")


def test_a_row_left_out_and_a_row_made_up(hub: Path) -> None:
    edit(hub, r"^\| FactRuEval .*span F1.*\n", "| SberQuAD: answer F1 | 0.9 | 0.8999 | – | 0.9 ± 0.002 |\n")
    assert wrong(hub) == [
        ("SberQuAD: answer F1: Teacher", "0.9", None),
        ("SberQuAD: answer F1: This model", "0.8999", None),
        ("SberQuAD: answer F1: Bag of words", "0.9 ± 0.002", None),
    ]
    (left_out,) = (claim for claim in claims(hub) if claim.verdict == "not checked")
    assert left_out.quantity == r"row FactRuEval \| NER: span F1"
    assert left_out.found == "0.882 ± 0.003 0.854 ± 0.003 0.851 ± 0.003 –"


@pytest.mark.parametrize(
    ("pattern", "replacement"),
    [
        (r"its latency is 5\.70 times", "its latency is 6.70 times"),
        (r"has 135\.4 million parameters", "has 35.4 million parameters"),
        (r"with three seeds", "with ten seeds"),
        (r"took 1,872 updates", "took 2,872 updates"),
        (r"over 64 real sentences", "over 6400 real sentences"),
        (r"It has 6 layers", "It has 4 layers"),
    ],
)
def test_an_edited_sentence_is_shown_beside_the_true_one(hub: Path, pattern: str, replacement: str) -> None:
    edit(hub, pattern, replacement)
    ((_, claimed, measured),) = wrong(hub)
    assert replacement in str(claimed)
    assert re.search(pattern, str(measured))


@pytest.mark.parametrize(
    ("pattern", "replacement"),
    [
        (r"name: weighted F1$", "name: F1, weighted"),
        (r"^\| Model \| Size, MiB", "| What | Megabytes on disk"),
        (r"^\| Student, ONNX Runtime int8 ", "| This model as ONNX, int8 "),
        (r"^\| RuSentiment: weighted F1", "| RuSentiment, F1 (weighted)"),
        (r"\| 679 \| 0\.675 \|", "| 678.9 | 0.67 |"),
        (r"you run on a CPU: small and fast, on any processor", "you want int8 or bf16"),
        (r"^Held-out text is the part of .*\n", ""),
        (r"its latency is 5\.70 times\b.*", "it answers 5.705 times faster.**"),
        (r"^In all it has 135\.4 million parameters,", "It has 135.4 million weights, that is"),
        (
            r"took 1,872 updates over 17\.6 million tokens: 27\.3 hours",
            "of 1,872 steps (17.6 million tokens) took 1,638 minutes",
        ),
        (r"with three seeds: mean ± standard deviation", "by 3 seeds, mean and deviation"),
    ],
)
def test_what_another_version_says_in_other_words_holds(hub: Path, pattern: str, replacement: str) -> None:
    edit(hub, pattern, replacement)
    assert {claim.verdict for claim in claims(hub)} == {"holds"}


def test_a_made_up_figure_in_other_words_is_shown(hub: Path) -> None:
    edit(hub, r"^In all it has 135\.4 million parameters,", "It has 35.7 million weights, that is")
    (claim,) = (claim for claim in claims(hub) if claim.verdict != "holds")
    assert claim.verdict == "not checked"
    assert claim.reason == "in other words, and no report has 35.7 million"


def test_a_figure_in_a_column_of_another_name_is_one_of_the_report(hub: Path) -> None:
    edit(hub, r"^(\| Model \|.*\|) Throughput gain, × \|$", r"\1 Gain in samples |")
    assert wrong(hub) == []
    (table,) = (claim for claim in claims(hub) if claim.subject == "README.md, Speed")
    assert str(table.found).endswith(" somewhere in the report")
    edit(hub, r"^(\| Student, ONNX Runtime int8 .*)\| 5\.02 \|$", r"\1| 6.03 |")
    assert wrong(hub) == [("Student, ONNX Runtime int8: Gain in samples", "6.03", None)]


def test_a_file_of_another_size(hub: Path) -> None:
    (hub / "onnx/model_quantized.onnx").write_text("q" * 2**20)
    assert wrong(hub) == [("`onnx/model_quantized.onnx`: Size, MiB", "0.00800", "1.00")]


def test_what_has_no_report_is_not_checked(hub: Path) -> None:
    (hub / "reports/quality.json").unlink()
    assert wrong(hub) == []
    assert further(hub) == [("README.md, text", "Measured on AMD EPYC 9R14 (2 threads), 2026-03-14.")]
    others = [claim for claim in claims(hub) if claim.verdict == "not checked" and claim.subject != "README.md, text"]
    assert {claim.subject for claim in others} == {"README.md, model-index", "README.md, Quality"}
    assert {claim.reason for claim in others} == {"there is no reports/quality.json"}


def test_a_part_under_another_name_is_not_passed_over_in_silence(hub: Path) -> None:
    edit(hub, "^## Speed$", "## How fast")
    unchecked = [claim for claim in claims(hub) if claim.verdict == "not checked"]
    assert [claim.reason for claim in unchecked if claim.subject == "README.md, Speed"] == ["the card has no such part"]
    assert further(hub) == [("README.md, How fast", "20 figures")]


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda hub: (hub / "README.md").unlink(), r"README\.md: cannot be read"),
        (lambda hub: (hub / "README.md").write_text("---\na: [\n---\n"), "the front matter cannot be read"),
        (lambda hub: (hub / "README.md").write_text("---\nmodel-index: 3\n---\n"), "the front matter cannot be read"),
        (lambda hub: (hub / "reports/speed.json").write_text("{}"), r"speed\.json: is no measurement file"),
        (lambda hub: [path.unlink() for path in (hub / "reports").iterdir()], "holds none of the reports"),
    ],
)
def test_what_cannot_be_read_is_the_users_to_mend(hub: Path, break_it, said: str) -> None:
    break_it(hub)
    with pytest.raises(UserError, match=said):
        claims(hub)
