"""The engine of the stages: what is done, what is skipped, what is done again, and that nothing finished is lost."""

import contextlib
import dataclasses
import json
import logging
import multiprocessing
import os
import shutil
from pathlib import Path

import pytest
import yaml

from distilrubert.common.errors import UserError
from distilrubert.pipeline import run as run_module
from distilrubert.pipeline.cli import main
from distilrubert.pipeline.engine import Stage, bring_up_to_date, states_of
from distilrubert.pipeline.recipe import load_recipe
from distilrubert.pipeline.run import Run, revision, write_recipe
from distilrubert.pipeline.stage_folders import StageFolder, StageFolders

from .example_recipes import MINIMAL


@pytest.fixture
def run(tmp_path) -> Run:
    path = tmp_path / "recipe.yaml"
    path.write_text(MINIMAL)
    return Run(load_recipe(path), tmp_path / "runs" / "one")


class Example:
    """Three stages that write a folder and a report each; the third reads the first only.

    Attributes:
        settings: by stage.
        content: what the first stage writes.
        fails: stages that are interrupted once they have begun.
    """

    def __init__(self) -> None:
        self.settings = {"one": {"a": 1, "b": [1, 2]}, "two": {"c": 2}, "three": {"d": 3}}
        self.content = "made"
        self.fails: set[str] = set()

    def stages(self) -> list[Stage]:
        return [self.stage("one", ()), self.stage("two", ("one",)), self.stage("three", ("one",))]

    def stage(self, name: str, after: tuple[str, ...]) -> Stage:
        def perform(run: Run, folder: Path) -> None:
            work = folder / "work"
            work.write_text((work.read_text() if work.exists() else "") + "x")
            if name in self.fails:
                raise KeyboardInterrupt
            (folder / name).mkdir(exist_ok=True)
            read = [(run.folder / other / "content").read_text() for other in after]
            (folder / name / "content").write_text(json.dumps([self.settings[name], *read, self.content]))
            (folder / "reports").mkdir(exist_ok=True)
            (folder / "reports" / f"{name}.json").write_text(json.dumps(os.urandom(4).hex()))

        return Stage(
            name=name,
            title=f"doing {name}",
            after=after,
            inputs=lambda _: self.settings[name],
            outputs=(name, f"reports/{name}.json"),
            perform=perform,
        )


ALL = ["one", "two", "three"]


def made(run: Run) -> dict[str, object]:
    """The settings that each current result was made from."""
    return {name: json.loads((run.folder / name / "content").read_text())[0] for name in ALL}


def work(run: Run, name: str) -> list[str]:
    """How often the stage was begun in each of its folders, the oldest folder first."""
    return [(folder.path / "work").read_text() for folder in reversed(StageFolders(run.folder).all(name))]


def attempt(run: Run, example: Example, fails: set[str]) -> None:
    example.fails = fails
    with pytest.raises(KeyboardInterrupt):
        bring_up_to_date(run, example.stages())
    example.fails = set()


def test_a_second_run_does_nothing(run):
    example = Example()
    assert bring_up_to_date(run, example.stages()) == ALL
    assert bring_up_to_date(run, example.stages()) == []


def test_a_changed_input_redoes_its_stage_and_what_follows_from_it(run, caplog):
    example = Example()
    bring_up_to_date(run, example.stages())
    example.settings["two"]["c"] = 5
    with caplog.at_level(logging.INFO):
        logging.getLogger("distilrubert").propagate = True
        assert bring_up_to_date(run, example.stages()) == ["two"]
    assert "two: doing two (c was 2 and is 5)" in caplog.text
    example.settings["one"]["b"] = [1, 3]
    assert bring_up_to_date(run, example.stages()) == ALL


def test_other_settings_leave_what_is_finished_and_going_back_takes_no_work(run):
    example = Example()
    bring_up_to_date(run, example.stages())
    before = made(run)
    finished = (run.folder / "one").resolve()
    example.settings["one"]["a"] = 7
    bring_up_to_date(run, example.stages())
    assert made(run)["one"] == {"a": 7, "b": [1, 2]}
    assert json.loads((finished / "content").read_text())[0] == {"a": 1, "b": [1, 2]}
    example.settings["one"]["a"] = 1
    assert bring_up_to_date(run, example.stages()) == []
    assert made(run) == before
    assert (run.folder / "reports" / "two.json").resolve().parents[1] == (run.folder / "two").resolve().parent


