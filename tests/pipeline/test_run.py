"""The engine of the stages: what is done, what is skipped, what is done again."""

import contextlib
import itertools
import json
import logging
import multiprocessing
import shutil
from pathlib import Path

import pytest
import yaml

from distilrubert.common.errors import UserError
from distilrubert.pipeline.recipe import load_recipe, resolved
from distilrubert.pipeline.run import Run, Stage, bring_up_to_date
from distilrubert.pipeline.stamps import difference

from .test_recipe import MINIMAL


@pytest.fixture
def run(tmp_path) -> Run:
    path = tmp_path / "recipe.yaml"
    path.write_text(MINIMAL)
    return Run(load_recipe(path), tmp_path / "runs" / "one")


class Road:
    """Three stages that write a file each; the third reads the first only."""

    def __init__(self) -> None:
        self.settings = {"one": {"a": 1, "b": [1, 2]}, "two": {"c": 2}, "three": {"d": 3}}
        self.fails: set[str] = set()

    def stages(self) -> list[Stage]:
        return [self.stage("one", ()), self.stage("two", ("one",)), self.stage("three", ("one",))]

    def stage(self, name: str, after: tuple[str, ...]) -> Stage:
        def perform(run: Run) -> None:
            work = run.folder / f"{name}.work"
            work.write_text((work.read_text() if work.exists() else "") + "x")
            if name in self.fails:
                raise KeyboardInterrupt
            (run.folder / f"{name}.out").mkdir(exist_ok=True)
            (run.folder / f"{name}.out" / "made-of.json").write_text(json.dumps(self.settings[name]))

        return Stage(
            name=name,
            title=f"doing {name}",
            after=after,
            inputs=lambda _: self.settings[name],
            outputs=lambda run: [run.folder / f"{name}.out"],
            work=lambda run: [run.folder / f"{name}.work"],
            perform=perform,
        )


def test_a_second_run_does_nothing(run):
    road = Road()
    assert bring_up_to_date(run, road.stages()) == ["one", "two", "three"]
    assert bring_up_to_date(run, road.stages()) == []


def test_a_changed_input_redoes_its_stage_and_what_follows_from_it(run, caplog):
    road = Road()
    bring_up_to_date(run, road.stages())
    road.settings["two"]["c"] = 5
    with caplog.at_level(logging.INFO):
        logging.getLogger("distilrubert").propagate = True
        assert bring_up_to_date(run, road.stages()) == ["two"]
    assert "two: c was 2 and is 5; doing it again" in caplog.text
    road.settings["one"]["b"] = [1, 3]
    assert bring_up_to_date(run, road.stages()) == ["one", "two", "three"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ({"a": 1, "b": {"c": [1, 2]}}, {"a": 1, "b": {"c": [1, 3]}}, "b.c.1 was 2 and is 3"),
        ({"a": 1, "b": [1]}, {"a": 2, "b": []}, "a was 1 and is 2 and 2 more"),
        ({"a": 1}, {"a": None, "after": {"one": "x"}}, "a was 1 and is None"),
        ({"a": 1, "after": {"one": "x"}}, {"a": 1, "after": {"one": "y"}}, "one changed"),
        ({"after": {}}, {"after": {"one": "y"}}, "one changed"),
        # Settings that another version has, though they ask for nothing.
        ({}, {"a": None}, "a was not set and is None"),
        ({"a": []}, {}, "a was [] and is not set"),
    ],
)
def test_whatever_changed_is_told(old, new, said):
    assert difference(old, new) == said


def test_a_changed_input_clears_what_the_stage_had_begun(run):
    road = Road()
    road.fails = {"two"}
    with pytest.raises(KeyboardInterrupt):
        bring_up_to_date(run, road.stages())
    road.fails = set()
    road.settings["two"]["c"] = 9
    bring_up_to_date(run, road.stages())
    assert (run.folder / "two.work").read_text() == "x"


def made(run: Run) -> dict[str, object]:
    """What each stage's output in its place was made of."""
    return {path.parent.stem: json.loads(path.read_text()) for path in run.folder.glob("*.out/made-of.json")}


def attempt(run: Run, road: Road, fails: set[str]) -> None:
    road.fails = fails
    with pytest.raises(KeyboardInterrupt):
        bring_up_to_date(run, road.stages())
    road.fails = set()


def test_nothing_finished_is_lost_until_what_replaces_it_is_complete(run, caplog):
    road = Road()
    bring_up_to_date(run, road.stages())
    (run.folder / "recipe.yaml").write_text("seed: 1\n")
    caplog.set_level(logging.INFO)
    logging.getLogger("distilrubert").propagate = True
    road.settings["one"]["a"] = 7
    attempt(run, road, {"two"})
    (kept,) = (run.folder / "replaced/one").iterdir()
    assert json.loads((kept / "one.out/made-of.json").read_text()) == {"a": 1, "b": [1, 2]}
    assert (kept / "one.work").read_text() == "x"
    assert (kept / "recipe.yaml").read_text() == "seed: 1\n"
    assert f"one: what there was is kept in {kept}" in caplog.text
    assert made(run) == {"one": {"a": 7, "b": [1, 2]}}
    assert bring_up_to_date(run, road.stages()) == ["two", "three"]
    assert not (run.folder / "replaced").exists()


def test_a_part_of_the_road_leaves_what_the_rest_was_made_from(run):
    road = Road()
    bring_up_to_date(run, road.stages())
    before = made(run)
    road.settings["one"]["a"] = 7
    assert bring_up_to_date(run, road.stages()[:2], ends_run=False) == ["one", "two"]
    road.settings["one"]["a"] = 1
    assert bring_up_to_date(run, road.stages()) == []
    assert made(run) == before


def test_who_returns_to_the_former_settings_finds_everything_as_it_was(run):
    road = Road()
    bring_up_to_date(run, road.stages())
    before = made(run)
    road.settings["one"]["a"] = 7
    attempt(run, road, {"three"})
    road.settings["one"]["a"] = 1
    assert bring_up_to_date(run, road.stages()) == []
    assert made(run) == before
    # What was begun in between is not lost either: one and two were finished, three had begun.
    road.settings["one"]["a"] = 7
    assert bring_up_to_date(run, road.stages()) == ["three"]
    assert (run.folder / "three.work").read_text() == "xx"
    assert not (run.folder / "replaced").exists()


def test_work_on_another_disk_is_found_again(run, tmp_path):
    road = Road()
    bring_up_to_date(run, road.stages())
    (run.folder / "three.work").rename(tmp_path / "elsewhere")
    (run.folder / "three.work").symlink_to("../../elsewhere")
    road.settings["three"]["d"] = 4
    attempt(run, road, {"three"})
    assert (tmp_path / "elsewhere").read_text() == (run.folder / "three.work").read_text() == "x"
    assert not (run.folder / "three.work").is_symlink()
    road.settings["three"]["d"] = 3
    assert bring_up_to_date(run, road.stages()) == []
    assert (run.folder / "three.work").readlink() == Path("../../elsewhere")


