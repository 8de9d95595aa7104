"""The command line: help, and mistakes that are one line on standard error with exit status 2."""

import argparse
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from distilrubert.common.processes import STOP_SIGNALS
from distilrubert.evaluation.sentences.suites import known_suites
from distilrubert.pipeline import cli, run_commands
from distilrubert.pipeline.cli import main
from distilrubert.pipeline.exit_statuses import CLOSED_PIPE
from distilrubert.pipeline.options import COMMANDS, parser_for
from distilrubert.pipeline.stage_folders import StageFolders

from .example_recipes import MINIMAL

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A working folder of its own, no token, no way to a real Hub."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_TOKEN", raising=False)


@pytest.fixture
def recipe(tmp_path, tiny_teacher_folder) -> Path:
    """A recipe that could run: a real small teacher and some text."""
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/a.txt").write_text("Привет, как дела?\nХорошо, а у тебя?\n" * 3, encoding="utf-8")
    path = tmp_path / "recipe.yaml"
    text = MINIMAL.replace("some/teacher", str(tiny_teacher_folder)).replace("*.txt}]", "*.txt}], max_length: 64")
    text += "conversion: {onnx: []}\n"
    path.write_text(text, encoding="utf-8")
    return path


def mistake(capsys, *arguments: object) -> str:
    """The one line that a command says about a mistake; nothing may have been written."""
    before = sorted(Path.cwd().rglob("*"))
    capsys.readouterr()
    try:
        status = main([str(argument) for argument in arguments])
    except SystemExit as exit_:  # argparse's own mistakes
        status = exit_.code
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert status == 2
    assert len(lines) == 1, captured.err
    assert captured.out == ""
    assert sorted(Path.cwd().rglob("*")) == before
    return lines[0]


