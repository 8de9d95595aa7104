"""Several runs side by side."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matplotlib.transforms import Bbox

from distilrubert.common.errors import UserError
from distilrubert.model_card.card import write_card
from distilrubert.model_card.comparison import (
    NOT_SET,
    comparison_table,
    differences,
    draw_comparison,
    quality_of,
    read_runs,
    speed_of,
    teacher_run,
)
from distilrubert.pipeline.cli import main

from .example_run import changed, write_run

Change = Callable[[dict[str, Any]], None]


def finished(folder: Path, recipe: dict[str, Any] | None = None, **changes: Change) -> Path:
    """A run directory with reports that are changed by name."""
    write_run(folder, recipe or changed())
    for name, change in changes.items():
        path = folder / "reports" / f"{name}.json"
        report = json.loads(path.read_text(encoding="utf-8"))
        change(report)
        path.write_text(json.dumps(report), encoding="utf-8")
    write_card(folder)
    return folder


def halve_speed(report: dict[str, Any]) -> None:
    for row in report["rows"]:
        for batch in row["batches"].values():
            batch["starts_s"] = [2 * seconds for seconds in batch["starts_s"]]


def other_cpu(report: dict[str, Any]) -> None:
    report["environment"]["cpu"] = "Another"


def without_tasks(report: dict[str, Any]) -> None:
    for row in report["rows"]:
        row.pop("tasks", None)


def without_scores(report: dict[str, Any]) -> None:
    for row in report["rows"]:
        for part in ("tasks", "linear_probe"):
            row.pop(part, None)


@pytest.fixture
def pair(tmp_path: Path) -> list[Path]:
    recipe = changed(distillation={"temperature": 4.0}, seed=7)
    return [finished(tmp_path / "one"), finished(tmp_path / "other", recipe, speed=halve_speed)]


def test_the_table_has_the_teacher_and_every_file(pair: list[Path]) -> None:
    runs = read_runs(pair)
    table = comparison_table(runs, quality_of(runs))
    assert table.head[:4] == ["Run", "File", "Size, MiB", "Throughput on the CPU, samples/s"]
    assert "RuSentiment (weighted F1), FactRuEval" in table.head[4]
    files = ("PyTorch fp32", "ONNX Runtime fp32", "ONNX Runtime int8")
    assert [row[:2] for row in table.rows] == [
        ["teacher", "PyTorch fp32"],
        *([run, file] for run in ("one", "other") for file in files),
    ]
    # The mean of 0.76447 and 0.85353, of the int8 file that of 0.76320 and 0.85147; deviations by hand.
    assert [row[4] for row in table.rows[1:4]] == ["0.809 ± 0.003", "0.809 ± 0.003", "0.807 ± 0.002"]
    assert [row[3] for row in table.rows[:2] + table.rows[4:5]] == ["1.54", "3.25", "1.63"]


def test_only_fields_that_differ_are_listed(pair: list[Path]) -> None:
    rows = {row[0]: row[1:] for row in differences(read_runs(pair)).rows}
    assert rows == {"seed": ["42", "7"], "distillation.temperature": ["2.0", "4.0"]}


def test_a_field_that_one_recipe_does_not_have(tmp_path: Path) -> None:
    recipe = changed(student={"layers": 2})
    runs = read_runs([finished(tmp_path / "one"), finished(tmp_path / "other", recipe)])
    assert [list(row) for row in differences(runs).rows] == [["student.layers", NOT_SET, "2"]]


@pytest.mark.parametrize(
    ("change", "title"),
    [
        (without_tasks, "RuSentiment (weighted F1)"),
        (without_scores, "Accuracy at masked tokens of held-out text"),
    ],
)
def test_the_measure_is_the_first_that_all_have(tmp_path: Path, change: Change, title: str) -> None:
    quality = quality_of(read_runs([finished(tmp_path / "one"), finished(tmp_path / "other", quality=change)]))
    assert quality is not None
    assert quality.title == title


def test_predictions_of_other_texts_are_not_compared(tmp_path: Path) -> None:
    runs = read_runs([finished(tmp_path / name, quality=without_scores) for name in ("one", "other")])
    manifest = tmp_path / "other/corpus/manifest.json"
    values = json.loads(manifest.read_text(encoding="utf-8"))
    values["total"]["validation_sequences"] = 3
    manifest.write_text(json.dumps(values), encoding="utf-8")
    assert quality_of(runs) is not None
    write_card(tmp_path / "other")
    runs = read_runs([tmp_path / "one", tmp_path / "other"])
    assert quality_of(runs) is None
    assert draw_comparison(runs, None) is None
    assert len(comparison_table(runs, None).head) == 4


def test_speeds_of_two_machines_are_compared_as_ratios(tmp_path: Path) -> None:
    runs = read_runs([finished(tmp_path / "one"), finished(tmp_path / "other", speed=other_cpu)])
    assert speed_of(runs) == (
        "throughput_ratio", "Throughput on the CPU as a ratio to the teacher (measured differently)",
    )  # fmt: skip
    picture = draw_comparison(runs, quality_of(runs))
    assert picture is not None
    assert any("x, 0.8" in text.get_text() for text in picture.axes[0].texts)


def test_two_teachers_stand_for_nobody(tmp_path: Path) -> None:
    recipe = changed(teacher={"model": "another/teacher"})
    runs = read_runs([finished(tmp_path / "one"), finished(tmp_path / "other", recipe)])
    assert teacher_run(runs) is None
    assert {row[0] for row in comparison_table(runs, None).rows} == {"one", "other"}


def test_the_picture(pair: list[Path]) -> None:
    runs = read_runs(pair)
    picture = draw_comparison(runs, quality_of(runs))
    assert picture is not None
    picture.draw_without_rendering()
    assert [axes.get_xlabel() for axes in picture.axes] == ["Throughput on the CPU, samples/s", "Size of the file, MiB"]
    for axes in picture.axes:
        texts = [text for text in axes.texts if text.get_text()]
        # The fastest file of each runtime, PyTorch and ONNX, of both runs; and the teacher.
        assert len(texts) == 5
        assert not any("fp32\n" in text.get_text() and "ONNX" in text.get_text() for text in texts)
        boxes = [text.get_window_extent() for text in texts]
        assert not any(Bbox.intersection(box, later) for place, box in enumerate(boxes) for later in boxes[place + 1 :])
        assert all(picture.bbox.containsx(edge) for box in boxes for edge in (box.x0, box.x1))


def test_the_command(pair: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "drawn.png"
    assert main(["compare", *map(str, pair), "--output", str(output)]) == 0
    said = capsys.readouterr().out
    assert "distillation.temperature" in said
    assert f"The picture is in {output}" in said
    first = output.read_bytes()
    assert first.startswith(b"\x89PNG")
    assert main(["compare", *map(str, pair), "--output", str(output)]) == 0
    assert output.read_bytes() == first


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    folders = [finished(tmp_path / name / "run") for name in ("a", "b")]
    assert [run.name for run in read_runs(folders)] == [str(folder) for folder in folders]


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("nowhere", "nowhere: not a run directory: there is no recipe.yaml in it"),
        ("begun", "begun: is not finished: there is no model repository hub/ in it"),
        ("one", "name two different run directories at least"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, broken: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    finished(tmp_path / "one")
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun/recipe.yaml").write_text("name: x\n")
    output = tmp_path / "drawn.png"
    assert main(["compare", str(tmp_path / "one"), str(tmp_path / broken), "--output", str(output)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line
    assert not output.exists()


def test_a_picture_is_a_png(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "a", "b", "--output", str(tmp_path / "a.svg")]) == 2
    assert "its name ends in .png" in capsys.readouterr().err
    with pytest.raises(UserError, match="two different"):
        read_runs([tmp_path])
