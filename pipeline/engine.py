"""Which stages of a run are up to date, and performing those that are not.

A stage is identified by its inputs: its settings, the content of the files that it reads, and a hash of what the stages
before it made. So a stage whose output was made again is followed by all that read it, unless the content is the same.
"""

import dataclasses
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from distilrubert.common.contents import recall, remember
from distilrubert.common.errors import UserError
from distilrubert.common.recorded_inputs import difference
from distilrubert.pipeline.commits import follow_commits, write_commits
from distilrubert.pipeline.process_log import logged
from distilrubert.pipeline.run import Run, locked, write_recipe
from distilrubert.pipeline.stage_folders import StageFolder, StageFolders

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Stage:
    """One step from the recipe to the model repository.

    Attributes:
        name: short name, as in the folders and in messages.
        title: what it does, for the progress lines.
        after: names of the stages whose results it reads, where the recipe needs those.
        inputs: everything else that decides its result, as plain JSON values.
        outputs: files and folders in the stage's folder that are there when it is done.
        perform: does it in the folder that it is given; called again after an interruption, it continues.
        collective: whether all processes of a launch perform it together, not the leading one alone.
        reads_reports: whether it reads the reports of the stages before it too.
    """

    name: str
    title: str
    after: tuple[str, ...]
    inputs: Callable[[Run], Mapping[str, Any]]
    outputs: tuple[str, ...]
    perform: Callable[[Run, Path], None]
    collective: bool = False
    reads_reports: bool = False


@dataclasses.dataclass(frozen=True)
class StageState:
    """What is to be done about a stage.

    Attributes:
        stage: the stage.
        inputs: what it is to be made from; None while a stage before it has to be performed first.
        folder: where it was made, or begun, from these inputs.
        reason: why it has to be performed; None where it is up to date.
    """

    stage: Stage
    inputs: Mapping[str, Any] | None
    folder: StageFolder | None
    reason: str | None


def bring_up_to_date(run: Run, stages: Sequence[Stage], only: Collection[str] | None = None) -> list[str]:
    """Perform every stage that is not up to date, in order.

    Args:
        run: the run directory and its recipe.
        stages: all stages of the recipe, each behind those it comes after.
        only: names of the stages that may be performed; None allows all.

    Returns:
        The names of the stages that this process performed.

    Raises:
        UserError: if the folder cannot be written, or another process is working in it.
    """
    if not run.launch.leads:
        with logged(run.folder, f"rank-{run.launch.rank}", leads=False):
            return _join(run, stages)
    with locked(run.folder), logged(run.folder, "rank-0"):
        folders = StageFolders(run.folder)
        states = {state.stage.name: state for state in states_of(run, stages, only)}
        remember(_memory(run))
        write_commits(run)
        write_recipe(run)
        performed = []
        for stage in stages:
            may_perform = only is None or stage.name in only
            state = states[stage.name] = _state(run, stage, states, is_needed=may_perform)
            needed = state.reason is not None and may_perform
            if needed:
                state = states[stage.name] = dataclasses.replace(state, folder=_begin(folders, state))
            elif state.reason is None:
                logger.info("%s: up to date", stage.name)
            _make_current(folders, states)
            if stage.collective:
                run.launch.send(stage.name, str(state.folder.path) if needed and state.folder else "")
            if needed:
                states[stage.name] = _perform(run, folders, state)
                _make_current(folders, states)
                performed.append(stage.name)
            if (state := states[stage.name]).folder and state.reason is None:
                state.folder.remove_scratch()
        if messages := [stage.name for stage in stages if stage.collective]:
            run.launch.wait_until_read(messages[-1])
        return performed


def begin_stage(run: Run, stages: Sequence[Stage], name: str) -> StageFolder | None:
    """Do what a stage reads, and begin the stage for processes that perform it together.

    Args:
        run: the run directory and its recipe, locked by the caller.
        stages: as in :func:`bring_up_to_date`.
        name: the stage.

    Returns:
        The folder to perform it in; None where the stage is up to date.

    Raises:
        UserError: as :func:`bring_up_to_date`.
    """
    needed = stages_before(stages, name)
    bring_up_to_date(run, stages, only=needed)
    states = {state.stage.name: state for state in states_of(run, stages, [*needed, name])}
    if states[name].reason is None:
        return None
    folders = StageFolders(run.folder)
    begun = _begin(folders, states[name])
    _make_current(folders, {**states, name: dataclasses.replace(states[name], folder=begun)})
    return begun


def stages_before(stages: Sequence[Stage], name: str) -> list[str]:
    """The names of those that a stage comes after, near or far, in order."""
    wanted = {name}
    for stage in reversed(stages):
        if stage.name in wanted:
            wanted.update(stage.after)
    return [stage.name for stage in stages if stage.name in wanted - {name}]