def test_a_link_is_there_only_for_what_the_latest_settings_have_made(run):
    example = Example()
    bring_up_to_date(run, example.stages())
    example.settings["one"]["a"] = 7
    attempt(run, example, {"two"})
    links = {path.name for path in run.folder.iterdir() if path.is_symlink()}
    assert links == {"one"}
    assert [path.name for path in (run.folder / "reports").iterdir()] == ["one.json"]
    assert all(not path.readlink().is_absolute() for path in run.folder.glob("*") if path.is_symlink())


def test_only_some_stages_may_be_performed(run):
    example = Example()
    assert bring_up_to_date(run, example.stages(), only=("one", "three")) == ["one", "three"]
    assert not (run.folder / "two").exists()
    assert bring_up_to_date(run, example.stages()) == ["two"]


def test_a_result_that_is_made_again_redoes_what_was_made_from_it(run):
    example = Example()
    bring_up_to_date(run, example.stages())
    shutil.rmtree((run.folder / "one").resolve())
    example.content = "made otherwise"
    assert [state.reason for state in states_of(run, example.stages())] == [
        "one/content is missing",
        "one will be made first",
        "one will be made first",
    ]
    assert bring_up_to_date(run, example.stages()) == ALL
    assert '"made otherwise"' in (run.folder / "two" / "content").read_text().replace("\\", "")


def test_a_result_that_is_made_again_and_is_the_same_redoes_nothing_else(run):
    example = Example()
    bring_up_to_date(run, example.stages())
    shutil.rmtree((run.folder / "one").resolve())
    assert bring_up_to_date(run, example.stages()) == ["one"]


def test_clean_keeps_what_comes_from_a_stage_that_is_being_made_again(run):
    example = Example()
    bring_up_to_date(run, example.stages())
    shutil.rmtree((run.folder / "one").resolve())
    attempt(run, example, {"one"})
    # What it was made from may come out otherwise.
    assert not (run.folder / "two").exists()
    assert main(["clean", str(run.folder), "--yes"]) == 0
    assert bring_up_to_date(run, example.stages()) == ["one"]
    assert made(run) == example.settings


def test_clean_removes_what_comes_from_a_stage_of_other_settings(run):
    example = Example()
    bring_up_to_date(run, example.stages())
    example.settings["one"]["a"] = 7
    attempt(run, example, {"one"})
    assert main(["clean", str(run.folder), "--yes"]) == 0
    assert [folder.stage for folder in StageFolders(run.folder).all()] == ["one"]


def test_reports_count_for_the_stages_that_read_them(run):
    example = Example()
    stages = [example.stage("one", ()), example.stage("two", ("one",))]
    stages[1] = dataclasses.replace(stages[1], reads_reports=True)
    bring_up_to_date(run, stages)
    # Reports hold times, so each is another one.
    (run.folder / "reports" / "one.json").resolve().unlink()
    assert bring_up_to_date(run, stages) == ["one", "two"]


def test_an_interrupted_stage_continues(run):
    example = Example()
    attempt(run, example, {"two"})
    assert [state.reason for state in states_of(run, example.stages())][1] == "continuing where it stopped"
    assert bring_up_to_date(run, example.stages()) == ["two", "three"]
    assert work(run, "two") == ["xx"]
    assert work(run, "one") == ["x"]


def test_what_was_begun_with_other_settings_continues_when_they_return(run):
    example = Example()
    attempt(run, example, {"two"})
    example.settings["two"]["c"] = 9
    assert bring_up_to_date(run, example.stages()) == ["two", "three"]
    assert work(run, "two") == ["x", "x"]
    example.settings["two"]["c"] = 2
    assert bring_up_to_date(run, example.stages()) == ["two"]
    assert sorted(work(run, "two")) == ["x", "xx"]


