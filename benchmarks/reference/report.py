"""docs/results.md and its pictures, made from what ``experiment.py`` has measured.

    python benchmarks/reference/report.py

What has not been run is left out and named.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from comparisons import ABLATED, COMPARED, WHOLE, compare
from models import MODELS
from pictures import write_pictures
from results import TEACHER, Result, all_tasks, by_name, common_tasks, load_results, measure_of, timed_alike
from tables import comparison_tables, goals_table, held_out_table, probe_table, size_table, tasks_table

from distilrubert.common.errors import UserError
from distilrubert.common.persistence import write_text
from distilrubert.evaluation.text.intrinsic import FOLDS
from distilrubert.model_card.formatting import listing, short_count
from distilrubert.pipeline.status import DONE, USER_ERROR

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
# What numbers do not say: what was tried, and what did not work.
NOTES = HERE / "notes.md"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page; the exit status as the command line has it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks/results/reference", metavar="DIR")
    parser.add_argument("--output", type=Path, default=ROOT / "docs/results.md", metavar="FILE")
    options = parser.parse_args(arguments)
    try:
        page = render(load_results(options.results), options.output.parent / "images")
        write_text(options.output, page)
    except UserError as error:
        print(f"report.py: {error}", file=sys.stderr)
        return USER_ERROR
    print(f"The page is in {options.output}")
    return DONE


def render(results: Sequence[Result], images: Path) -> str:
    """The page; its pictures are drawn into the folder."""
    named, common = by_name(results), common_tasks(results)
    ablation = {
        loss: compare(named[WHOLE], named[name]) for name, loss in ABLATED.items() if {WHOLE, name} <= named.keys()
    }
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701  (Markdown)
    )
    return environment.get_template("results.md.jinja").render(
        **_circumstances(results),
        otherwise=listing([f"`{result.model.name}`" for result in results if not result.is_comparable]),
        missing=listing([f"`{model.name}` ({model.title})" for model in MODELS if model.name not in named]),
        goals_table=goals_table(named),
        common=listing([all_tasks(results)[task].partition(",")[0] for task in common]),
        current=_tables([result for result in results if not result.is_former], named, common),
        former=_tables([result for result in results if result.is_former], named, common),
        whole=WHOLE,
        folds=FOLDS,
        own_vocabulary=listing([f"`{result.model.name}`" for result in results if result.has_own_vocabulary]),
        size_table=size_table(results),
        ablation_tables=comparison_tables(("Loss",), {(loss,): found for loss, found in ablation.items()}),
        pictures=write_pictures(results, ablation, images),
        notes=NOTES.read_text(encoding="utf-8").strip() if NOTES.exists() else "",
    )


def _tables(
    shown: Sequence[Result], named: Mapping[str, Result], common: Sequence[str]
) -> dict[str, str | None] | None:
    """What a section on some of the models shows; None where there are none."""
    if not shown:
        return None
    names = [result.model.name for result in shown]
    pairs = [(name, other) for name in names for other in COMPARED.get(name, ()) if other in named]
    compared = {(name, other): compare(named[name], named[other]) for name, other in pairs}
    return {
        "tasks": tasks_table(shown, common),
        "probe": probe_table(shown),
        "held_out": held_out_table(shown),
        "comparisons": comparison_tables(("Model", "compared with"), compared),
    }


def _circumstances(results: Sequence[Result]) -> dict[str, Any]:
    """What was the same for all."""
    finetuning = measure_of(results).settings["finetuning"]
    limit = f"{finetuning['train_limit']:,} labelled rows at most" if finetuning["train_limit"] else "all labelled rows"
    rates = [f"{rate:g}" for rate in finetuning["learning_rates"]]
    head = finetuning.get("head_learning_rate")
    machines = dict.fromkeys(where for result in results for where in (result.trained_on, result.measured_on))
    untried = [result for result in results if result.is_comparable and not result.tasks]
    return {
        "teacher_parameters": short_count(results[0].report[TEACHER].figures["parameters"]),
        "protocol": f"{limit}, {finetuning['epochs']} epochs in batches of {finetuning['batch_size']}, "
        f"the {'better' if len(rates) == 2 else 'best'} of the learning rates {listing(rates)} on the validation part"
        f"{f', {head:g} for the head' if head else ''}"
        f"{', no dropout' if finetuning['dropout'] == 0 else ''}",
        "machine": listing(list(machines)),
        "timed_on": _timed_on(results),
        "untried": listing([f"`{result.model.name}`" for result in untried]),
    }


def _timed_on(results: Sequence[Result]) -> str:
    """Where the gains of the picture were measured; nothing where every model was measured on one machine."""
    timed = timed_alike(results)
    students = [result for result in results if result.model.has_files]
    if not timed or len({result.measured_on for result in students}) == 1:
        return ""
    (where, *_) = {result.measured_on for result in timed.values()}
    others = [f"{name} as {of.model.name}, which has its shape" for name, of in timed.items() if name != of.model.name]
    lost = [result.model.name for result in students if result.model.name not in timed]
    return "; ".join([where, *others, *(f"{name} was not timed there" for name in lost)])


if __name__ == "__main__":
    sys.exit(main())
