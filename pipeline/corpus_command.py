"""`distilrubert corpus`: the corpus of a recipe, alone or shared out over processes and machines.

The processes have nothing but the run directory in common: no messages are sent, so that any of them may be lost, and
be started again at any time.
"""

import argparse
import os

from distilrubert.common.errors import UserError
from distilrubert.common.processes import available_cores
from distilrubert.distill.corpus.parts import Part
from distilrubert.pipeline.checks import check_corpus
from distilrubert.pipeline.engine import begin_stage, bring_up_to_date, stages_before
from distilrubert.pipeline.launch import Launch
from distilrubert.pipeline.process_log import logged
from distilrubert.pipeline.run import locked
from distilrubert.pipeline.run_commands import run_folder, run_of
from distilrubert.pipeline.stages import corpus_build, stages_of


def corpus(options: argparse.Namespace) -> None:
    """Tokenise the corpus of a recipe, or one part of it."""
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
    with locked(run_folder(options), wait=True):
        run = run_of(options, Launch())
        check_corpus(run)
        begun = begin_stage(run, stages_of(run), "corpus")
    if begun is None:
        print(f"The corpus is in {run.corpus}")
        return
    with logged(run.folder, f"part-{part.number}"):
        corpus_build(run, begun.path).build_part(part)
    print(f"Part {part} is done; the same command without --part does what is missing and puts the parts together")


def _build_together(options: argparse.Namespace, own: Part) -> None:
    """Do parts until none is left to be done; the process that does the last one puts them together."""
    with locked(run_folder(options), wait=True):
        run = run_of(options, Launch())
        check_corpus(run)
        begun = begin_stage(run, stages_of(run), "corpus")
    on_this_machine = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    processes = max(available_cores() // on_this_machine, 1)
    if begun:
        with logged(run.folder, f"part-{own.number}"):
            is_merged_here = corpus_build(run, begun.path, processes).build_free_parts(own)
    if begun is None or is_merged_here:
        _merge(options, wait=True)


def _merge(options: argparse.Namespace, *, wait: bool) -> None:
    with locked(run_folder(options), wait=wait):
        run = run_of(options, Launch())
        check_corpus(run)
        stages = stages_of(run)
        bring_up_to_date(run, stages, only=[*stages_before(stages, "corpus"), "corpus"])
    print(f"The corpus is in {run.corpus}")