def test_help_names_every_command_and_each_shows_an_example(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    overview = capsys.readouterr().out
    for verb in COMMANDS:
        assert verb in overview
        with pytest.raises(SystemExit, match="0"):
            main([verb, "--help"])
        assert f"example: distilrubert {verb} " in capsys.readouterr().out


def options_of(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from options_of(command)


def test_help_says_what_an_option_does_and_not_what_a_recipe_has():
    """Many of these words are the descriptions of a recipe's fields."""
    for action in options_of(parser_for("distilrubert")):
        if isinstance(action, argparse._SubParsersAction):
            continue
        assert action.help, action
        assert not re.match("Whether|[A-Z][a-z]+ ", action.help), action.help
        assert not re.search("null|whether to|\\.$", action.help), action.help


def test_help_lists_the_suites(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["evaluate", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert f"a suite ({', '.join(known_suites())}, or a YAML file)" in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["destill", "a.yaml"], "invalid choice: 'destill'"),
        (["publish", "--repo"], "expected one argument"),
        (["publish", "--no-such-option"], "unrecognized arguments: --no-such-option"),
        (["distill"], "the following arguments are required: RECIPE"),
        (["distill", "none.yaml"], "none.yaml: the recipe cannot be read: No such file or directory"),
        (["benchmark", "none", "--output", "x.json"], "none"),
        (["benchmark", ".", "--output", f"{__file__}/x.json"], "is no folder that can be written to"),
        (["convert", "./none", "--output", "out", "--onnx"], "./none: there is no such folder"),
        (["convert", ".", "--output", "out", "--onnx"], "config.json is missing"),
        (["push", ".", "--repo-id", "me/demo"], "holds no model: there is no config.json"),
        (["push", "nowhere", "--repo-id", "me/demo"], "nowhere: there is no such folder"),
        (["space", "nowhere", "--output", "out"], "nowhere: there is no such folder"),
        (["space", ".", "--output", "out"], "holds no model: there is no config.json"),
        (["evaluate", ".", "--task", "rusentimen", "--output", "x.json"], "rusentiment"),
        (
            ["evaluate", ".", "--task", "t", "--output", "o", "--processes", "0"],
            "--processes: '0' is not a whole number",
        ),
        (["evaluate", ".", "--task", "t", "--output", "o", "--set", "epoch=3"], "did you mean epochs?"),
        (["evaluate", ".", "--task", "t", "--output", "o", "--set", "learning_rates=[0]"], "greater than 0, found 0"),
        (["verify", ".", "--seeds", "1", "2", "1"], "--seeds: each only once, found [1, 2, 1]"),
        (["verify", ".", "--seeds", "-1"], "--seeds: input should be greater than or equal to 0, found -1"),
        (["card", "none"], "none: there is no such run directory"),
        (["status", "."], ".: not a run directory"),
        (["clean", "none"], "none: not a run directory"),
        (["card", "."], ".: not a run directory: there is no recipe.yaml in it"),
        (["push", "."], "--repo-id: is missing"),
        (["push", "none", "--repo-id", "me/demo"], "none: there is no such folder"),
        (["publish", "--repo-id", "x"], "distilrubert: --repo-id: 'x' is malformed"),
        (["push", ".", "--repo-id", "a/b/c"], "--repo-id: 'a/b/c' is malformed"),
        (["push", ".", "--repo-id", "me/demo", "--tag", ".."], "--tag: '..' cannot name a branch or tag"),
        (
            ["push", ".", "--repo-id", "me/demo", "--commit-message", ""],
            "--commit-message: string should have at least",
        ),
        (["push", ".", "--public", "--private"], "not allowed with argument"),
        (["verify", "./none"], "./none: there is no such folder"),
        (["verify", "."], "has none of the reports"),
        (["verify", ".", "--tolerance", "0"], "--tolerance 0: a share above 0 is needed"),
        (["verify", ".", "--task", "rusentimen"], "rusentiment"),
        (["verify", "--task", "rusentiment"], "the following arguments are required: MODEL"),
        (["benchmark", ".", "--batch-size", "--output", "o"], "--batch-size: expected at least one argument"),
        (["convert", ".", "--onnx", "int4", "--output", "o"], "--onnx: input should be 'fp32', "),
        (["benchmark", ".", "--batch-size", "0", "--output", "o"], "--batch-size: a batch has at least one sequence"),
        (["benchmark", ".", "--batch-size", "x", "--output", "o"], "--batch-size: input should be a valid integer"),
        (["trim", ".", "--corpus", "nothere", "--output", "o"], "--corpus: no file matches path"),
        (["trim", ".", "--corpus", "x", "--held-out", "2", "--output", "o"], "--held-out: input should be less than 1"),
        (
            ["evaluate", ".", "--suite", "encodechka", "--processes", "2", "--output", "o"],
            "leave --probe, --seeds, --set",
        ),
        (["verify", ".", "--processes", "2"], "--seeds, --processes: are for --task"),
    ],
)
def test_mistakes_on_the_command_line(capsys, arguments, said):
    assert said in mistake(capsys, *arguments)


def test_one_sentence_cannot_both_calibrate_and_prove(capsys, tmp_path):
    (tmp_path / "one.txt").write_text("Привет!\n\n", encoding="utf-8")
    said = mistake(capsys, "convert", "m", "--output", "out", "--sentences", "one.txt")
    assert "--sentences one.txt: too few" in said


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("verify runs/demo/hub --task a --task b", {"model": "runs/demo/hub", "task": ["a", "b"], "seeds": None}),
        ("verify me/model --seeds 1 2 --json", {"model": "me/model", "seeds": [1, 2], "task": [], "json": True}),
        ("convert m --onnx fp32 int8 --output o --onnx int8-avx2", {"onnx": ["fp32", "int8", "int8-avx2"]}),
        ("convert m --onnx --output o", {"model": "m", "onnx": [], "openvino": None}),
        ("convert m --output o", {"onnx": None}),
        ("benchmark a/b c/d --batch-size 1 16 --output o", {"models": ["a/b", "c/d"], "batch_sizes": ["1", "16"]}),
        ("push hub --public", {"private": False, "repo_id": None}),
        ("push hub --private", {"private": True}),
        ("push hub", {"private": None}),
    ],
)
def test_options_of_several_values_may_be_repeated(line, expected):
    for _ in range(2):
        options = vars(parser_for("distilrubert").parse_args(line.split()))
        assert {name: options[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("distillation.wieghts={}", "unknown key distillation.wieghts: did you mean weights?"),
        ("corpus.sources=[{path: 'none/*.txt'}]", "no file matches path"),
        ("student.layers=9", "student.layers"),
        ("student.initialise_from=[0, 17]", "student.initialise_from"),
        ("evaluation.tasks=[rusentimant]", "rusentiment"),
        ("evaluation.exported.onnx=[int4]", "evaluation.exported.onnx"),
        ("teacher.model=./texts", "config.json is missing"),
        ("teacher.model=nobody/nothing", "nobody/nothing"),
        ("distillation.trackers=[notebook]", "unknown tracker 'notebook'"),
        ("publish.repo_id=a/b/c", "publish.repo_id: 'a/b/c' is malformed"),
        ("publish.tag=..", "publish.tag: '..' cannot name a branch or tag"),
        (
            "publish.endpoint=https://me:hidden@hub",
            "publish: a recipe must not name an endpoint, because your token would be sent there",
        ),
        ("card.tags=['']", "card.tags.0: string should have at least 1 character"),
        (f"x={'[' * 5000}", "the value is not YAML"),
        ("publish.repo_id=me/demo", "HF_TOKEN: there is no token"),
    ],
)
def test_mistakes_in_a_recipe_are_found_before_any_work(capsys, recipe, override, said):
    found = mistake(capsys, "publish", recipe, "--set", override)
    assert said in found
    assert "hidden" not in found