def moves_until(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the process were killed before its next move or removal, when it has made so many."""
    left = [count]

    def counted(function):
        def call(*arguments, **keywords):
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            return function(*arguments, **keywords)

        return call

    monkeypatch.setattr(Path, "rename", counted(Path.rename))
    monkeypatch.setattr(Path, "unlink", counted(Path.unlink))
    monkeypatch.setattr(shutil, "rmtree", counted(shutil.rmtree))


@pytest.mark.parametrize("stop", range(11))
def test_a_kill_at_any_moment_loses_and_mixes_nothing(run, monkeypatch, stop):
    """Settings change twice before anything new is finished; one of the runs is killed after so many moves."""
    road = Road()
    bring_up_to_date(run, road.stages())
    for values, stopped in itertools.product([(7, 1, 9), (7, 9, 1)], [0, 1]):
        for number, value in enumerate(values):
            road.settings["one"]["a"] = value
            with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
                moves_until(stop if number == stopped else 99, patch)
                road.fails = {"one"}  # nothing new is ever finished
                bring_up_to_date(run, road.stages())
        road.fails = set()
        road.settings["one"]["a"] = 1
        assert bring_up_to_date(run, road.stages()) == []
        assert made(run) == road.settings
        assert {path.read_text() for path in run.folder.glob("*.work")} == {"x"}
    road.settings["one"]["a"] = 9
    assert bring_up_to_date(run, road.stages()) == ["one", "two", "three"]
    assert made(run) == road.settings
    assert not (run.folder / "replaced").exists()


def test_what_a_kill_leaves_half_removed_is_never_taken_back(run, monkeypatch):
    road = Road()
    bring_up_to_date(run, road.stages())
    road.settings["two"]["c"] = 5
    whole = shutil.rmtree

    def partly(path, **_):
        if Path(path).exists():
            whole(next(Path(path).rglob("*.out")))
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", partly)
        with pytest.raises(KeyboardInterrupt):
            bring_up_to_date(run, road.stages())
    road.settings["two"]["c"] = 2
    assert bring_up_to_date(run, road.stages()) == ["two"]
    assert made(run) == road.settings
    assert not (run.folder / "replaced").exists()


def test_an_interrupted_stage_continues(run):
    road = Road()
    road.fails = {"two"}
    with pytest.raises(KeyboardInterrupt):
        bring_up_to_date(run, road.stages())
    road.fails = set()
    assert bring_up_to_date(run, road.stages()) == ["two", "three"]
    assert (run.folder / "two.work").read_text() == "xx"
    assert (run.folder / "one.work").read_text() == "x"


def test_a_missing_output_is_made_again(run):
    road = Road()
    bring_up_to_date(run, road.stages())
    shutil.rmtree(run.folder / "three.out")
    assert bring_up_to_date(run, road.stages()) == ["three"]


def test_a_stage_that_follows_one_the_recipe_does_not_need(run):
    road = Road()
    assert bring_up_to_date(run, [road.stage("two", ("one",))]) == ["two"]


def test_the_recipe_is_kept_with_the_versions_it_ran_with(run):
    bring_up_to_date(run, [])
    text = (run.folder / "recipe.yaml").read_text()
    assert yaml.safe_load(text) == resolved(run.recipe)
    assert "# torch " in text
    written = (run.folder / "recipe.yaml").stat().st_mtime_ns
    bring_up_to_date(run, [])
    assert (run.folder / "recipe.yaml").stat().st_mtime_ns == written
    (run.folder / "recipe.yaml").write_text("a: [")
    bring_up_to_date(run, [])
    assert (run.folder / "recipe.yaml").read_text() == text


def hold(folder: Path, recipe_path: Path, entered, release) -> None:
    def wait(_: Run) -> None:
        entered.set()
        release.wait(30)

    stage = Stage("slow", "waiting", (), lambda _: {}, lambda _: [], wait)
    bring_up_to_date(Run(load_recipe(recipe_path), folder), [stage])


def test_a_second_process_is_kept_out(run, tmp_path):
    context = multiprocessing.get_context("fork")
    entered, release = context.Event(), context.Event()
    other = context.Process(target=hold, args=(run.folder, tmp_path / "recipe.yaml", entered, release))
    other.start()
    try:
        assert entered.wait(30)
        with pytest.raises(UserError, match="another process is working"):
            bring_up_to_date(run, [])
    finally:
        release.set()
        other.join(30)
    assert other.exitcode == 0


def test_a_folder_that_cannot_be_made_is_refused(run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="the run directory cannot be written"):
        bring_up_to_date(Run(run.recipe, tmp_path / "file" / "run"), [])
