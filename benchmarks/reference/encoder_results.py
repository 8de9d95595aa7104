"""What became of the encoders of sentences: one file out of the run directories of their recipes.

    python benchmarks/reference/encoder_results.py --runs small=runs/reference-e5-small tiny=runs/reference-e5-tiny
        --output benchmarks/results/sentences.json                             all in one line
    python benchmarks/reference/encoder_results.py --others model2vec=FOLDER
        --output benchmarks/results/sentences.json         adds a model of sentence-transformers to the file

A row for the teacher and, of each run, for its checkpoint and for each int8 file: ``scores`` as suite.json has them,
``size_mib`` of the file and ``tokenizer_mib`` of tokenizer.json, which every runtime needs beside it; for an int8 file
``vector_cosine_p1``, the first percentile of the cosines of its vectors to the checkpoint's; for a checkpoint
``parameters``, ``updates``, ``tokens``, ``training_minutes``, and ``revision``, that of the program that ran it. All
runs have one teacher and suite. Another model has ``scores`` and sizes; its scores are in FOLDER.json, as
``distilrubert evaluate FOLDER --suite NAME --output FOLDER.json`` writes them. ``report.py`` and ``document.py`` make
tables and a picture of it.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from distilrubert.common.derived import load_derived
from distilrubert.common.errors import UserError
from distilrubert.common.formats import CHECKPOINT, FORMATS
from distilrubert.common.measurements import Measurements, Row
from distilrubert.pipeline.exit_statuses import DONE, USER_ERROR

PYTORCH = CHECKPOINT.case
TEACHER = f"teacher-{PYTORCH}"
STUDENT = "student"
MEASURED_ALIKE = ("suite", "tasks", "absent")


def main() -> int:
    """Write the file; the exit status as the command line has it."""
    options = _options()
    try:
        report = collect(dict(options.runs)) if options.runs else Measurements.load(options.output)
        with_others(report, dict(options.others)).save(options.output)
    except UserError as error:
        print(f"encoder_results.py: {error}", file=sys.stderr)
        return USER_ERROR
    print(f"Written to {options.output}")
    return DONE


def collect(runs: Mapping[str, Path]) -> Measurements:
    """The rows of all runs.

    Raises:
        UserError: if a run is not finished, or runs differ in suite or in the teacher's scores.
    """
    suites = {name: Measurements.load(run / "reports" / "suite.json") for name, run in runs.items()}
    first_name, first = next(iter(suites.items()))
    rows = [Row(TEACHER, {**first["teacher"].values, **_teacher_size(runs[first_name])})]
    for name, suite in suites.items():
        _check_alike(suite, str(runs[name]), first, str(runs[first_name]))
        if suite["teacher"] != first["teacher"]:
            raise UserError(f"{runs[name]} and {runs[first_name]} differ in the scores of their teacher")
        rows += _rows(name, runs[name], suite)
    return Measurements(first.environment, rows, TEACHER, {what: first.details[what] for what in MEASURED_ALIKE})


def with_others(report: Measurements, folders: Mapping[str, Path]) -> Measurements:
    """The report with a row for each of these models, in place of one of the same name.

    Raises:
        UserError: if a model or its scores are missing, or it was scored on other tasks.
    """
    added = []
    for name, folder in folders.items():
        path = folder.with_name(f"{folder.name}.json")
        scores = Measurements.load(path)
        _check_alike(scores, str(path), report, "the others")
        added.append(Row(f"{name}-{PYTORCH}", {**scores.rows[0].values, **_sizes(folder)}))
    cases = {row.case for row in added}
    rows = [row for row in report.rows if row.case not in cases]
    return Measurements(report.environment, [*rows, *added], report.baseline, report.details)


def _check_alike(suite: Measurements, name: str, other: Measurements, other_name: str) -> None:
    for what in MEASURED_ALIKE:
        if suite.details.get(what) != other.details[what]:
            raise UserError(f"{name} and {other_name} were not measured alike: their {what} differs")


def _rows(name: str, run: Path, suite: Measurements) -> list[Row]:
    parity, folder = load_derived(run / "reports" / "parity.json"), run / "exported"
    found = []
    for row in suite.rows:
        if not row.case.startswith(STUDENT):
            continue
        file = row.case.removeprefix(STUDENT).removeprefix("-") or PYTORCH
        values = {
            **row.values,
            "size_mib": FORMATS[file].size_mib(folder),
            "tokenizer_mib": (folder / "tokenizer.json").stat().st_size / 2**20,
        }
        more = _training(run) if file == PYTORCH else {"vector_cosine_p1": parity[file].values["vector_cosine_p1"]}
        found.append(Row(f"{name}-{file}", values | more))
    return found


def _training(run: Path) -> dict[str, Any]:
    values = Measurements.load(run / "reports" / "training.json").rows[0].values
    return {
        "parameters": values["parameters"],
        "updates": values["steps"],
        "tokens": values["tokens"],
        "training_minutes": values["wall_time_s"] / 60,
        "revision": (run / "recipe.yaml").read_text(encoding="utf-8").partition("\n")[0].removeprefix("# "),
    }


def _teacher_size(run: Path) -> dict[str, float]:
    """Of the teacher's own files, where it is a folder on this machine."""
    recipe = yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8"))
    folder = Path(recipe["teacher"]["model"])
    return _sizes(folder) if CHECKPOINT.is_in(folder) else {}


def _sizes(folder: Path) -> dict[str, float]:
    return {
        "size_mib": CHECKPOINT.size_mib(folder),
        "tokenizer_mib": (folder / "tokenizer.json").stat().st_size / 2**20,
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--runs", type=_named_folder, nargs="+", default=[], metavar="NAME=RUN_DIR", help="finished runs")
    add("--others", type=_named_folder, nargs="+", default=[], metavar="NAME=FOLDER", help="scored in FOLDER.json")
    add("--output", type=Path, required=True, metavar="FILE", help="JSON file to write")
    options = parser.parse_args()
    if not options.runs and not options.output.exists():
        parser.error(f"{options.output} does not exist yet, so --runs is needed")
    return options


def _named_folder(text: str) -> tuple[str, Path]:
    name, _, folder = text.partition("=")
    if not name or not folder:
        raise argparse.ArgumentTypeError(f"found {text!r}; NAME=FOLDER is needed")
    return name, Path(folder)


if __name__ == "__main__":
    sys.exit(main())
