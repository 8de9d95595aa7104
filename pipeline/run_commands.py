"""The commands that work on a recipe or on what was made from it: distill, publish, card, push."""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from distilrubert.common.errors import UserError
from distilrubert.model_card.card import write_card
from distilrubert.model_card.formatting import counted, duration
from distilrubert.model_card.inputs import read_facts
from distilrubert.pipeline.checks import check_before_work
from distilrubert.pipeline.commits import with_commits
from distilrubert.pipeline.engine import bring_up_to_date, states_of
from distilrubert.pipeline.estimates import Estimate, estimate
from distilrubert.pipeline.exit_statuses import DONE, FAILED
from distilrubert.pipeline.gpus import Gpus
from distilrubert.pipeline.hub.connection import connect
from distilrubert.pipeline.hub.files import folder_as_json, render_folder, require_model
from distilrubert.pipeline.hub.plan import PushPlan, plan_push, render_plan
from distilrubert.pipeline.hub.preflight import preflight
from distilrubert.pipeline.hub.publish_settings import PublishSettings, require_target
from distilrubert.pipeline.hub.push import Publication, render_publication
from distilrubert.pipeline.hub.push import push as push_plan
from distilrubert.pipeline.hub.space import SpacePublisher
from distilrubert.pipeline.hub.verify import Verification, render_verification, verify_folder, verify_push
from distilrubert.pipeline.launch import CONTINUED, Launch
from distilrubert.pipeline.options import given, of_options, told_of_options
from distilrubert.pipeline.recipe import Recipe
from distilrubert.pipeline.run import Run, locked
from distilrubert.pipeline.stage_folders import StageFolders
from distilrubert.pipeline.stages import stages_of, training_stages_of
from distilrubert.pipeline.summary import next_steps, print_tables, short_path
from distilrubert.pipeline.terminal import format_size, new_table, print_table

Results = Mapping[str, PushPlan | Publication | Verification]


def distill(options: argparse.Namespace) -> None:
    """Bring a run up to the finished student checkpoint."""
    run = run_of(options)
    check_before_work(run)
    bring_up_to_date(run, stages_of(run), only=training_stages_of(run))
    if run.launch.leads:
        print(f"The student is in {run.task_student if run.recipe.task else run.student}")


def publish(options: argparse.Namespace) -> int:
    """Make the model repository of a recipe, check it, and push it where the recipe or the options say where to."""
    run = run_of(options)
    settings = run.recipe.publish
    if options.gpus and not options.dry_run:
        raise UserError("--gpus: estimates what a run would take; add --dry-run")
    if options.json and options.dry_run:
        raise UserError("--json: not with --dry-run; status RUN_DIR --json lists the stages")
    if options.verify_only:
        return _verify(run.hub, settings, options)
    if options.dry_run:
        check_before_work(run, load=False)
        print_plan(run, Gpus.parse(options.gpus) if options.gpus else None)
        return DONE
    is_pushed = settings.repo_id is not None and not options.no_push
    if settings.repo_id is not None and options.no_push and run.launch.leads:
        # What would be published is compared with the Hub in the end.
        connect(settings, options.endpoint)
    check_before_work(run, push=is_pushed, endpoint=options.endpoint)
    if run.launch.processes > 1:
        bring_up_to_date(run, stages_of(run), only=training_stages_of(run))
        if not run.launch.leads:
            return DONE
        run.launch.go_on_alone()
    # Locked up to the end: what is published has to be what was checked before.
    with locked(run.folder):
        performed = bring_up_to_date(run, stages_of(run))
        # A repeat that only publishes has shown them before.
        if not options.json and (performed or settings.repo_id is None):
            print_tables(run)
        if settings.repo_id is not None:
            return _push(run.hub, settings, options)
        if failed := _preflight(run.hub):
            return failed
    said = f"{render_folder(run.hub)}\n{next_steps(run, _same_run(run, options))}"
    print(json.dumps(folder_as_json(run.hub)) if options.json else said)
    return DONE


def push(options: argparse.Namespace) -> int:
    """Publish a finished folder, without the recipe, corpus and teacher that it was made from."""
    with told_of_options(r"publish\.(\w+)"):
        return _publish_folder(options.folder, options)


def _publish_folder(folder: Path, options: argparse.Namespace) -> int:
    settings = of_options(PublishSettings, given(options, PublishSettings))
    require_target(settings)
    require_model(folder)
    if (named := read_facts(folder).get("repo_id")) not in (None, settings.repo_id):
        said = (
            f"its card leads to {named}; publish.py RECIPE --repo-id {settings.repo_id} writes it for this repository"
        )
        print(f"{folder}: {said}", file=sys.stderr)
    return _verify(folder, settings, options) if options.verify_only else _push(folder, settings, options)


