"""`distilrubert corpus`: the corpus of a recipe, alone or shared out over processes and machines.

The processes have nothing but the run directory in common: no messages are sent, so that any of them may be lost, and
be started again at any time.
"""

import argparse
import os
import time
from collections.abc import Iterator

from distilrubert.common.errors import UserError
from distilrubert.common.processes import available_cores
from distilrubert.distill.corpus.parts import Part, SharedWork
from distilrubert.pipeline.checks import check_corpus
from distilrubert.pipeline.engine import begin_stage, bring_up_to_date, stages_before
from distilrubert.pipeline.launch import Launch
from distilrubert.pipeline.process_log import logged
from distilrubert.pipeline.run import Run, locked
from distilrubert.pipeline.run_commands import run_folder, run_of
from distilrubert.pipeline.stages import SHARED_STAGES, can_be_shared, shared_work, stages_of

# While other processes finish what nobody can go on without.
SECONDS_BETWEEN_LOOKS = 1.0


def corpus(options: argparse.Namespace) -> None:
    """Tokenise the corpus of a recipe, or one part of it."""
    if not options.recipe.corpus.sources:
        raise UserError("corpus.sources: the recipe has none, so there is no corpus to tokenise")
    launch = Launch.of_independent_processes()
    if options.part and launch.processes > 1:
        raise UserError(
            f"--part: each of the {launch.processes} processes that were started together takes a part of its own; "
            "leave the option out, or start one process"
        )
    if options.part:
        _build_part(options, Part(*options.part))
    elif launch.processes > 1:
        _build_together(options, Part(launch.rank + 1, launch.processes))
    else:
        _merge(options, wait=False)


def _build_part(options: argparse.Namespace, part: Part) -> None:
    for stage, run, work in _unfinished(options):
        if not work:
            continue
        with logged(run.folder, f"part-{part.number}"):
            are_all_done = work.build_part(part)
        if stage == "corpus":
            print(
                f"Part {part} is done; the same command without --part does what is missing and puts the parts together"
            )
            return
        if not are_all_done:
            print(f"Part {part} is counted for the vocabulary; once all parts are, the same command tokenises it")
            return
    print(f"The corpus is in {run.corpus}")


def _build_together(options: argparse.Namespace, own: Part) -> None:
    """Do parts until none is left to be done; the process that does the last one puts them together."""
    on_this_machine = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    for stage, run, work in _unfinished(options, max(available_cores() // on_this_machine, 1)):
        if not work:
            continue
        with logged(run.folder, f"part-{own.number}"):
            # Without the vocabulary nobody can tokenise; a part whose process is lost meanwhile is free.
            while not (are_all_done := work.build_free_parts(own)) and stage != "corpus":
                time.sleep(SECONDS_BETWEEN_LOOKS)
        if not are_all_done:
            return
    _merge(options, wait=True)


def _unfinished(
    options: argparse.Namespace, processes: int | None = None
) -> Iterator[tuple[str, Run, SharedWork | None]]:
    """Each stage with what is shared of it, None where nothing is to be done; whatever comes before it is done here."""
    for stage in SHARED_STAGES:
        with locked(run_folder(options), wait=True):
            run = run_of(options, Launch())
            check_corpus(run)
            begun = begin_stage(run, stages_of(run), stage) if can_be_shared(run, stage) else None
        yield stage, run, shared_work(run, stage, begun.path, processes) if begun else None


def _merge(options: argparse.Namespace, *, wait: bool) -> None:
    with locked(run_folder(options), wait=wait):
        run = run_of(options, Launch())
        check_corpus(run)
        stages = stages_of(run)
        bring_up_to_date(run, stages, only=[*stages_before(stages, "corpus"), "corpus"])
    print(f"The corpus is in {run.corpus}")
