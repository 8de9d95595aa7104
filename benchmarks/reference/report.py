"""docs/results.md and its pictures, made from what ``experiment.py`` has measured, and of encoders of sentences.

    python benchmarks/reference/report.py

The section of shapes is of a run of its own, ``experiment.py --results benchmarks/results/shapes``. Models that were
not run are left out and named. ``benchmarks/document.py`` then fills in the table of students for tasks. The encoders'
scores (``encoder_results.py``) and speed (``benchmarks/inference/encoder_speed.py``) are left out where there is no
file of them.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from comparisons import ABLATED, ABLATED_STUDENT, COMPARED, SHAPES, Compared, compare, corrected
from encoders import EncoderPoint, encoder_points, encoder_table, measure_title
from models import MODELS
from pictures import write_pictures
from results import TEACHER, Result, all_tasks, by_name, common_tasks, load_results
from tables import comparison_tables, gain_table, goals_table, held_out_table, probe_table, size_table, tasks_table

from distilrubert.common.errors import UserError
from distilrubert.common.measurements import Measurements
from distilrubert.common.persistence import write_text
from distilrubert.evaluation.text.intrinsic import FOLDS
from distilrubert.model_card.formatting import listing, short_count
from distilrubert.pipeline.exit_statuses import DONE, USER_ERROR

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
# What the numbers do not say.
NOTES = HERE / "notes.md"
# How fast each shape is, beside the results.
SPEEDS = "inference-amx.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page; the exit status as the command line has it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks/results/reference", metavar="DIR")
    parser.add_argument("--output", type=Path, default=ROOT / "docs/results.md", metavar="FILE")
    options = parser.parse_args(arguments)
    try:
        encoders = _encoders(options.results.parent)
        shapes, speeds = options.results.parent / "shapes", options.results.parent / SPEEDS
        page = render(
            load_results(options.results),
            options.output.parent / "images",
            *encoders,
            shapes=load_results(shapes) if shapes.exists() else [],
            speeds=Measurements.load(speeds) if speeds.exists() else None,
        )
        write_text(options.output, page)
    except UserError as error:
        print(f"report.py: {error}", file=sys.stderr)
        return USER_ERROR
    print(f"The page is in {options.output}")
    return DONE


def render(
    results: Sequence[Result],
    images: Path,
    encoders: Sequence[EncoderPoint] = (),
    encoder_measure: str = "",
    shapes: Sequence[Result] = (),
    speeds: Measurements | None = None,
) -> str:
    """The page; its pictures are drawn into the folder."""
    named, common, shaped = by_name(results), common_tasks(results), by_name(shapes)
    ablation = {
        (loss,): compare(named[ABLATED_STUDENT], named[name])
        for name, loss in ABLATED.items()
        if {ABLATED_STUDENT, name} <= named.keys()
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
        missing=listing(
            [f"`{model.name}` ({model.title})" for model in MODELS if model.name not in {**named, **shaped}]
        ),
        goals_table=goals_table(named),
        gain_table=gain_table(named["base"]) if "base" in named else None,
        common=listing([all_tasks(results)[task].partition(",")[0] for task in common]),
        tasks_table=tasks_table(results, common),
        probe_table=probe_table(results),
        held_out_table=held_out_table(results),
        comparisons=comparison_tables(("Model", "compared with"), _compared(named, COMPARED)),
        shapes_table=tasks_table(shapes, common_tasks(shapes)) if shapes else None,
        shape_comparisons=comparison_tables(("Model", "compared with"), _compared(shaped, SHAPES)),
        student=ABLATED_STUDENT,
        folds=FOLDS,
        own_vocabulary=listing([f"`{result.model.name}`" for result in results if result.has_own_vocabulary]),
        size_table=size_table(results),
        ablation_tables=comparison_tables(("Loss",), ablation),
        encoder_table=encoder_table(encoders) if encoders else None,
        encoder_measure=encoder_measure,
        pictures=write_pictures(
            results,
            {loss: found for (loss,), found in corrected(ablation).items()},
            images,
            encoders,
            encoder_measure,
            shapes,
            speeds,
        ),
        notes=NOTES.read_text(encoding="utf-8").strip(),
    )


def _compared(named: Mapping[str, Result], pairs: Mapping[str, Sequence[str]]) -> Compared:
    """The comparisons of each model with the others of its pairs that there are."""
    return {
        (name, other): compare(named[name], named[other])
        for name, others in pairs.items()
        for other in others
        if {name, other} <= named.keys()
    }


def _encoders(folder: Path) -> tuple[list[EncoderPoint], str]:
    """The encoders of sentences and what their score is; none where their scores are not there."""
    scores, speeds = folder / "sentences.json", folder / "sentence_speed.json"
    if not scores.exists():
        return [], ""
    measured = Measurements.load(scores)
    return encoder_points(measured, Measurements.load(speeds) if speeds.exists() else None), measure_title(measured)


def _circumstances(results: Sequence[Result]) -> dict[str, Any]:
    """What was the same for all models."""
    finetuning = results[0].settings["finetuning"]
    limit = f"{finetuning['train_limit']:,} labelled rows at most" if finetuning["train_limit"] else "all labelled rows"
    rates = [f"{rate:g}" for rate in finetuning["learning_rates"]]
    head = finetuning.get("head_learning_rate")
    machines = dict.fromkeys(where for result in results for where in (result.trained_on, result.measured_on))
    fine_tuned = [result for result in results if result.tasks]
    return {
        "teacher_parameters": short_count(results[0].report[TEACHER].values["parameters"]),
        "protocol": f"{limit}, {finetuning['epochs']} epochs in batches of {finetuning['batch_size']}, "
        f"the {'better' if len(rates) == 2 else 'best'} of the learning rates {listing(rates)} on the validation part"
        f"{f', {head:g} for the head' if head else ''}"
        f"{', no dropout' if finetuning['dropout'] == 0 else ''}",
        "machine": listing(list(machines)),
        "has_row_results": any(result.has_row_results(task) for result in fine_tuned for task in result.tasks),
        "untried": listing([f"`{result.model.name}`" for result in results if not result.tasks]),
    }


if __name__ == "__main__":
    sys.exit(main())
