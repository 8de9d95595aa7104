"""Students for tasks: what a fine-tuned teacher adds to a small student, on real labels.

    DISTILRUBERT_DATA=FOLDER DISTILRUBERT_E5=FOLDER python benchmarks/reference/task_students.py \
        --output benchmarks/results/task_students.json
    … --only rusentiment-3 --seeds 1 2 3                                        more of one student
    … --run-dir /tmp/runs --set task.finetuning.train_limit=40 --set task.finetuning.epochs=1      to see that it runs

Each student is that of its task's recipe in recipes/tasks, in two sizes (:data:`SIZES`). All the students of a task and
a seed have one fine-tuned teacher. The same command continues where it was stopped, and adds to the file what is new:
rows are of the students whose runs are finished.

The rows of a task are ``TASK-teacher``, the baselines ``TASK-majority-class`` and so on, and for each size the student
that was fine-tuned on the labels alone, ``TASK-SIZE-alone``, the one that was distilled, ``TASK-SIZE-distilled``, and
its files, ``TASK-SIZE-onnx-int8`` and so on. ``tasks`` has the scores of all seeds, as in quality.json; of a file
``equal_decisions`` has the least share of all seeds, and ``size_mib`` its size. `details` has for each student the
``comparison`` of distilled and alone: the difference of the means, and the p-value of a paired bootstrap over test
rows.
"""

import argparse
import dataclasses
import logging
import statistics
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import long_script

from distilrubert.common.measurements import Measurements, Row
from distilrubert.evaluation.tasks.significance import bootstrap_p_value, resampled_scores
from distilrubert.pipeline.checks import check_before_work
from distilrubert.pipeline.commits import pinned_task, with_commits
from distilrubert.pipeline.engine import bring_up_to_date
from distilrubert.pipeline.recipe import load_recipe
from distilrubert.pipeline.run import Run, revision
from distilrubert.pipeline.stages import stages_of

ROOT = Path(__file__).parents[2]
SIZES = {
    "rusentiment": {"6": "[1, 3, 5, 7, 9, 11]", "3": "[3, 7, 11]"},
    "paraphraser": {"6": "[0, 1, 2, 3, 4, 11]", "3": "[3, 7, 11]"},
    "factrueval": {"6": "[0, 1, 2, 3, 4, 11]", "3": "[0, 1, 2]"},
}
"""The teacher's layers that a student of so many starts from, of two choices the better one on validation."""
STUDENTS = [f"{task}-{size}" for task, sizes in SIZES.items() for size in sizes]
# What is not needed for scores. An int8 file is measured here, whatever its decisions are.
OVERRIDES = ("conversion.onnx=[fp32, int8]", "conversion.openvino=[int8]", "task.equal_decisions=0.01")
REPORTS = "reports"
LEFT_OUT = {"speed", "card", "preflight"}

logger = logging.getLogger("distilrubert.benchmarks")


def main() -> None:
    """Run the students that were asked for, one after another."""
    options = _options()
    for seed in options.seeds:
        for student in options.only or STUDENTS:
            _bring_up_to_date(student, seed, options)
            collect(options.run_dir / REPORTS, options.overrides).save(options.output)
    print(f"Written to {options.output}")


def _bring_up_to_date(student: str, seed: int, options: argparse.Namespace) -> None:
    task, _, size = student.partition("-")
    sizes = [f"student.layers={size}", f"student.initialise_from={SIZES[task][size]}", f"seed={seed}"]
    recipe = load_recipe(ROOT / "recipes" / "tasks" / f"{task}.yaml", [*sizes, *OVERRIDES, *options.overrides])
    run = with_commits(Run(recipe, options.run_dir / f"{task}-seed-{seed}"))
    check_before_work(run)
    stages = stages_of(run)
    logger.info("%s, seed %d", student, seed)
    bring_up_to_date(run, stages, only={stage.name for stage in stages} - LEFT_OUT)
    found = Measurements.load(run.reports / "finetuning.json")
    path = options.run_dir / REPORTS / f"{student}-seed-{seed}.json"
    before = Measurements.load(path) if path.exists() else None
    if before and before.rows == found.rows and before.details.get("overrides") == options.overrides:
        # It says what revision made it.
        return
    details = {
        **found.details,
        "revision": revision(),
        "metric": pinned_task(run).main_metric,
        "overrides": options.overrides,
    }
    dataclasses.replace(found, details=details).save(path)