def test_what_a_stage_goes_on_from_stays_until_its_result_is_recorded(run, monkeypatch):
    stage = Example().stage("one", ())

    def perform(run: Run, folder: Path) -> None:
        (folder / ".parts").mkdir(exist_ok=True)
        stage.perform(run, folder)

    def end(*_) -> None:
        raise KeyboardInterrupt

    stages = [dataclasses.replace(stage, perform=perform)]
    with monkeypatch.context() as patch:
        patch.setattr(StageFolders, "finish", end)
        with pytest.raises(KeyboardInterrupt):
            bring_up_to_date(run, stages)
    (parts,) = run.folder.glob("stages/*/.parts")
    with monkeypatch.context() as patch:
        patch.setattr(StageFolder, "remove_scratch", end)
        with pytest.raises(KeyboardInterrupt):
            bring_up_to_date(run, stages)
    assert parts.exists()
    assert bring_up_to_date(run, stages) == []
    assert not parts.exists()


def test_a_missing_output_is_made_again(run):
    example = Example()
    bring_up_to_date(run, example.stages())
    shutil.rmtree((run.folder / "three").resolve())
    assert bring_up_to_date(run, example.stages()) == ["three"]


def test_a_stage_that_follows_one_the_recipe_does_not_need(run):
    stage = Example().stage("one", ())
    assert bring_up_to_date(run, [dataclasses.replace(stage, after=("zero",))]) == ["one"]


class Killed(BaseException):
    """In the place of a SIGKILL: nothing handles it."""


