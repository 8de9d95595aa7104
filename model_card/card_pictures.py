"""The pictures of a card: speed against size, the course of training, quality with error bars."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from distilrubert.common.measurements import Measurements, Row
from distilrubert.common.persistence import atomic_file
from distilrubert.model_card.cases import RUNTIMES, Case, stored_in_16_bits
from distilrubert.model_card.drawing import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PINK,
    RED,
    canvas,
    label_points,
    over_tokens,
    scale,
    to_png,
)
from distilrubert.model_card.formatting import number
from distilrubert.model_card.inputs import CardInput, losses_of
from distilrubert.model_card.scores import Score, main_scores

# Dark enough for text.
RUNTIME_COLOURS = dict(zip(RUNTIMES, (BLUE, RED, GREEN), strict=True))


def write_pictures(run: CardInput, folder: Path) -> None:
    """Draw every picture whose report is there; remove the others."""
    drawn = {
        "speed.png": draw_speed(run.speed),
        "training.png": draw_training(run.training),
        "quality.png": draw_quality(run.quality),
        "confusion.png": draw_confusion(run.finetuning),
        "reliability.png": draw_reliability(run.finetuning),
        "scores.png": draw_scores(run.finetuning),
    }
    for name, picture in drawn.items():
        if picture is None:
            (folder / name).unlink(missing_ok=True)
        else:
            with atomic_file(folder / name) as beside:
                beside.write_bytes(to_png(picture))


def draw_speed(speed: Measurements | None) -> Figure | None:
    """Throughput on the CPU over the file's size, a labelled point each."""
    rows = [row for row in speed.rows if _on_cpu(row)] if speed else []
    if not rows:
        return None
    picture, (axes,) = canvas(4.2)
    points = [(row.values["size_mib"], row.values["samples_per_s"]) for row in rows]
    for row, (size, throughput) in zip(rows, points, strict=True):
        marker = "s" if Case.parse(row.case).model == "teacher" else "o"
        axes.scatter(size, throughput, s=110, color=_colour(row), edgecolor="white", marker=marker, zorder=3)
    scale(axes, points)
    axes.set_xlabel("Size of the file, MiB (smaller is better)")
    axes.set_ylabel("Throughput on the CPU, samples/s")
    axes.set_title("Speed against size: up and left is better (the square is the teacher)", loc="left", fontsize=11)
    label_points(picture, axes, points, [(_speed_label(row), _colour(row)) for row in rows])
    return picture


def _colour(row: Row) -> str:
    case = Case.parse(row.case)
    return GREY if case.model == "teacher" else RUNTIME_COLOURS.get(case.runtime, RED)


def _on_cpu(row: Row) -> bool:
    return not Case.parse(row.case).cuda and {"size_mib", "samples_per_s"} <= row.values.keys()


def _speed_label(row: Row) -> str:
    case = Case.parse(row.case)
    name = case.file_label if case.model == "student" else case.label
    stored = " (file in 16 bits)" if stored_in_16_bits(row) else ""
    return f"{name}{stored}\n{number(row.values['samples_per_s'])} samples/s"


