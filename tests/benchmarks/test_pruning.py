"""The comparison of starts: each student is made and measured once, and the table says which is ahead."""

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

from distilrubert.common.measurements import Environment, Measurements, Row

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
TINY = [
    "corpus.validation=0.3", "corpus.max_length=64", "corpus.processes=1", "student.layers=2",
    "student.initialise_from=[0, 3]", "student.dim=16", "student.heads=2", "student.hidden_dim=24",
    "student.prune={sequences: 8}", "distillation.batch_tokens=256", "distillation.precision=fp32",
    "distillation.num_workers=0",
]  # fmt: skip


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    for folder in ("distillation", "."):
        monkeypatch.syspath_prepend(str(BENCHMARKS / folder))
    return importlib.import_module("pruning")


def test_each_start_is_measured_once(
    script: ModuleType, tiny_teacher_folder: Path, sentences: list[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("DISTILRUBERT_DATA", str(tmp_path))
    (tmp_path / "texts.txt").write_text("\n".join(sentences), encoding="utf-8")
    changes = [f"teacher.model={tiny_teacher_folder}", f"corpus.sources=[{{path: {tmp_path / 'texts.txt'}}}]", *TINY]
    command = ["--recipes", "reference-slim", "--updates", "3", "--run-dir", str(tmp_path / "run")]
    command += ["--output", str(tmp_path / "pruning.json")]
    command += [part for change in changes for part in ("--set", change)]
    assert script.main(command) == 0
    capsys.readouterr()
    report = Measurements.load(tmp_path / "pruning.json")
    assert [row.values["start"] for row in report.rows] == ["pruned", "largest-weights", "random"]
    assert {(row.values["updates"], row.values["tokens"], row.values["parameters"]) for row in report.rows} == {
        (3, report.rows[0].values["tokens"], report.rows[0].values["parameters"])
    }
    assert [row.values["learning_rate"] for row in report.rows] == [5e-4] * 3
    before = [row.values["before"]["kl_to_teacher_nats"] for row in report.rows]
    assert len(set(before)) == 3
    assert all(row.values["after"]["by_fold"].keys() == row.values["before"]["by_fold"].keys() for row in report.rows)
    # The same command has nothing to do, and one with other settings does not mix its rows in.
    assert script.main(command) == 0
    assert script.main([*command, "--updates", "4"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines()[-1].endswith("was measured with other settings; name another file with --output")
    json.loads((tmp_path / "pruning.json").read_text())


def test_the_table_tells_what_is_significant(script: ModuleType) -> None:
    document = importlib.import_module("document")

    def row(start: str, after: list[float]) -> Row:
        def figures(folds: list[float]) -> dict[str, object]:
            return {
                "kl_to_teacher_nats": sum(folds) / len(folds), "teacher_agreement": 0.25, "masked_accuracy": 0.125,
                "masked_tokens": 1000, "by_fold": {"kl_to_teacher_nats": folds},
            }  # fmt: skip

        values = {"recipe": "reference-slim", "start": start, "updates": 7, "tokens": 7000, "precision": "fp32"}
        return Row(f"reference-slim-{start}", {**values, "before": figures([5.0] * 4), "after": figures(after)})

    rows = [row("pruned", [1.0, 2.0, 1.0, 2.0]), row("random", [4.0, 5.1, 4.1, 5.0])]
    rows.append(row("largest-weights", [1.0, 2.1, 0.8, 2.2]))
    lines = document.VIEWS["pruning", "rows"](Measurements(Environment.capture(), rows)).splitlines()
    assert lines[2] == "| slim, pruned | 5.00 | 1.50 |  | 25.0 | 25.0 | 12.5 | 12.5 |"
    # Differences of 3.0, 3.1, 3.1 and 3.0: a deviation of 0.058, over the root of 4 parts.
    assert lines[3] == "| slim, random | 5.00 | 4.55 | 3.05 ± 0.03 * | 25.0 | 25.0 | 12.5 | 12.5 |"
    assert "| 0.03 ± 0.09 |" in lines[4]
    assert lines[6].startswith("7 updates, 7,000 tokens, with fp32; 1,000 masked tokens of held-out text in 4 parts.")
