"""The reference experiment: every student of the family on real data, and what each loss is good for.

    DISTILRUBERT_DATA=FOLDER python benchmarks/reference/experiment.py           as the committed results were made
    DISTILRUBERT_DATA=FOLDER python benchmarks/reference/experiment.py --whole   as long as the recipes say
    python benchmarks/reference/experiment.py --only tiny tiny-mlm-only --updates 3         to see that it runs

Each model is an ordinary run in a directory of its own, a student up to its card. The same command continues where it
was stopped and skips what is finished. The teacher is fine-tuned once for all. Speed is worth measuring on an idle
machine only: ``--no-speed`` leaves it out, with the card, for another time. ``report.py`` makes the page of the
results.

A results file has the rows ``teacher``, the model and the baselines', as quality.json has them, the model's with
``parameters``, ``updates``, ``epochs``, ``tokens``, ``wall_time_s``, ``precision``, ``files_mib`` and, where speed was
measured, ``throughput_ratio`` besides;
`details` has the curves and the losses on held-out text of training.json, all settings, and the git revision.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import long_script
from models import MODELS, PROBED, Model

from distilrubert.common.derived import load_derived
from distilrubert.common.formats import CHECKPOINT
from distilrubert.common.measurements import Measurements, Row
from distilrubert.evaluation.speed.parameter_count import count_parameters
from distilrubert.modeling.downloads import checkpoint_folder
from distilrubert.pipeline.checks import check_before_work
from distilrubert.pipeline.commits import with_commits
from distilrubert.pipeline.engine import bring_up_to_date
from distilrubert.pipeline.recipe import Recipe, load_recipe
from distilrubert.pipeline.run import Run, revision
from distilrubert.pipeline.stages import stages_of

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "reference"
# How often held-out text is measured in a run that is shorter than its recipe says: each time costs several updates.
MEASUREMENTS = 4

logger = logging.getLogger("distilrubert.benchmarks")


def main() -> None:
    """Run the models that were asked for, one after another."""
    options = _options()
    chosen = [model for model in MODELS if not options.only or model.name in options.only]
    recipes = {model.name: _recipe(model, options) for model in chosen}
    for model in chosen:
        logger.info("%s: %s", model.name, model.title)
        _bring_up_to_date(model, recipes[model.name], options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    names = [model.name for model in MODELS]
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"some of {', '.join(names)}")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--updates", type=_positive, metavar="N", help="for every model alike (default: models.py)")
    length.add_argument("--whole", action="store_true", help="train as many epochs as the recipes say")
    parser.add_argument(
        "--tasks",
        nargs="*",
        metavar="TASK",
        help="for every model alike; none: held-out text only (default: all for base, two for the others)",
    )
    parser.add_argument("--no-speed", action="store_true", help="leave out the measurement of speed, and the card")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3], metavar="N", help="default: 1 2 3")
    parser.add_argument("--run-dir", type=Path, default=Path("runs/reference"), metavar="DIR", help="where to work")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="where NAME.json are written")
    parser.add_argument(
        "--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE", help="for every model alike"
    )
    return parser.parse_args()


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError(text)
    return number


def _recipe(model: Model, options: argparse.Namespace) -> Recipe:
    tasks = model.tasks if options.tasks is None else options.tasks
    probed = [] if options.tasks is not None else [task for task in PROBED if task not in tasks]
    schedule = [f"evaluation.tasks=[{', '.join(tasks)}]", f"evaluation.seeds={options.seeds}"]
    schedule.append(f"evaluation.probed_tasks=[{', '.join(probed)}]")
    if not options.whole:
        updates = options.updates or model.updates
        every = max(1, updates // MEASUREMENTS)
        schedule += [f"distillation.max_steps={updates}", f"distillation.validate_every={every}"]
        schedule += ["distillation.validation_tokens=40000"]
    path = ROOT / "recipes" / f"{model.recipe}.yaml"
    return load_recipe(path, [*schedule, *model.overrides, *options.overrides])


def _bring_up_to_date(model: Model, recipe: Recipe, options: argparse.Namespace) -> None:
    """Run one model and write its results where they say anything new."""
    run = with_commits(Run(recipe, options.run_dir / model.name, shared_scores=options.run_dir / "scores"))
    check_before_work(run)
    left_out = {"speed", "card"} if options.no_speed else set()
    if not model.has_files:
        left_out = {"conversion", "speed", "card"}
    stages = stages_of(run)
    bring_up_to_date(run, stages, only={stage.name for stage in stages} - left_out)
    results, path = _results(model, run, options.overrides), options.results / f"{model.name}.json"
    if not path.exists() or _without_revision(Measurements.load(path)) != _without_revision(results):
        results.save(path)
        logger.info("%s: written to %s", model.name, path)


def _without_revision(results: Measurements) -> dict[str, Any]:
    """Without the revision of this package, which changes every day."""
    values = results.to_dict()
    return {**values, "details": {**values["details"], "revision": None}}


def _results(model: Model, run: Run, overrides: Sequence[str]) -> Measurements:
    training = Measurements.load(run.reports / "training.json")
    trained = training.rows[0].values
    quality = load_derived(run.reports / "quality.json")
    teacher = run.recipe.teacher
    assert teacher.model is not None
    own = {
        "teacher": {"parameters": count_parameters(checkpoint_folder(teacher.model, teacher.revision))},
        "student": {
            "parameters": trained["parameters"],
            "updates": trained["steps"],
            **{key: trained[key] for key in ("epochs", "tokens", "wall_time_s", "precision")},
            "files_mib": _files(model, run),
            **_speed(run),
        },
    }
    names = {"student": model.name}
    rows = [
        Row(names.get(row.case, row.case), {**own.get(row.case, {}), **row.values}, row.ratio) for row in quality.rows
    ]
    details = {
        "recipe": model.recipe,
        "overrides": [*model.overrides, *overrides],
        "revision": revision(),
        "trained_on": training.environment.to_dict(),
        "distillation": training.details["settings"],
        "quality": quality.details,
        "curves": training.details["curves"],
        "validation": training.details["validation"],
    }
    return Measurements(quality.environment, rows, quality.baseline, details)


def _speed(run: Run) -> dict[str, Any]:
    """The gains in throughput over the teacher in PyTorch, by format, where they have been measured."""
    path = run.reports / "speed.json"
    if not path.exists():
        return {}
    found = load_derived(path).rows
    rows = {row.case.removeprefix("student-"): row for row in found if row.case.startswith("student-")}
    return {"throughput_ratio": {kind: row.values["throughput_ratio"] for kind, row in rows.items()}}


def _files(model: Model, run: Run) -> dict[str, float]:
    """Size of each file in MiB by its path in the model repository."""
    if model.has_files:
        parity = Measurements.load(run.reports / "parity.json")
        return {row.values["path"]: row.values["size_mib"] for row in parity.rows}
    (weights,) = CHECKPOINT.find(run.student)
    return {weights.name: weights.stat().st_size / 2**20}


if __name__ == "__main__":
    sys.exit(long_script.run(main))
