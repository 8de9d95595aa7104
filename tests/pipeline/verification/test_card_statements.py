"""A card that was edited is found out; a card of another version is compared as far as it can be."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from distilrubert.common.errors import UserError
from distilrubert.model_card.card import write_card
from distilrubert.model_card.inputs import read_reports
from distilrubert.pipeline.cli import main
from distilrubert.pipeline.statement import Statement
from distilrubert.pipeline.verification import card_statements
from distilrubert.pipeline.verification.card_statements import check_card
from distilrubert.pipeline.verification.repository import Extent, check_repository
from tests.model_card.example_run import write_run

ESC = "\x1b"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_card(write_run(tmp_path_factory.mktemp("run"))).parent


@pytest.fixture
def hub(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "hub"))


def statements(hub: Path) -> list[Statement]:
    return list(check_card(hub, read_reports(hub)))


def wrong(hub: Path) -> list[tuple[str, object, object]]:
    return [
        (statement.quantity, statement.stated, statement.found)
        for statement in statements(hub)
        if statement.verdict == "does not hold"
    ]


def unchecked(hub: Path) -> list[tuple[str, str, object]]:
    return [
        (statement.subject, statement.quantity, statement.stated)
        for statement in statements(hub)
        if statement.verdict == "not checked"
    ]


def edit(hub: Path, pattern: str, replacement: str, file: str = "README.md") -> None:
    text = (hub / file).read_text(encoding="utf-8")
    edited, times = re.subn(pattern, replacement, text, count=1, flags=re.MULTILINE)
    assert times == 1
    (hub / file).write_text(edited, encoding="utf-8")


def edit_json(path: Path, change: Callable[[Any], None]) -> None:
    values = json.loads(path.read_text(encoding="utf-8"))
    change(values)
    path.write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")


@pytest.mark.parametrize("value", ["1", "0.8", "-0.7645", "true"])
def test_a_score_in_the_front_matter_is_compared_as_a_number(hub: Path, value: str) -> None:
    """Fault: as a text with one digit it agreed with all that rounds to it."""
    edit(hub, r"^( +value: )0\.\d+$", rf"\g<1>{value}")
    assert [stated for _, stated, _ in wrong(hub)] == [yaml.safe_load(value)]


def of_version(hub: Path, version: str) -> None:
    edit_json(hub / "reports/card.json", lambda facts: facts.update(version=version, field_of_that_version=1))


def test_a_card_as_it_was_written_holds(hub: Path) -> None:
    found = statements(hub)
    assert {statement.verdict for statement in found} == {"holds"}
    assert {statement.subject for statement in found} == {"README.md", "CITATION.bib", "README.md, model-index"}


@pytest.mark.parametrize(
    ("pattern", "replacement"),
    [
        (r"^(\| Student, ONNX Runtime int8 .*)\| 5\.70 ", r"\1| 7.50 "),
        (r"its latency is 5\.70 times", "its latency is 6.70 times"),
        (r"with 3 seeds", "with 10 seeds"),
        (r"^It has 6 layers", "It has 4 layers"),
        (r"anekdot_dialogues\.parquet", "all_of_the_web.parquet"),
        (r"needs no custom code", "needs little custom code"),
        (r"\*\*4\.92 kWh\*\*", "**0.92 kWh**"),
    ],
)
def test_an_edited_line_is_shown_beside_the_true_one(hub: Path, pattern: str, replacement: str) -> None:
    edit(hub, pattern, replacement)
    ((quantity, stated, found),) = wrong(hub)
    assert quantity == "line"
    assert stated != found
    assert re.search(pattern, str(found))


def test_an_added_line_is_not_checked_and_a_missing_one_is_wrong(hub: Path) -> None:
    boast = "It is 250 times faster than its teacher."
    edit(hub, "^## Files$", f"{boast}\n\n## Files")
    assert wrong(hub) == []
    assert unchecked(hub) == [("README.md", "line", boast)]
    edit(hub, r"^- Do not base decisions.*\n", "")
    assert wrong(hub) == [("line", None, "- Do not base decisions about people on this model alone.")]


def test_an_edited_front_matter(hub: Path) -> None:
    edit(hub, r"value: 0\.7645$", "value: 0.8645")
    edit(hub, r"^license: apache-2\.0$", "license: mit")
    edit(hub, r"^language: ru$", "language: ru\nthumbnail: x.png")
    assert wrong(hub) == [("license", "mit", "apache-2.0"), ("RuSentiment: weighted F1", 0.8645, 0.7645)]
    assert unchecked(hub) == [("README.md, front matter", "thumbnail", "x.png")]
    edit(hub, "type: accuracy$", "type: exact_match")
    assert ("RuSentiment: accuracy", 0.7617, None) in wrong(hub)


def test_an_edited_citation(hub: Path) -> None:
    edit(hub, "Петрова, Анна", "Somebody, Else", "CITATION.bib")
    ((_, stated, found),) = wrong(hub)
    assert "Somebody" in str(stated)
    assert "Петрова" in str(found)


def test_an_edited_report_no_longer_gives_the_card(hub: Path) -> None:
    edit_json(hub / "reports/quality.json", lambda report: report["rows"][1]["tasks"]["rusentiment"].pop("accuracy"))
    stated = [text for _, text, _ in wrong(hub)]
    assert 0.7617 in stated
    edit_json(hub / "reports/training.json", lambda report: report["rows"][0].update(wall_time_s=60.0))
    assert any("27.3 hours" in str(text) for _, text, _ in wrong(hub))


def test_a_file_of_another_size(hub: Path) -> None:
    (hub / "onnx/model_quantized.onnx").write_text("q" * 2**20)
    ((_, stated, found),) = wrong(hub)
    assert str(stated).endswith("| 0.00800 |")
    assert str(found).endswith("| 1.00 |")


def test_a_missing_report_is_named_and_decides_nothing(hub: Path) -> None:
    (hub / "reports/quality.json").unlink()
    found = statements(hub)
    assert ("reports/quality.json", "is missing") in [(statement.subject, statement.reason) for statement in found]
    scores = [statement for statement in found if statement.subject == "README.md, model-index"]
    assert {statement.verdict for statement in scores} == {"not checked"}


def test_of_another_version_scores_and_tables_are_compared(hub: Path) -> None:
    of_version(hub, "0.0.1")
    edit(hub, r"^Random sequences|^The inputs are random sequences", "Inputs were random sequences")
    edit(hub, r"^\| Model \| Size, MiB ", "| Model | Megabytes ")
    edit(hub, r"\| 0\.675 ± 0\.013 ", "| 0.67 ")
    assert wrong(hub) == []
    about = {(subject, quantity) for subject, quantity, _ in unchecked(hub)}
    assert about == {("README.md", "text"), ("README.md, table", "reports/speed.json")}
    edit(hub, r"^(\| Student, ONNX Runtime int8 .*)\| 5\.70 ", r"\1| 7.50 ")
    edit(hub, r"value: 0\.7645$", "value: 0.8645")
    assert [quantity for quantity, _, _ in wrong(hub)] == [
        "Student, ONNX Runtime int8: Latency ratio, ×", "RuSentiment: weighted F1",
    ]  # fmt: skip


def test_a_card_that_does_not_name_its_version_is_one_of_another_version(hub: Path) -> None:
    (hub / "reports/card.json").unlink()
    assert wrong(hub) == []
    (text,) = (statement for statement in statements(hub) if statement.quantity == "text")
    assert "unknown" in text.reason


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda hub: (hub / "README.md").unlink(), r"README\.md: cannot be read"),
        (lambda hub: (hub / "README.md").write_bytes(b"\xff"), r"README\.md: is not UTF-8"),
        (lambda hub: (hub / "README.md").write_text("---\na: [\n---\n"), "the front matter cannot be read"),
        (lambda hub: (hub / "README.md").write_text("---\nmodel-index: 3\n---\n"), "the front matter cannot be read"),
        (lambda hub: (hub / "config.json").write_text("{}"), r"config\.json: num_hidden_layers is missing"),
        (lambda hub: (hub / "config.json").write_text("[]"), r"config\.json: a section is needed"),
        (lambda hub: (hub / "reports/speed.json").write_text("{}"), r"speed\.json: is no measurement file"),
    ],
)
def test_what_cannot_be_read_is_a_mistake_of_the_user(hub: Path, break_it: Any, said: str) -> None:
    break_it(hub)
    with pytest.raises(UserError, match=said):
        statements(hub)


@pytest.mark.parametrize(
    ("report", "change", "said"),
    [
        ("speed", lambda report: report["rows"][1].pop("size_mib"), r"rows\.1\.size_mib is missing"),
        ("speed", lambda report: report["rows"][1].update(size_mib=0), r"rows\.1\.size_mib: .*greater than 0"),
        ("speed", lambda report: report["rows"][1].update(batches=3), r"rows\.1\.batches"),
        ("parity", lambda report: report["details"].pop("sentences"), r"details\.sentences is missing"),
        ("training", lambda report: report["details"]["settings"].pop("warmup"), r"details\.settings\.warmup"),
        ("quality", lambda report: report["environment"].update(cpu=1), r"environment\.cpu"),
        (
            "quality",
            lambda report: report["rows"][1]["tasks"]["rusentiment"]["accuracy"].update(values="x"),
            r"rows\.1\.tasks\.rusentiment\.accuracy",
        ),
        ("parity", lambda report: report["rows"][0].update(sha256=["0"]), r"rows\.0\.sha256"),
    ],
)
def test_a_report_of_another_form_is_a_mistake_of_the_user(hub: Path, report: str, change: Any, said: str) -> None:
    edit_json(hub / f"reports/{report}.json", change)
    with pytest.raises(UserError, match=rf"{report}\.json: {said}"):
        read_reports(hub)


def test_a_mistake_of_ours_is_not_said_to_be_one_of_the_report(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(run: object) -> str:
        raise KeyError("latency_s")

    monkeypatch.setattr(card_statements, "render_card", broken)
    with pytest.raises(KeyError):
        list(check_repository(hub, Extent()))


def test_a_folder_without_reports(hub: Path) -> None:
    for path in (hub / "reports").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="has none of the reports"):
        list(check_repository(hub, Extent()))


def test_control_characters_of_a_stranger_do_not_reach_the_terminal(
    hub: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "500")
    edit(hub, "needs no custom code", f"needs {ESC}]0;owned\x07 no \x9b31mcode [bold]")
    (hub / f"onnx/evil{ESC}[2J.onnx").write_bytes(b"x")
    edit_json(hub / "reports/parity.json", lambda report: report["rows"][0].update(case=f"case{ESC}[1m"))
    assert main(["verify", str(hub), "--all"]) == 1
    shown = capsys.readouterr().out
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", shown)
    assert r"evil\x1b[2J.onnx" in shown
    assert main(["verify", str(hub), "--json"]) == 1
    text = capsys.readouterr().out
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text)
    assert any(ESC in statement["subject"] for statement in json.loads(text)["statements"])
    (hub / "README.md").write_text(f"---\na: [{ESC}[31m\n---\n", encoding="utf-8")
    assert main(["verify", str(hub)]) == 2
    assert ESC not in capsys.readouterr().err
