"""What the terminal shows at the end of a run."""

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from distilrubert.common.measurements import Measurements
from distilrubert.evaluation.sentences.suite_scores import best_scores, mean_score
from distilrubert.model_card.scores import have_vocabularies_of_their_own
from distilrubert.pipeline.run import Run
from distilrubert.pipeline.terminal import new_table, print_table


def print_tables(run: Run) -> None:
    """Print the speed and the quality of the run's models."""
    print_table(speed_table(Measurements.load(run.reports / "speed.json")))
    print_table(quality_table(Measurements.load(run.reports / "quality.json")))


def speed_table(speed: Measurements) -> Table:
    """A row for each measured file: times and throughput with their ratios to the baseline.

    The values are medians over the starts. Brackets have the least and the largest ratio of a start.
    """
    environment = speed.environment
    starts = min(row.values.get("starts", 1) for row in speed.rows)
    title = f"Speed on {environment.cpu}, {environment.threads} threads, {starts} start{'s' if starts > 1 else ''}"
    headings = ["size,\nMiB", "latency,\nms", "×", "samples/s", "×"]
    table = new_table(title, ["model, runtime"], headings, wrap_names=False)
    for row in speed.rows:
        figures = row.values
        table.add_row(
            row.case,
            f"{figures['size_mib']:.1f}",
            f"{1000 * figures['latency_s']:.1f}",
            _ratio(figures, "latency_ratio"),
            f"{figures['samples_per_s']:.1f}",
            _ratio(figures, "throughput_ratio"),
        )
    return table


def _ratio(values: Mapping[str, Any], name: str) -> str:
    low, high = values.get(f"{name}_range", (None, None))
    spread = "" if low in (None, high) else f" ({low:.1f}–{high:.1f})"
    return f"{values[name]:.1f}{spread}"


def quality_table(quality: Measurements) -> Table:
    """A row for each model: prediction of held-out text, then each task's main score as mean ± deviation.

    A linear probe is shown of tasks on which nothing was fine-tuned.
    """
    tasks: Mapping[str, Any] = quality.details["tasks"]
    first = quality.rows[0].values
    has_held_out = any("masked_accuracy" in row.values for row in quality.rows)
    own = " (own tokens: not comparable)" if have_vocabularies_of_their_own(quality) else ""
    headings = [f"masked accuracy{own}, %"] if has_held_out else []
    for name, task in tasks.items():
        probe = "" if name in first["tasks"] else ", linear probe"
        headings.append(f"{name}, {task['main_metric']}{probe}, %")
    table = new_table("Quality", ["model"], headings, wrap_names=False)
    for row in quality.rows:
        # What needs no model has its score among the fine-tuned ones.
        found = {**row.values.get("linear_probe", {}), **row.values["tasks"]}
        held_out = [_percent(row.values.get("masked_accuracy"))] if has_held_out else []
        table.add_row(
            row.case, *held_out, *(_score(found.get(name), task["main_metric"]) for name, task in tasks.items())
        )
    return table


def suite_table(report: Measurements) -> Table:
    """A row for each file of a model: the best score of each task of a suite, and their mean."""
    suite, tasks, absent = (report.details[key] for key in ("suite", "tasks", "absent"))
    told = f" (without {', '.join(absent)}: no data)" if absent else ""
    headings = [f"{name}, {task['metric']}" for name, task in tasks.items()]
    table = new_table(f"{suite['title']}{told}", ["file"], [*headings, f"mean of {len(tasks)}"], wrap_names=False)
    for row in report.rows:
        scores = row.values["scores"]
        found = [*best_scores(scores, tasks).values(), mean_score(scores, tasks)]
        table.add_row(row.case, *(f"{score:.3f}" for score in found))
    return table


def parity_table(parity: Measurements) -> Table:
    """A row for each file; how far it is from the checkpoint."""
    cosines = ["token\ncosine,\nmean", "1st\npercen-\ntile", "least"]
    headings = ["size,\nMiB", "largest\ndiffer-\nence", *cosines, "same\nfirst\nguess,\n%"]
    table = new_table("Agreement with the checkpoint", ["file"], headings)
    for row in parity.rows:
        figures = row.values
        table.add_row(
            figures["path"] if figures["hint"] == "fp32" else f"{figures['path']} in {figures['hint']}",
            f"{figures['size_mib']:.1f}",
            f"{figures['maximal_difference']:.2g}",
            f"{figures['token_cosine']:.5f}",
            f"{figures['token_cosine_p1']:.5f}",
            f"{figures['minimal_token_cosine']:.5f}",
            _percent(figures.get("top1_agreement")),
        )
    return table


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"


def _score(task: Mapping[str, Any] | None, metric: str) -> str:
    if task is None:
        return ""
    score = task[metric]
    deviation = "" if score["std"] is None else f" ± {100 * score['std']:.1f}"
    return f"{100 * score['mean']:.1f}{deviation}"


def next_steps(run: Run, recipe: Sequence[str]) -> str:
    """Where the model repository is, how to try it and how to push it: lines for a shell.

    `recipe` is the arguments by which publishing finds the very same run.
    """
    python, hub = str(short_path(Path(sys.executable))), short_path(run.hub)
    # Python takes the strings of JSON, and single quotes keep a shell from them.
    folder, example = (json.dumps(text, ensure_ascii=False) for text in (str(hub), run.recipe.card.example))
    script = f'from transformers import pipeline; print(pipeline("fill-mask", {folder})({example})[0])'
    push = [*_publish_command(python), *recipe, "--repo-id", f"USER/{run.recipe.name}"]
    return (
        f"{_what_to_expect(run)}The model repository is in {hub}: read {hub / 'README.md'}. Try it,\n\n"
        f"  {shlex.join([python, '-c', script])}\n\n"
        f"and push it:\n\n"
        f"  {shlex.join(push)}"
    )


def _what_to_expect(run: Run) -> str:
    """What the scores of a teacher that the recipe trains are good for; nothing for a teacher that is loaded."""
    if not run.recipe.teacher.pretrain:
        return ""
    return (
        "The teacher was trained in this run, on the recipe's corpus alone: the scores show that every step works, not "
        "how good a student can be.\nFor that, name a teacher that was trained on billions of words: teacher.model in "
        "the recipe.\n\n"
    )


def _publish_command(python: str) -> list[str]:
    """How this process was started."""
    script = short_path(Path(sys.argv[0]))
    match script.name:
        case "publish.py":
            return [python, str(script)]
        case "distilrubert":
            return [str(script), "publish"]
        case _:
            return [python, "-m", "distilrubert.pipeline", "publish"]


def short_path(path: Path) -> Path:
    """The path as one would type it here; links, as those of a virtual environment, are left alone."""
    absolute = path.absolute()
    return absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute
