"""Commands on a small model: files proved on other text than they were calibrated on, and measured from the Hub."""

import ast
import dataclasses
import datetime
import hashlib
import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock, Timeout
from huggingface_hub import HfApi, constants

from distilrubert.common.errors import UserError
from distilrubert.common.measurements import Environment, Measurements, Row
from distilrubert.conversion.parity import default_sentences
from distilrubert.evaluation.evaluation_settings import FinetuningSettings
from distilrubert.model_card.space.shown_model import read_model
from distilrubert.pipeline import commands, run_commands, summary
from distilrubert.pipeline.cli import main
from distilrubert.pipeline.recipe import TeacherSettings, load_recipe
from distilrubert.pipeline.run import Run
from distilrubert.pipeline.stage_folders import StageFolders
from distilrubert.pipeline.statement import checked, statements_as_json
from distilrubert.pipeline.summary import fastest_files, next_steps, print_quality, print_speed
from distilrubert.pipeline.terminal import new_table, print_table

from ..hub.conftest import local_hub, model_folder  # noqa: F401
from .example_recipes import MINIMAL, ROOT

EXAMPLE = """Это "да"? Нет, д`[MASK]$"""


@pytest.fixture(autouse=True)
def of_a_masked_language_model(monkeypatch):
    """Runs of these tests have no repository, of which the last words of a command tell."""
    monkeypatch.setattr(summary, "read_model", lambda hub: None)
    monkeypatch.setattr(
        summary, "read_card_input", lambda hub: SimpleNamespace(example=EXAMPLE, has_head=True, finetuning=None)
    )


def converted(monkeypatch, *arguments) -> dict[str, list[str]]:
    """The sentences that a conversion got."""
    seen = {}

    def convert_model(model, output, settings, sentences, calibration, encoder):
        seen.update(proof=list(sentences), calibration=list(calibration))
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "convert_model", convert_model)
    monkeypatch.setattr(commands, "module_folder", Path)
    assert main(["convert", "m", "--output", "o", *arguments]) == 130
    return seen


def test_files_are_proved_on_text_that_they_were_not_calibrated_on(monkeypatch, tmp_path):
    seen = converted(monkeypatch)
    assert not set(seen["proof"]) & set(seen["calibration"])
    assert sorted(seen["proof"] + seen["calibration"]) == sorted(default_sentences())
    (tmp_path / "own.txt").write_text("а\nб\nв\n", encoding="utf-8")
    assert converted(monkeypatch, "--sentences", str(tmp_path / "own.txt")) == {
        "proof": ["б"],
        "calibration": ["а", "в"],
    }
    assert converted(monkeypatch, "--onnx", "masked-lm-int8")["calibration"]
    # Without int8 nothing is calibrated, and all of the text is proof.
    assert converted(monkeypatch, "--onnx", "fp32")["proof"] == default_sentences()


def test_an_interruption_says_whether_anything_was_kept(monkeypatch, capsys):
    converted(monkeypatch)
    assert capsys.readouterr().err == "distilrubert: interrupted; nothing was kept\n"


def test_a_card_is_written_again_from_the_latest_results(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(run_commands, "write_card", lambda folder: folder / "hub/README.md")
    (tmp_path / "recipe.yaml").write_text(MINIMAL, encoding="utf-8")
    assert main(["card", str(tmp_path)]) == 2
    assert "there is no hub folder of the latest settings yet; publish.py" in capsys.readouterr().err
    folders = StageFolders(tmp_path)
    begun = folders.begin("card", {"card": {}, "after": {}})
    (begun.path / "hub").mkdir()
    folders.point_to([folders.finish(begun, ["hub"], 1.0)])
    (tmp_path / "hub").symlink_to(begun.path / "hub")
    assert main(["card", str(tmp_path)]) == 0
    # It may have been written from an edited recipe: the next run of the recipe writes it again.
    assert not folders.current()[0].is_complete


@pytest.mark.parametrize(
    ("started", "again"),
    [
        ("publish.py", [sys.executable, "publish.py"]),
        ("/opt/a project/publish.py", [sys.executable, "/opt/a project/publish.py"]),
        ("/opt/bin/distilrubert", ["/opt/bin/distilrubert", "publish"]),
        ("/opt/pipeline/__main__.py", [sys.executable, "-m", "distilrubert.pipeline", "publish"]),
    ],
)
def test_the_commands_at_the_end_go_through_the_shell(monkeypatch, tmp_path, started, again):
    monkeypatch.setattr(sys, "argv", [started])
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe(ROOT / "recipes/demo.yaml")
    said = next_steps(Run(recipe, tmp_path.parent / "it's"), ["my recipe.yaml"])
    arguments, page, server, push = (shlex.split(line) for line in said.splitlines() if line.startswith("  "))
    assert page[3:] == ["space", str(tmp_path.parent / "it's/hub"), "--output", str(tmp_path.parent / "it's/page")]
    assert server[1:3] == ["-m", "http.server"]
    assert server[-1] == page[-1]
    assert push == [*again, "my recipe.yaml", "--repo-id", "USER/demo"]
    assert arguments[1] == "-c"
    call = ast.parse(arguments[2]).body[-1].value.args[0].value
    assert ast.literal_eval(call.args[0]) == EXAMPLE
    assert ast.literal_eval(call.func.args[1]) == str(tmp_path.parent / "it's/hub")


def test_a_run_that_trains_its_teacher_says_what_to_expect(tmp_path):
    demo = load_recipe(ROOT / "recipes/demo.yaml")
    assert "not how good a student can be" in next_steps(Run(demo, tmp_path), [])
    loaded = demo.model_copy(update={"teacher": TeacherSettings(model="some/teacher")})
    assert next_steps(Run(loaded, tmp_path), []).startswith("The model repository is in")


def test_a_model_that_no_page_can_show_is_not_shown_in_a_browser(monkeypatch, tmp_path):
    monkeypatch.setattr(summary, "read_model", read_model)
    (tmp_path / "hub").mkdir()
    # It has no graph.
    (tmp_path / "hub" / "README.md").write_text("---\npipeline_tag: text-classification\n---\n", encoding="utf-8")
    assert "http.server" not in next_steps(Run(load_recipe(ROOT / "recipes/demo.yaml"), tmp_path), [])


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt(), 130), (UserError("no data"), 2)])
def test_statements_that_were_reached_are_shown(monkeypatch, tmp_path, capsys, error, status):
    def check_repository(folder, extent):
        yield checked("student", "parameters", 7, 8, holds=False)
        raise error

    monkeypatch.setattr(commands, "check_repository", check_repository)
    assert main(["verify", str(tmp_path)]) == status
    assert "parameters" in capsys.readouterr().out
    assert main(["verify", str(tmp_path), "--json"]) == status
    assert capsys.readouterr().out == ""


def test_json_of_statements_is_read_by_every_reader():
    # A damaged file yields NaN, and front matter may hold anything.
    measured = [math.nan, -math.inf, 0.5, None, "≥ 1", datetime.date(2026, 1, 2), [math.nan]]
    text = statements_as_json([checked("file", "cosine", 1, value, holds=False) for value in measured])
    found = json.loads(text, parse_constant=pytest.fail)["statements"]
    assert [statement["found"] for statement in found] == ["nan", "-inf", 0.5, None, "≥ 1", "2026-01-02", "[nan]"]


def test_the_protocol_of_an_evaluation_can_be_set(monkeypatch, model_folder, tmp_path, capsys):  # noqa: F811
    seen = {}

    def measure_quality(models, tasks, settings, **options):
        names = {"tasks": [task.name for task in tasks], "probed": [task.name for task in options["probed"]]}
        seen.update(settings=settings, processes=options["processes"], **names)
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "measure_quality", measure_quality)
    intents = str(Path(__file__).parents[2] / "recipes/demo/intents.yaml")
    arguments = ["--task", intents, "--seeds", "7", "--set", "epochs=2", "--set", "train_limit=50", "--processes", "3"]
    assert main(["evaluate", str(model_folder), *arguments, "--output", str(tmp_path / "scores.json")]) == 130
    assert capsys.readouterr().err == "distilrubert: interrupted; the same command continues from there\n"
    assert seen["settings"].finetuning == FinetuningSettings(epochs=2, train_limit=50)
    assert (seen["settings"].seeds, seen["processes"]) == ([7], 3)
    assert (seen["tasks"], seen["probed"]) == (["intents"], [])
    main(["evaluate", str(model_folder), "--task", intents, "--probe", "--output", str(tmp_path / "scores.json")])
    assert (seen["tasks"], seen["probed"]) == ([], ["intents"])
    capsys.readouterr()
    both = ["--probe", "--onnx", "int8", "--output", str(tmp_path / "scores.json")]
    assert main(["evaluate", str(model_folder), "--task", intents, *both]) == 2
    assert "--probe: scores the checkpoint alone" in capsys.readouterr().err


