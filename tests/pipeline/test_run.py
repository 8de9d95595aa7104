"""The engine of the stages: what is done, what is skipped, what is done again."""

import logging
import multiprocessing
from pathlib import Path

import pytest
import yaml

from distilrubert.modeling.errors import UserError
from distilrubert.pipeline.recipe import load_recipe, resolved
from distilrubert.pipeline.run import Run, Stage, bring_up_to_date

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
            (run.folder / f"{name}.out").write_text(name)

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


def test_a_changed_input_clears_what_the_stage_had_begun(run):
    road = Road()
    road.fails = {"two"}
    with pytest.raises(KeyboardInterrupt):
        bring_up_to_date(run, road.stages())
    road.fails = set()
    road.settings["two"]["c"] = 9
    bring_up_to_date(run, road.stages())
    assert (run.folder / "two.work").read_text() == "x"


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
    (run.folder / "three.out").unlink()
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
