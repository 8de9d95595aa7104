"""What a pruned student is worth: its start and its end against other starts, at equal updates.

    DISTILRUBERT_DATA=FOLDER python benchmarks/distillation/pruning.py --output benchmarks/results/pruning.json
    python benchmarks/distillation/pruning.py --updates 2 --recipes reference-slim         to see that it runs

Each recipe's student is distilled three times with the same batches: pruned by what its teacher's parts change on text
(`student.prune`), by the sizes of their weights, and from random weights. What it predicts on held-out text is measured
before and after. The work is done in --run-dir; the same command continues where it was stopped, and what is measured
is in the file at once.

A row has the ``recipe``, the ``start``, ``updates``, ``learning_rate``, and ``before`` and ``after``: the figures of
:func:`~distilrubert.evaluation.text.intrinsic.measure_intrinsic`, with those of parts of the text, by which the
starts are compared in pairs.
"""

import argparse
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distilrubert.common.errors import UserError
from distilrubert.common.measurements import Environment, Measurements, Row
from distilrubert.common.training.signals import Interrupted
from distilrubert.distill.corpus.build import build_corpus
from distilrubert.distill.corpus.store import MANIFEST, Corpus, load_corpus
from distilrubert.distill.corpus.tokenisation import tokenizer_sha256
from distilrubert.distill.distillation import distill
from distilrubert.distill.pruning import importance_on
from distilrubert.evaluation.evaluation_settings import IntrinsicSettings
from distilrubert.evaluation.text.intrinsic import measure_intrinsic
from distilrubert.modeling.student import Student, build_student
from distilrubert.modeling.teacher import Teacher, load_teacher
from distilrubert.pipeline.exit_statuses import DONE, INTERRUPTED, USER_ERROR
from distilrubert.pipeline.recipe import Recipe, load_recipe
from distilrubert.pipeline.run import revision

ROOT = Path(__file__).parents[2]
# What differs from the recipe. Random weights have nothing to lose, and learn faster at the rate of DistilBERT.
STARTS: dict[str, tuple[str, ...]] = {
    "pruned": (),
    "largest-weights": ("student.prune=null",),
    "random": ("student.prune=null", "student.initialise_from=random", "distillation.learning_rate=5e-4"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Make and measure what the file does not have yet; the exit status as the command line has it."""
    options = _options(arguments)
    try:
        for name in options.recipes:
            for start in STARTS:
                _measure(name, start, options)
    except UserError as error:
        print(f"pruning.py: {error}", file=sys.stderr)
        return USER_ERROR
    except (Interrupted, KeyboardInterrupt):
        print("pruning.py: interrupted; the same command continues from there", file=sys.stderr)
        return INTERRUPTED
    return DONE


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--recipes", nargs="+", default=["reference-slim", "reference-narrow"], metavar="NAME")
    parser.add_argument("--updates", type=int, default=400, metavar="N", help="for every student alike (default: 400)")
    parser.add_argument("--sequences", type=int, default=1000, metavar="N", help="of held-out text (default: 1000)")
    parser.add_argument("--run-dir", type=Path, default=Path("runs/pruning"), metavar="DIR", help="where to work")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/pruning.json", metavar="FILE")
    parser.add_argument(
        "--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE", help="for every student alike"
    )
    return parser.parse_args(arguments)


def _measure(name: str, start: str, options: argparse.Namespace) -> None:
    """Distil one student and add its row to the file, unless it is there."""
    case = f"{name}-{start}"
    schedule = [f"distillation.max_steps={options.updates}", f"distillation.validate_every={options.updates}"]
    recipe = load_recipe(ROOT / "recipes" / f"{name}.yaml", [*schedule, *options.overrides, *STARTS[start]])
    settings = {"updates": options.updates, "sequences": options.sequences, "overrides": options.overrides}
    report = Measurements.load(options.output) if options.output.exists() else None
    if report and report.details["settings"] != settings:
        raise UserError(f"{options.output}: was measured with other settings; name another file with --output")
    rows = report.rows if report else []
    if any(row.case == case for row in rows):
        return
    assert recipe.teacher.model is not None
    teacher = load_teacher(recipe.teacher.model, recipe.teacher.revision)
    corpus = _corpus(recipe, teacher, options.run_dir)
    folder = options.run_dir / case
    folder.mkdir(parents=True, exist_ok=True)
    pruning, importance = recipe.student.pruning(), None
    if pruning:
        importance = importance_on(teacher, corpus, pruning.sequences, recipe.distillation.masking, recipe.seed, folder)
    student = build_student(teacher, recipe.student, recipe.seed, importance=importance)
    before = _predictions(student, teacher, corpus, options.sequences)
    training = distill(teacher, student, corpus, recipe.distillation, folder, recipe.seed)
    values = {
        "recipe": name,
        "start": start,
        "updates": training.rows[0].values["steps"],
        "tokens": training.rows[0].values["tokens"],
        "precision": training.rows[0].values["precision"],
        "parameters": training.rows[0].values["parameters"],
        "learning_rate": recipe.distillation.learning_rate,
        "before": before,
        "after": _predictions(student, teacher, corpus, options.sequences),
    }
    details = {"settings": settings, "revision": revision()}
    Measurements(Environment.capture(), [*rows, Row(case, values)], None, details).save(options.output)
    kl = [values[when]["kl_to_teacher_nats"] for when in ("before", "after")]
    print(f"{case}: KL to the teacher {kl[0]:.3f} nats before, {kl[1]:.3f} after")


def _corpus(recipe: Recipe, teacher: Teacher, run_dir: Path) -> Corpus:
    """The corpus of these settings, built once."""
    decisive = f"{recipe.corpus.model_dump_json()} {recipe.seed} {tokenizer_sha256(teacher.tokenizer)}"
    folder = run_dir / f"corpus-{hashlib.sha256(decisive.encode()).hexdigest()[:20]}"
    if (folder / MANIFEST).exists():
        return load_corpus(folder)
    return build_corpus(recipe.corpus, teacher.tokenizer, folder, recipe.seed)


def _predictions(student: Student, teacher: Teacher, corpus: Corpus, sequences: int) -> dict[str, Any]:
    settings = IntrinsicSettings(sequences=sequences, sentences=0)
    return measure_intrinsic(student.model, student.tokenizer, corpus.validation, settings, teacher.model)


if __name__ == "__main__":
    sys.exit(main())