def test_json_is_all_that_is_printed_also_without_a_repository(monkeypatch, capsys, model_folder, tmp_path):  # noqa: F811
    monkeypatch.setattr(run_commands, "check_before_work", lambda *_, **__: None)
    monkeypatch.setattr(run_commands, "with_commits", lambda run, **_: run)
    monkeypatch.setattr(run_commands, "bring_up_to_date", lambda *_: None)
    shutil.copytree(model_folder, tmp_path / "run" / "hub")
    (tmp_path / "recipe.yaml").write_text(MINIMAL, encoding="utf-8")
    assert main(["publish", str(tmp_path / "recipe.yaml"), "--run-dir", str(tmp_path / "run"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["folder"] == str(tmp_path / "run" / "hub")
    files = {file["path"]: file for file in said["files"]}
    card = (model_folder / "README.md").read_bytes()
    assert files["README.md"] == {
        "path": "README.md", "bytes": len(card), "sha256": hashlib.sha256(card).hexdigest(),
    }  # fmt: skip


def test_the_folder_is_checked_also_without_a_repository(monkeypatch, capsys, model_folder, tmp_path):  # noqa: F811
    monkeypatch.setattr(run_commands, "check_before_work", lambda *_, **__: None)
    monkeypatch.setattr(run_commands, "with_commits", lambda run, **_: run)
    monkeypatch.setattr(run_commands, "bring_up_to_date", lambda *_: None)
    shutil.copytree(model_folder, tmp_path / "run" / "hub")
    (tmp_path / "run" / "hub" / "notes.txt").write_text("hf_" + "abcdefghij" * 4)
    (tmp_path / "recipe.yaml").write_text(MINIMAL, encoding="utf-8")
    assert main(["publish", str(tmp_path / "recipe.yaml"), "--run-dir", str(tmp_path / "run"), "--json"]) == 1
    assert "notes.txt" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("performed", "target", "shown"),
    [(["speed"], ["--repo-id", "me/x"], 1), ([], ["--repo-id", "me/x"], 0), ([], [], 1)],
)
def test_tables_are_shown_once(monkeypatch, model_folder, tmp_path, performed, target, shown):  # noqa: F811
    monkeypatch.setattr(run_commands, "check_before_work", lambda *_, **__: None)
    monkeypatch.setattr(run_commands, "with_commits", lambda run, **_: run)
    monkeypatch.setattr(run_commands, "bring_up_to_date", lambda *_: performed)
    monkeypatch.setattr(run_commands, "_push", lambda *_: 0)
    tables = []
    monkeypatch.setattr(run_commands, "print_tables", tables.append)
    shutil.copytree(model_folder, tmp_path / "run" / "hub")
    (tmp_path / "recipe.yaml").write_text(MINIMAL, encoding="utf-8")
    assert main(["publish", str(tmp_path / "recipe.yaml"), "--run-dir", str(tmp_path / "run"), *target]) == 0
    assert len(tables) == shown


def test_nobody_works_in_the_folder_that_is_published(monkeypatch, model_folder, tmp_path):  # noqa: F811
    """What goes public is what was looked into, and nothing that another command has put there meanwhile."""
    folder = tmp_path / "run"
    shutil.copytree(model_folder, folder / "hub")
    for recipe in (tmp_path / "recipe.yaml", folder / "recipe.yaml"):
        recipe.write_text(MINIMAL, encoding="utf-8")
    monkeypatch.setattr(run_commands, "check_before_work", lambda *_, **__: None)
    monkeypatch.setattr(run_commands, "with_commits", lambda run, **_: run)
    monkeypatch.setattr(run_commands, "bring_up_to_date", lambda *_: None)
    refused = []

    def another_comes(*_):
        with pytest.raises(Timeout):
            FileLock(folder / ".lock").acquire(blocking=False)
        refused.append("publish" if not refused else "card")
        return folder / "hub/README.md"

    monkeypatch.setattr(run_commands, "_push", lambda *_: bool(another_comes()) and 0)
    monkeypatch.setattr(run_commands, "write_card", another_comes)
    options = ["--run-dir", str(folder), "--repo-id", "me/x", "--json"]
    assert main(["publish", str(tmp_path / "recipe.yaml"), *options]) == 0
    assert main(["card", str(folder)]) == 0
    assert refused == ["publish", "card"]
    FileLock(folder / ".lock").acquire(blocking=False)
    assert main(["card", str(tmp_path / "none")]) == 2


def test_a_target_that_cannot_be_pushed_to_is_refused_before_any_work(local_hub, tmp_path, monkeypatch, capsys):  # noqa: F811
    local_hub.storage.create("me/demo", "me")
    monkeypatch.setenv("HF_TOKEN", local_hub.tokens["me"])
    recipe, folder = str(ROOT / "recipes/demo.yaml"), tmp_path / "run"
    settings = ["--repo-id", "me/demo", "--private", "--endpoint", local_hub.endpoint]
    assert main(["publish", recipe, "--run-dir", str(folder), *settings]) == 2
    assert "publish.private: me/demo exists and is public" in capsys.readouterr().err
    assert not folder.exists()


@pytest.mark.export
@pytest.mark.slow
def test_every_file_of_a_repository_on_the_hub_is_measured(local_hub, model_folder, tmp_path, monkeypatch, capsys):  # noqa: F811
    assert main(["convert", str(model_folder), "--output", str(tmp_path / "out"), "--onnx", "fp32", "int8"]) == 0
    assert "Compared on 24 sentences; int8 was calibrated on 24 others" in capsys.readouterr().out
    api = HfApi(endpoint=local_hub.endpoint, token=local_hub.tokens["me"])
    api.create_repo("me/exported")
    # As HF_ENDPOINT does; without it the client 0.36 cannot read the URL of the commit that it has made.
    monkeypatch.setattr(constants, "ENDPOINT", local_hub.endpoint)
    api.upload_folder(repo_id="me/exported", folder_path=tmp_path / "out")
    # The client reads its endpoint when it is imported.
    hub_here = {"HF_ENDPOINT": local_hub.endpoint, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
    arguments = "benchmark me/exported --batch-size 1 --sequence-length 8 --starts 1 --texts a.txt --output out.json"
    (tmp_path / "a.txt").write_text("Привет\n\nКак дела?\n", encoding="utf-8")
    command = [sys.executable, "-m", "distilrubert.pipeline", *arguments.split()]
    subprocess.run(command, cwd=tmp_path, env={**os.environ, **hub_here}, capture_output=True, text=True, check=True)
    speed = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert [row["case"] for row in speed["rows"]] == [
        "exported-pytorch-fp32", "exported-onnx-fp32", "exported-onnx-int8",
    ]  # fmt: skip
    assert speed["details"]["texts"] == 2, "an empty line is none"


def test_folders_of_one_name_are_measured_on_texts(model_folder, tmp_path):  # noqa: F811
    """As runs/first/hub and runs/second/hub are."""
    folders = [shutil.copytree(model_folder, tmp_path / name / "hub") for name in ("first", "second")]
    before = sorted(tmp_path.rglob("*"))
    (tmp_path / "texts.txt").write_text("Привет\nКак дела?\n", encoding="utf-8")
    command = ["benchmark", *map(str, folders), "--texts", str(tmp_path / "texts.txt"), "--batch-size", "1"]
    assert main([*command, "--starts", "1", "--output", str(tmp_path / "out.json")]) == 0
    cases = [row["case"] for row in json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["rows"]]
    assert cases == [f"{folder}-pytorch-fp32" for folder in folders]
    assert set(tmp_path.rglob("*")) == {*before, tmp_path / "texts.txt", tmp_path / "out.json"}


def test_texts_to_measure_on_are_there(model_folder, tmp_path, capsys):  # noqa: F811
    (tmp_path / "empty.txt").write_text("\n \n", encoding="utf-8")
    for name, said in (("empty.txt", "holds no text"), ("none.txt", "cannot be read: No such file or directory")):
        arguments = ["benchmark", str(model_folder), "--output", str(tmp_path / "out.json"), "--texts"]
        assert main([*arguments, str(tmp_path / name)]) == 2
        assert f"--texts {tmp_path / name}: {said}" in capsys.readouterr().err


def test_the_tables_of_the_card_are_shown_in_80_columns(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    batches = {size: {"starts_s": [0.1234, 0.1244, 0.1254]} for size in ("1", "16")}
    cases = ["teacher-pytorch-fp32", "my-model-onnx-int8-avx512-vnni"]
    rows = [Row(case, {"size_mib": 129.5, "batches": batches, "device": "cpu"}) for case in cases]
    print_speed(Measurements(Environment.capture(1), rows, cases[0], {"starts": 3}))
    shown = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert "1 thread, 3 starts" in shown
    assert max(map(len, shown.splitlines()[1:])) <= 80
    words = shown.replace("\n", " ").split()
    assert {"my-model,", "ONNX", "Runtime", "0.124", "(1.00–1.00)", "130"} <= set(words)
    assert "…" not in shown


def test_the_fastest_file_is_named_with_its_settings_and_with_what_is_level():
    def row(case: str, one: list[float], sixteen: list[float]) -> Row:
        batches = {"1": {"starts_s": one}, "16": {"starts_s": sixteen}}
        return Row(case, {"size_mib": 1.0, "batches": batches, "device": "cpu"})

    rows = [
        row("small-pytorch-fp32", [0.2, 0.2], [3.2, 3.2]),
        row("small-onnx-int8", [0.02, 0.03], [0.4, 0.4]),
        # In one start faster than the one above, in the other slower: by 8 and by 5.
        row("small-openvino-int8-in-bf16", [0.025, 0.04], [0.1, 0.1]),
        row("large-pytorch-fp32", [0.4, 0.4], [6.4, 6.4]),
        row("large-openvino-int8", [0.1, 0.1], [1.6, 1.6]),
    ]
    details = {"starts": 2, "batch_sizes": [1, 16], "sequence_length": 512}
    told = fastest_files(Measurements(Environment.capture(4), rows, rows[0].case, details))
    openvino = "openvino/openvino_model_qint8_quantized.xml with INFERENCE_PRECISION_HINT"
    assert told.splitlines() == [
        "Fastest file of small here: onnx/model_quantized.onnx: 25 ms for one batch of 1; within the spread of the "
        f"starts: {openvino} bf16",
        f"Fastest file of small here: {openvino} bf16: 160 sequences/s in batches of 16",
        f"Fastest file of large here: {openvino} f32: 100 ms for one batch of 1, 10 sequences/s in batches of 16",
        "(4 threads, 512 tokens a sequence)",
    ]
    on_texts = [dataclasses.replace(row, values={**row.values, "tokens_per_text": 30.6}) for row in rows]
    told = fastest_files(Measurements(Environment.capture(4), on_texts, rows[0].case, {**details, "texts": 200}))
    assert told.splitlines()[-1] == "(4 threads, 200 texts of 31 tokens in the mean, tokenizer included)"


def test_the_table_of_scores_shows_probes_and_baselines(capsys):
    details = {"tasks": {"moods": {"title": "Moods_1", "main_metric": "accuracy"}}}
    scores = {"moods": {"accuracy": {"values": [0.625]}}}
    rows = [Row("model", {"tasks": {}, "linear_probe": scores}), Row("bag-of-words", {"tasks": scores})]
    print_quality(Measurements(Environment.capture(), rows, "model", details))
    _, head, _, probe, fine_tuned, *_ = capsys.readouterr().out.splitlines()
    assert head.split() == ["Measure", "model", "Bag", "of", "words"]
    assert probe.split() == ["Moods_1,", "linear", "probe:", "accuracy", "0.625", "–"]
    assert fine_tuned.split() == ["Moods_1:", "accuracy", "–", "0.625"]


def test_a_table_in_a_pipe_has_each_row_in_one_line(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    table = new_table("Title", ["stage", "why"])
    table.add_row("student", f"conversion.onnx was [fp32] and is [int8], {'long ' * 40}:x: end")
    print_table(table)
    (row,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("student"))
    assert "was [fp32] and is [int8]" in row
    assert row.rstrip().endswith(":x: end")


def test_cells_cannot_control_the_terminal(capsys):
    table = new_table("Title", ["stage", "why"])
    table.add_row("student", "\x1b]0;title\x07 of \x1b[31mred")
    print_table(table)
    printed = capsys.readouterr().out
    assert "\\x1b[31mred" in printed
    assert not {"\x1b", "\x07"} & {*printed}


@pytest.mark.export  # a dry run checks that the packages for its files are there
def test_a_dry_run_reads_the_shape_of_a_local_teacher(tiny_teacher_folder, tmp_path, capsys):
    folder = json.dumps(str(tiny_teacher_folder))
    changes = ["--set", "teacher.pretrain=null", "--set", f"teacher.model={folder}"]
    assert main(["publish", str(ROOT / "recipes/demo.yaml"), "--dry-run", "--run-dir", str(tmp_path), *changes]) == 0
    assert "student" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("", "--output: is the current folder; name a new one"),
        ("theirs", "--output theirs: exists; name a new folder"),
        ("file/new", "--output file/new: cannot be written: "),
    ],
)
def test_convert_replaces_nothing_of_others(output, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("theirs").mkdir()
    for name in ("theirs/config.json", "file"):
        Path(name).write_text("theirs", encoding="utf-8")
    assert main(["convert", "m", "--output", output]) == 2
    assert said in capsys.readouterr().err
    assert Path("theirs/config.json").read_text(encoding="utf-8") == "theirs"