def test_a_recipe_that_is_nested_without_end(capsys, tmp_path):
    (tmp_path / "deep.yaml").write_text(f"a: {'[' * 5000}{']' * 5000}", encoding="utf-8")
    assert "deep.yaml: invalid YAML: nested too deeply" in mistake(capsys, "distill", tmp_path / "deep.yaml")


def test_an_endpoint_with_a_password_is_not_shown(capsys, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://me:hidden@127.0.0.1:9")
    said = mistake(capsys, "verify", "me/model")
    assert "HF_ENDPOINT: must not contain a user name or password" in said
    assert "hidden" not in said


def test_a_launcher_variable_that_is_no_number(capsys, monkeypatch, recipe):
    monkeypatch.setenv("RANK", "first")
    assert "RANK=first: a launcher sets this" in mistake(capsys, "distill", recipe)


def test_an_endpoint_that_is_no_url(capsys, recipe):
    assert "--endpoint: 'nonsense' is not the URL of a Hub" in mistake(
        capsys, "publish", recipe, "--repo-id", "me/demo", "--endpoint", "nonsense"
    )


def test_a_comparison_with_the_hub_needs_a_token_before_any_work(capsys, recipe):
    assert "HF_TOKEN: there is no token" in mistake(capsys, "publish", recipe, "--repo-id", "me/demo", "--no-push")


def test_a_dry_run_has_no_json(capsys, recipe):
    assert "--json: not with --dry-run" in mistake(capsys, "publish", recipe, "--dry-run", "--json")


def test_a_run_directory_that_cannot_be_written(capsys, recipe, tmp_path):
    (tmp_path / "file").write_text("")
    said = mistake(capsys, "publish", recipe, "--run-dir", tmp_path / "file" / "run")
    assert "the folder cannot be written" in said


def test_a_teacher_without_its_head(capsys, recipe, tmp_path, tiny_teacher):
    tiny_teacher.model.bert.save_pretrained(tmp_path / "headless")
    tiny_teacher.tokenizer.save_pretrained(tmp_path / "headless")
    said = mistake(capsys, "publish", recipe, "--set", "teacher.model=./headless")
    assert "the teacher is an encoder without a masked-language head" in said


def test_only_false_alarms_about_tokenizers_are_held_back(tmp_path):
    warn = """
import sys
from distilrubert.pipeline import cli, run_commands
cli._configure_logging()
from transformers import PreTrainedTokenizerFast
from transformers.utils import logging
for name in cli._TOKENIZER_LOGGERS:
    logger = logging.get_logger(name)
    logger.warning("The tokenizer you are loading from 'x' with an incorrect regex pattern: y")
    logger.warning("The tokenizer class you load from this checkpoint is not the same type as z")
    logger.warning("something else of {}".format(name))
"""
    done = subprocess.run([sys.executable, "-c", warn], capture_output=True, text=True, check=True)
    # transformers 5 begins its lines with its name.
    lines = [line.removeprefix("[transformers] ") for line in done.stderr.splitlines()]
    said = [line for line in lines if "None of PyTorch" not in line]
    assert said == [
        "something else of transformers.tokenization_utils_base",
        "something else of transformers.tokenization_utils_tokenizers",
    ]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--help"], 0, "--repo-id"),
        (["no-such.yaml"], 2, "no-such.yaml: the recipe cannot be read"),
        (["recipe.yaml", "--set", "distillation.wieghts={}"], 2, "unknown key distillation.wieghts"),
        (["recipe.yaml", "--set", "seed=one"], 2, "seed: input should be a valid integer"),
    ],
)
def test_a_mistake_is_told_without_importing_torch(recipe, arguments, status, said):
    """It takes seconds to import."""
    command = [sys.executable, "-X", "importtime", ROOT / "publish.py", *arguments]
    shown = subprocess.run(command, capture_output=True, text=True)
    assert shown.returncode == status
    assert said in shown.stdout + shown.stderr
    for library in ("torch", "transformers", "datasets"):
        assert f" {library}\n" not in shown.stderr