def collect(folder: Path, overrides: Sequence[str] = ()) -> Measurements:
    """The reports of all finished runs with these settings in one."""
    reports: dict[str, list[Measurements]] = {}
    for student in STUDENTS:
        found = [Measurements.load(path) for path in sorted(folder.glob(f"{student}-seed-*.json"))]
        if alike := [report for report in found if report.details.get("overrides") == list(overrides)]:
            reports[student] = alike
    rows: dict[str, Row] = {}
    details: dict[str, Any] = {"overrides": [*OVERRIDES, *overrides], "students": {}}
    for student, alike in reports.items():
        rows |= {row.case: row for row in _rows(student, alike)}
        details["students"][student] = _details(student, alike, rows)
    environment = next(iter(reports.values()))[-1].environment
    return Measurements(environment, list(rows.values()), details=details)


def _rows(student: str, reports: Sequence[Measurements]) -> list[Row]:
    """The rows of a student, each with the scores of all seeds."""
    task, _, _ = student.partition("-")
    by_case: Mapping[str, list[Row]] = defaultdict(list)
    for report in reports:
        for row in report.rows:
            by_case[row.case].append(row)
    names = {"teacher": f"{task}-teacher", "student-alone": f"{student}-alone", "pytorch-fp32": f"{student}-distilled"}
    found = []
    for case, rows in by_case.items():
        is_file = "path" in rows[0].values
        values = {"tasks": {task: _joined([row.values["tasks"][task] for row in rows])}}
        if is_file:
            values["size_mib"] = rows[0].values["size_mib"]
            shares = (row.values["different_decisions"] / row.values["decisions"] for row in rows)
            values["equal_decisions"] = 1 - max(shares)
        if "parameters" in rows[0].values:
            values["parameters"] = rows[0].values["parameters"]
        found.append(Row(names.get(case, f"{student}-{case}" if is_file else f"{task}-{case}"), values))
    return found


def _joined(summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The figures of one task over the seeds, from those of each."""
    metrics = [metric for metric in summaries[0] if metric != "rows"]
    values = {metric: {"values": [one for each in summaries for one in each[metric]["values"]]} for metric in metrics}
    return {**values, "rows": [rows for each in summaries for rows in each["rows"]]}


def _details(student: str, reports: Sequence[Measurements], rows: Mapping[str, Row]) -> dict[str, Any]:
    task, _, _ = student.partition("-")
    metric = reports[0].details["metric"]
    distilled, alone = (rows[f"{student}-{what}"].values["tasks"][task] for what in ("distilled", "alone"))
    difference = statistics.fmean(distilled[metric]["values"]) - statistics.fmean(alone[metric]["values"])
    resampled = resampled_scores(metric, distilled["rows"]) - resampled_scores(metric, alone["rows"])
    return {
        "metric": metric,
        "revisions": sorted({report.details["revision"] for report in reports}),
        "rows": reports[0].details["rows"],
        "calibration": [report.details["calibration"] for report in reports],
        "comparison": {"difference": difference, "p_value": bootstrap_p_value(difference, resampled)},
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=STUDENTS, metavar="NAME", help=f"some of {', '.join(STUDENTS)}")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3], metavar="N", help="default: 1 2 3")
    parser.add_argument("--run-dir", type=Path, default=Path("runs/task-students"), metavar="DIR", help="where to work")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="JSON file to write")
    parser.add_argument(
        "--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE", help="for every student alike"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(long_script.run(main))