def card(options: argparse.Namespace) -> None:
    """Render a run's card again, from its recipe.yaml and its reports."""
    folder: Path = options.run_dir
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such run directory")
    if not (folder / "recipe.yaml").is_file():
        raise UserError(f"{folder}: not a run directory: there is no recipe.yaml in it")
    if not (folder / "hub").is_dir():
        raise UserError(
            f"{folder}: there is no hub folder of the latest settings yet; "
            f"publish.py {folder / 'recipe.yaml'} --run-dir {folder} --no-push makes it"
        )
    with locked(folder):
        # Its recipe may have been edited since: the next run of the recipe makes the card anew.
        for current in StageFolders(folder).current():
            if current.stage == "card":
                StageFolders(folder).begin("card", current.inputs)
        path = write_card(folder)
    print(f"The card is in {path}")


def print_plan(run: Run, gpus: Gpus | None = None) -> None:
    """List the stages, why each would be performed, and what that would take on this machine or on `gpus`."""
    title = f"{short_path(run.folder)}: nothing is done in a dry run"
    columns = ["time, about", "tokens", "FLOP", "memory", "disk"]
    table = new_table(title, ["stage", "why it would be done"], columns)
    states = states_of(run, stages_of(run))
    has_corpus = any(state.stage.name == "corpus" and not state.reason for state in states)
    for state in states:
        taken = estimate(run, state, gpus, has_corpus=has_corpus) if state.reason else Estimate()
        table.add_row(state.stage.name, state.reason or "up to date", *_cells(taken))
    table.add_row("preflight", "the folder is checked in every run")
    if run.recipe.publish.repo_id:
        table.add_row("push", f"to {run.recipe.publish.repo_id}")
    print_table(table)
    print(
        f"Time of training is for {gpus or 'a machine that does nothing else'}; memory is that of weights and "
        "optimiser, in each process, without activations; an empty value is not known"
    )


def _cells(taken: Estimate) -> list[str]:
    """The columns of an estimate, empty where it is not known."""
    sizes = ["" if size is None else format_size(size) for size in (taken.memory, taken.disk)]
    counts = ["" if count is None else f"{count:.1e}" for count in (taken.tokens, taken.operations)]
    return ["" if taken.seconds is None else duration(taken.seconds), *counts, *sizes]


def run_folder(options: argparse.Namespace) -> Path:
    """The run directory of a recipe, as its command was given."""
    recipe: Recipe = options.recipe
    folder: Path = options.run_dir or Path("runs") / recipe.name
    return folder.resolve()


def run_of(options: argparse.Namespace, launch: Launch | None = None) -> Run:
    """The run of a recipe, on the processes of the launcher or those given."""
    # No command but publish has an endpoint.
    endpoint = getattr(options, "endpoint", None)
    run = Run(options.recipe, run_folder(options), launch or Launch.of_this_process(), endpoint=endpoint)
    return with_commits(run, update=options.update and CONTINUED not in os.environ)


def _same_run(run: Run, options: argparse.Namespace) -> Sequence[str]:
    """The arguments that name this run: with other settings the command would make another one."""
    if options.overrides or options.run_dir:
        folder = short_path(run.folder)
        return [str(folder / "recipe.yaml"), "--run-dir", str(folder)]
    return [str(short_path(options.recipe_path))]


def _preflight(folder: Path) -> int:
    """Check a folder; the exit status where it may not be published."""
    if problems := preflight(folder):
        print(
            f"{folder}: cannot be published, {counted(len(problems), 'problem')}:", *problems, sep="\n", file=sys.stderr
        )
        return FAILED
    return DONE


def _push(folder: Path, settings: PublishSettings, options: argparse.Namespace) -> int:
    """Check the folder, compare it with the Hub, and unless --no-push was given commit it and read it back."""
    if failed := _preflight(folder):
        return failed
    connection = connect(settings, options.endpoint)
    plans = {"plan": plan_push(folder, settings, connection)}
    space = SpacePublisher(folder, settings, connection) if settings.space else None
    if space:
        plans["space_plan"] = space.plan(None if plans["plan"].needs_commit else plans["plan"].parent)
    if options.no_push:
        _show("\n".join(map(render_plan, plans.values())), options, plans)
        return DONE
    if space:
        space.create(plans["space_plan"])
    published = push_plan(plans["plan"], connection)
    if not options.json:
        # At once: what comes now may fail, and the commit is there.
        print(render_publication(published))
    found = verify_push(plans["plan"].digests, connection, published.revision, download=not options.no_verify)
    results: Results = {**plans, "publication": published, "verification": found}
    lines = [render_verification(found)]
    if space:
        page, read = space.publish(published.revision)
        results = {**results, "space_publication": page, "space_verification": read}
        lines += ["Demo page:", render_publication(page), render_verification(read)]
    _show("\n".join(lines), options, results)
    return DONE


def _verify(folder: Path, settings: PublishSettings, options: argparse.Namespace) -> int:
    found = {"verification": verify_folder(folder, settings, options.endpoint, download=not options.no_verify)}
    if settings.space:
        space = SpacePublisher(folder, settings, connect(settings, options.endpoint))
        found["space_verification"] = space.verify(found["verification"].revision)
    _show("\n".join(map(render_verification, found.values())), options, found)
    return DONE


def _show(text: str, options: argparse.Namespace, results: Results) -> None:
    """Print the results for a person, or for a machine."""
    print(json.dumps({name: result.to_dict() for name, result in results.items()}) if options.json else text)