def draw_training(training: Measurements | None) -> Figure | None:
    """One panel a loss, over the tokens seen: on the training text and, where it was measured, on held-out text."""
    curves = training.details.get("curves", []) if training else []
    titles = {"loss": "Total loss", **{name: loss["title"] for name, loss in losses_of(training).items()}}
    losses = [name for name in titles if len(points_of(curves, name)) > 1]
    if not training or not losses:
        return None
    held_out = with_tokens(training.details.get("validation", []), curves)
    picture, panels = canvas(0.4 + 2.0 * -(-len(losses) // 2), panels=len(losses))
    for name, axes in zip(losses, panels, strict=True):
        axes.plot(*zip(*points_of(curves, name), strict=True), color=BLUE, linewidth=1.6, label="training text")
        if points := points_of(held_out, name):
            axes.plot(*zip(*points, strict=True), color=ORANGE, linewidth=1.6, marker="o", label="held-out text")
        axes.set_title(titles[name], loc="left", fontsize=10)
        over_tokens(axes)
    panels[0].legend(*panels[-1].get_legend_handles_labels(), frameon=False, fontsize=9)
    return picture


def points_of(curve: Sequence[dict[str, float]], name: str) -> list[tuple[float, float]]:
    """The values of a loss by tokens."""
    return [(point["tokens"], point[name]) for point in curve if point.get(name) is not None]


def with_tokens(validation: Sequence[dict[str, float]], curves: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    """Measurements on held-out text, which name their update only, with the tokens seen until then."""
    steps, tokens = [0.0, *(point["step"] for point in curves)], [0.0, *(point["tokens"] for point in curves)]
    return [{**point, "tokens": float(np.interp(point["step"], steps, tokens))} for point in validation]


def draw_confusion(report: Measurements | None) -> Figure | None:
    """The share of each true class that got each class, and the number of rows."""
    matrix = report.details.get("confusion") if report else None
    if not report or not matrix:
        return None
    counts, names = np.array(matrix), report.details["task"]["classes"]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    picture, (axes,) = canvas(1.6 + 0.45 * len(names))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.annotate(str(count), (column, row), color=colour, ha="center", va="center", fontsize=9)
    axes.set_xticks(range(len(names)), names, rotation=30 if len(names) > 4 else 0)
    axes.set_yticks(range(len(names)), names)
    axes.grid(visible=False)
    axes.set_xlabel("Class that the model gives")
    axes.set_ylabel("True class")
    return picture


def draw_reliability(report: Measurements | None) -> Figure | None:
    """The share of decisions that are right, by their probability; a point for each bin, as large as it has rows."""
    bins = report.details.get("reliability") if report else None
    if not bins:
        return None
    picture, (axes,) = canvas(4.2)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--")
    sizes = [20 + 280 * each["rows"] / max(one["rows"] for one in bins) for each in bins]
    places = [each["probability"] for each in bins], [each["right"] for each in bins]
    axes.scatter(*places, s=sizes, color=BLUE, edgecolor="white", zorder=3)
    axes.set(xlim=(0, 1.03), ylim=(0, 1.03))
    axes.set_xlabel("Probability that the model gives its decision")
    axes.set_ylabel("Share of these decisions that are right")
    return picture


def draw_scores(report: Measurements | None) -> Figure | None:
    """The mean true score over the mean score of the model; a point for each bin, as large as it has rows."""
    bins = report.details.get("score_bins") if report else None
    if not bins:
        return None
    picture, (axes,) = canvas(4.2)
    found, expected = ([each[side] for each in bins] for side in ("prediction", "reference"))
    ends = [min(*found, *expected), max(*found, *expected)]
    axes.plot(ends, ends, color=GREY, linewidth=1, linestyle="--")
    sizes = [20 + 280 * each["rows"] / max(one["rows"] for one in bins) for each in bins]
    deviations = [each["reference_std"] for each in bins]
    axes.errorbar(found, expected, yerr=deviations, linestyle="none", ecolor=GREY, elinewidth=1, capsize=3)
    axes.scatter(found, expected, s=sizes, color=BLUE, edgecolor="white", zorder=3)
    axes.set_xlabel("Score that the model gives")
    axes.set_ylabel("Mean true score, and its standard deviation")
    return picture


def draw_quality(quality: Measurements | None) -> Figure | None:
    """Bars of each model's mean of each task's main metric, with its standard deviation."""
    if not quality or not (scores := main_scores(quality)):
        return None
    models = [row.case for row in quality.rows if any(row.case in score.values for score in scores)]
    colours = dict(zip(models, itertools.cycle((GREY, BLUE, ORANGE, GREEN, PINK)), strict=False))
    picture, (axes,) = canvas(0.9 + 0.3 * len(scores) * (len(models) + 0.7))
    width = 0.84 / len(models)
    for place, model in enumerate(models):
        _bars(axes, scores, model, offset=(place - (len(models) - 1) / 2) * width, width=width, colour=colours[model])
    axes.set_yticks(range(len(scores)), [f"{score.title}\n{score.metric_title}" for score in scores])
    axes.set_ylim(len(scores) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.set_xlim(0, axes.get_xlim()[1] * 1.16)
    axes.set_xlabel("Score (higher is better); the bars are means over seeds, the lines one standard deviation")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=min(len(models), 4), frameon=False, fontsize=9)
    return picture


def _bars(axes: Axes, scores: Sequence[Score], model: str, *, offset: float, width: float, colour: str) -> None:
    """One model's bars, each with its value at the end."""
    shown = [(place + offset, score.values[model]) for place, score in enumerate(scores) if model in score.values]
    places, means = zip(*((place, value.mean) for place, value in shown), strict=True)
    axes.barh(places, means, width * 0.92, color=colour, label=model.capitalize().replace("-", " "))
    for place, value in shown:
        if value.std is not None:
            axes.errorbar(value.mean, place, xerr=value.std, ecolor="black", elinewidth=1.2, capsize=3)
        end = value.mean + (value.std or 0.0), place
        axes.annotate(value.text, end, (5, 0), textcoords="offset points", va="center", fontsize=9)