def states_of(run: Run, stages: Sequence[Stage], only: Collection[str] | None = None) -> list[StageState]:
    """What is to be done about each stage; the run directory is only read.

    Args:
        run: the run directory and its recipe.
        stages: as in :func:`bring_up_to_date`.
        only: names of the stages whose inputs must be readable; None takes all.

    Raises:
        UserError: if a file that is needed cannot be read.
    """
    recall(_memory(run))
    states: dict[str, StageState] = {}
    for stage in stages:
        states[stage.name] = _state(run, stage, states, is_needed=only is None or stage.name in only)
    return list(states.values())


def _state(run: Run, stage: Stage, states: Mapping[str, StageState], *, is_needed: bool) -> StageState:
    """What is to be done about a stage, given the states of those before it."""
    folders = StageFolders(run.folder)
    try:
        inputs = dict(stage.inputs(run))
    except UserError as error:
        if is_needed:
            raise
        return StageState(stage, None, None, str(error))
    before = [states[name] for name in stage.after if name in states]
    if waiting := [state.stage.name for state in before if state.reason is not None]:
        said = _own_reason(folders, stage, inputs)
        return StageState(stage, None, None, said or f"{waiting[0]} will be made first")
    inputs["after"] = {
        state.stage.name: state.folder.results(with_reports=stage.reads_reports) for state in before if state.folder
    }
    folder = folders.find(stage.name, inputs)
    return StageState(stage, inputs, folder, _reason(folders, stage, folder, inputs))


def _reason(folders: StageFolders, stage: Stage, folder: StageFolder | None, inputs: Mapping[str, Any]) -> str | None:
    if folder and not folder.is_complete:
        return "continuing where it stopped"
    if folder:
        return f"{missing} is missing" if (missing := folder.missing()) else None
    if said := _own_reason(folders, stage, inputs):
        return said
    was, now = (each["after"] for each in (_former(folders, stage)[0].inputs, inputs))
    return f"{min(name for name in was | now if was.get(name) != now.get(name))} changed"


def _own_reason(folders: StageFolders, stage: Stage, inputs: Mapping[str, Any]) -> str:
    """Why a stage has to be performed, as far as its own inputs tell; empty where they have not changed."""
    former = _former(folders, stage)
    if not former:
        return "first time"
    own, new = ({key: value for key, value in each.items() if key != "after"} for each in (former[0].inputs, inputs))
    return difference(own, new)


def _former(folders: StageFolders, stage: Stage) -> list[StageFolder]:
    """What a stage has made from other inputs, that of the latest settings first."""
    current = [folder for folder in folders.current() if folder.stage == stage.name]
    return [*current, *folders.all(stage.name)]


def _begin(folders: StageFolders, state: StageState) -> StageFolder:
    assert state.inputs is not None, f"{state.stage.name}: a stage before it was left out"
    logger.info("%s: %s (%s)", state.stage.name, state.stage.title, state.reason)
    folder = folders.begin(state.stage.name, state.inputs)
    kept = [former.path for former in folders.all(state.stage.name) if former.path != folder.path]
    if kept and state.folder is None:
        logger.info("%s: the former result stays in %s", state.stage.name, kept[0])
    return folder


def _perform(run: Run, folders: StageFolders, state: StageState) -> StageState:
    assert state.folder is not None
    started = time.monotonic()
    state.stage.perform(run, state.folder.path)
    finished = folders.finish(state.folder, state.stage.outputs, time.monotonic() - started)
    logger.info("%s: done in %.0f s", state.stage.name, finished.seconds)
    return dataclasses.replace(state, folder=finished, reason=None)


def _make_current(folders: StageFolders, states: Mapping[str, StageState]) -> None:
    """Point to the folders of the stages.

    A stage that waits for one that is made again from the same inputs keeps its folder: if the same comes out, it is up
    to date.
    """
    former = {folder.stage: folder for folder in folders.current()}
    current = {name: state.folder for name, state in states.items() if state.folder}
    same = {name for name, folder in current.items() if name in former and folder.path == former[name].path}
    kept = []
    for name, state in states.items():
        if state.inputs is None and name in former and same.issuperset(states.keys() & state.stage.after):
            same.add(name)
            kept.append(former[name])
    folders.point_to([*current.values()], kept)


def _join(run: Run, stages: Sequence[Stage]) -> list[str]:
    """Perform together with the leading process what all perform together."""
    performed = []
    for stage in stages:
        if stage.collective and (folder := run.launch.receive(stage.name)):
            stage.perform(follow_commits(run), Path(folder))
            performed.append(stage.name)
    return performed


def _memory(run: Run) -> Path:
    return run.folder / "stages" / "contents.json"