def test_an_interruption_of_the_first_seconds_is_no_traceback(capsys, monkeypatch):
    def interrupt() -> None:
        raise KeyboardInterrupt

    # Just before torch is imported, which takes seconds.
    monkeypatch.setattr(cli, "_configure_logging", interrupt)
    assert main(["card", "."]) == 130
    assert capsys.readouterr().err == "distilrubert: interrupted before anything was begun\n"


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_scheduler_that_ends_a_command_is_answered_like_ctrl_c(capsys, monkeypatch, number):
    monkeypatch.setattr(run_commands, "card", lambda _: signal.raise_signal(number))
    before = signal.getsignal(number)
    assert main(["card", "."]) == 130
    assert capsys.readouterr().err == "distilrubert: interrupted; nothing was kept\n"
    assert signal.getsignal(number) == before


@pytest.mark.parametrize("program", ["publish.py", "pipeline/__main__.py"])
def test_an_interruption_while_the_program_is_imported_is_no_traceback(program):
    interrupt = f"""
import runpy, sys

class Interrupted:
    def find_spec(self, name, *_):
        if name == "distilrubert.pipeline.options":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupted())
runpy.run_path({str(ROOT / program)!r}, run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", interrupt], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (130, "")
    (line,) = done.stderr.splitlines()
    assert line.endswith(": interrupted before anything was begun")
    # What is imported before that takes milliseconds.
    slow = "import sys, distilrubert.pipeline.cli; print({'pydantic', 'yaml', 'huggingface_hub'} & sys.modules.keys())"
    assert subprocess.run([sys.executable, "-c", slow], capture_output=True, text=True).stdout == "set()\n"


@pytest.mark.parametrize("has_begun", [False, True], ids=["a line", "a table"])
def test_a_reader_that_has_gone_ends_the_command_without_a_word(has_begun, tmp_path):
    folders = StageFolders(tmp_path / "run")
    (tmp_path / "run" / "stages").mkdir(parents=True)
    if has_begun:
        folders.finish(folders.begin("corpus", {}), (), 1.0)
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "distilrubert.pipeline", "status", "run"]
    with os.fdopen(writer, "wb") as gone:
        done = subprocess.run(command, stdout=gone, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (CLOSED_PIPE, "")


def test_windows_is_refused_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(cli.platform, "system", lambda: "Windows")
    assert "Windows is not supported; use Linux, macOS" in mistake(capsys, "publish")