def changes_until(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the process were killed before its next change to a name on disk, when it has made so many."""
    left = [count]

    def counted(function):
        def call(*arguments, **keywords):
            if not left[0]:
                raise Killed
            left[0] -= 1
            return function(*arguments, **keywords)

        return call

    for name in ("rename", "replace", "symlink_to", "mkdir"):
        monkeypatch.setattr(Path, name, counted(getattr(Path, name)))


def test_a_kill_at_any_moment_loses_and_mixes_nothing(run, monkeypatch):
    """Settings change and return; the run is killed after every possible number of changes on disk."""
    example = Example()
    bring_up_to_date(run, example.stages())
    before, kills = made(run), 0
    for stop in range(200):
        example.settings["one"]["a"] = 7
        with monkeypatch.context() as patch, contextlib.suppress(Killed):
            changes_until(stop, patch)
            bring_up_to_date(run, example.stages())
            break
        kills += 1
        # Whatever a link leads to is complete.
        for name in [name for name in ALL if (run.folder / name).exists()]:
            folder = StageFolders(run.folder).all(name)
            linked = (run.folder / name).resolve().parent
            assert any(found.path == linked and found.is_complete for found in folder)
        example.settings["one"]["a"] = 1
        assert bring_up_to_date(run, example.stages()) == []
        assert made(run) == before
    assert kills > 20
    assert made(run) == example.settings


def test_the_recipe_is_kept_with_the_versions_it_ran_with(run):
    bring_up_to_date(run, [])
    text = (run.folder / "recipe.yaml").read_text()
    assert yaml.safe_load(text) == run.recipe.model_dump(mode="json")
    assert "# torch " in text
    written = (run.folder / "recipe.yaml").stat().st_mtime_ns
    bring_up_to_date(run, [])
    assert (run.folder / "recipe.yaml").stat().st_mtime_ns == written
    (run.folder / "recipe.yaml").write_text("a: [")
    bring_up_to_date(run, [])
    assert (run.folder / "recipe.yaml").read_text() == text


def test_the_revision_is_not_that_of_a_repository_around_an_installed_package(tmp_path, monkeypatch):
    package = tmp_path / "project" / "site-packages" / "distilrubert"
    (package / "pipeline").mkdir(parents=True)
    (tmp_path / "project" / ".git").mkdir()
    monkeypatch.setattr(run_module, "__file__", str(package / "pipeline" / "run.py"))
    monkeypatch.setattr(run_module.subprocess, "run", lambda *_, **__: pytest.fail("git was asked"))
    assert "git" not in revision()


def test_a_run_directory_of_an_earlier_version_is_left_alone(run):
    (run.folder / "one").mkdir(parents=True)
    (run.folder / "one" / "weights").write_text("days of work")
    with pytest.raises(UserError, match=r"one: stands where a link to stages/one-.* belongs"):
        bring_up_to_date(run, Example().stages())
    assert (run.folder / "one" / "weights").read_text() == "days of work"


def test_a_record_that_cannot_be_read_is_named(run):
    bring_up_to_date(run, Example().stages())
    (record,) = run.folder.glob("stages/two-*/stage.json")
    record.write_text("{}")
    with pytest.raises(UserError, match=r"stage.json: not a stage.json; remove .*two-"):
        bring_up_to_date(run, Example().stages())


def test_status_and_clean_tell_and_remove_what_other_settings_made(run, capsys):
    example = Example()
    bring_up_to_date(run, example.stages())
    example.settings["one"]["a"] = 7
    attempt(run, example, {"two"})
    (run.folder / "stages" / "three-left-half-removed").mkdir()
    assert main(["status", str(run.folder)]) == 0
    said = capsys.readouterr().out
    assert said.count("complete, of other settings") == 3
    assert said.count("begun") == 1
    before = sorted(run.folder.rglob("*"))
    assert main(["clean", str(run.folder)]) == 0
    said = capsys.readouterr().out
    assert "Nothing was removed; add --yes" in said
    assert said.count("complete, of other settings") == 3
    assert f"{run.folder}/stages/three-left-half-removed: belongs to no stage" in said
    assert sorted(run.folder.rglob("*")) == before
    assert main(["clean", str(run.folder), "--yes"]) == 0
    assert sorted(path.name.partition("-")[0] for path in run.folder.glob("stages/*/")) == ["one", "two"]
    assert bring_up_to_date(run, example.stages()) == ["two", "three"]
    assert work(run, "two") == ["xx"]
    assert main(["clean", str(run.folder), "--yes"]) == 0
    assert "there is nothing to remove" in capsys.readouterr().out


def test_what_is_half_removed_is_never_taken_for_finished(run, monkeypatch):
    example = Example()
    bring_up_to_date(run, example.stages())
    example.settings["two"]["c"] = 5
    bring_up_to_date(run, example.stages())

    def partly(path, **_):
        (Path(path) / "two" / "content").unlink()
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", partly)
        with pytest.raises(Killed):
            main(["clean", str(run.folder), "--yes"])
    example.settings["two"]["c"] = 2
    assert bring_up_to_date(run, example.stages()) == ["two"]
    assert made(run)["two"] == {"c": 2}
    assert work(run, "two")[-1] == "x"


def hold(folder: Path, recipe_path: Path, entered, release) -> None:
    def wait(_: Run, __: Path) -> None:
        entered.set()
        release.wait(600)

    stage = Stage("slow", "waiting", (), lambda _: {}, (), wait)
    bring_up_to_date(Run(load_recipe(recipe_path), folder), [stage])


def test_a_second_process_is_kept_out(run, tmp_path):
    context = multiprocessing.get_context("fork")
    entered, release = context.Event(), context.Event()
    other = context.Process(target=hold, args=(run.folder, tmp_path / "recipe.yaml", entered, release))
    other.start()
    try:
        assert entered.wait(600)
        with pytest.raises(UserError, match="another process is working"):
            bring_up_to_date(run, [])
    finally:
        release.set()
        other.join(600)
    assert other.exitcode == 0


def test_a_folder_that_cannot_be_made_is_refused(run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="the folder cannot be written"):
        bring_up_to_date(Run(run.recipe, tmp_path / "file" / "run"), [])


def test_a_run_directory_of_another_recipe_is_not_reused_silently(run, caplog):
    write_recipe(run)
    write_recipe(dataclasses.replace(run, recipe=run.recipe.model_copy(update={"seed": 7})))
    assert caplog.messages == []
    write_recipe(dataclasses.replace(run, recipe=run.recipe.model_copy(update={"name": "other"})))
    assert caplog.messages == [f"{run.folder}: holds the run of {run.recipe.name}; what both recipes share is reused"]
