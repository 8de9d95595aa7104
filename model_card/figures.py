"""The pictures of a card: speed against size, the course of training, quality with error bars."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter
from matplotlib.transforms import Bbox

from distilrubert.model_card.cases import BACKENDS, Case
from distilrubert.model_card.formatting import figure, short_count
from distilrubert.model_card.inputs import CardInput
from distilrubert.model_card.scores import Score, task_scores
from distilrubert.modeling.persistence import atomic_file
from distilrubert.modeling.reports import Measurements, Row

# Okabe and Ito's palette: told apart with any colour vision, and by lightness in grey.
GREY, BLUE, ORANGE, GREEN, PINK, RED = "#5A5A5A", "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00"
# Dark enough for text.
BACKEND_COLOURS = dict(zip(BACKENDS, (BLUE, RED, GREEN), strict=True))
LOSS_TITLES = {
    "loss": "Total loss",
    "kl": "KL to the teacher",
    "mlm": "Masked-token loss",
    "cosine": "Cosine distance of hidden states",
    "hidden": "Squared distance of hidden states",
    "attention": "Squared distance of attention maps",
}
PIXELS_PER_INCH = 160

Place = tuple[Literal["left", "center", "right"], Literal["bottom", "center", "top"]]
# Which part of a label touches its point, the best first: a label whose left touches it stands to the right.
PLACES: tuple[Place, ...] = (
    ("left", "center"), ("right", "center"), ("center", "bottom"), ("center", "top"),
    ("left", "bottom"), ("right", "bottom"), ("left", "top"), ("right", "top"),
)  # fmt: skip


def write_figures(run: CardInput, folder: Path) -> dict[str, str]:
    """Draw every figure whose report is there.

    Returns:
        Alternative text of each picture by its file's name in `folder`.
    """
    drawn = {
        "speed.png": ("Speed against size of the teacher and of each published file", draw_speed(run.speed)),
        "training.png": ("Losses over the tokens of the distillation", draw_training(run.training)),
        "quality.png": ("Scores of teacher and student on each task, with error bars", draw_quality(run.quality)),
    }
    for name, (_, picture) in drawn.items():
        if picture is None:
            (folder / name).unlink(missing_ok=True)
        else:
            with atomic_file(folder / name) as beside:
                beside.write_bytes(to_png(picture))
    return {name: alternative for name, (alternative, picture) in drawn.items() if picture is not None}


def to_png(picture: Figure) -> bytes:
    """The picture's PNG, the same bytes each time."""
    buffer = io.BytesIO()
    picture.savefig(buffer, format="png", dpi=PIXELS_PER_INCH, metadata={"Software": None})
    return buffer.getvalue()


def _canvas(height: float, panels: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure as wide as a card, `height` inches high, and its panels, two in a row where there are several."""
    picture = Figure(figsize=(7.6, height), layout="constrained")
    FigureCanvasAgg(picture)
    columns = min(panels, 2)
    axes = [picture.add_subplot(-(-panels // columns), columns, place + 1) for place in range(panels)]
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
        each.grid(color="#E3E3E3", linewidth=0.8)
        each.set_axisbelow(True)
        each.tick_params(labelsize=9)
    return picture, axes


def draw_speed(speed: Measurements | None) -> Figure | None:
    """Throughput on the CPU over the file's size, a labelled point each."""
    rows = [row for row in speed.rows if _on_cpu(row)] if speed else []
    if not rows:
        return None
    picture, (axes,) = _canvas(4.2)
    points = [(row.figures["size_mib"], row.figures["samples_per_s"]) for row in rows]
    for row, (size, throughput) in zip(rows, points, strict=True):
        marker = "s" if Case.parse(row.case).model == "teacher" else "o"
        axes.scatter(size, throughput, s=110, color=_colour(row), edgecolor="white", marker=marker, zorder=3)
    _scale(axes, points)
    axes.set_xlabel("Size of the file, MiB (smaller is better)")
    axes.set_ylabel("Throughput on the CPU, samples/s")
    axes.set_title("Speed against size: up and left is better", loc="left", fontsize=11)
    _label_points(picture, axes, points, [(_speed_label(row), _colour(row)) for row in rows])
    return picture


def _colour(row: Row) -> str:
    case = Case.parse(row.case)
    return GREY if case.model == "teacher" else BACKEND_COLOURS.get(case.backend, RED)


def _on_cpu(row: Row) -> bool:
    return not Case.parse(row.case).cuda and {"size_mib", "samples_per_s"} <= row.figures.keys()


def _speed_label(row: Row) -> str:
    return f"{Case.parse(row.case).label}\n{figure(row.figures['samples_per_s'])} samples/s"


def _scale(axes: Axes, points: Sequence[tuple[float, float]]) -> None:
    """Logarithmic where values differ by more than a factor of eight; room around the points for their labels."""
    for values, name in zip(zip(*points, strict=True), ("x", "y"), strict=True):
        axis = axes.xaxis if name == "x" else axes.yaxis
        low, high = min(values), max(values)
        if high > 8 * low:
            axes.set(**{f"{name}scale": "log", f"{name}lim": (low / 1.6, high * 1.8)})
            axis.set_minor_formatter(NullFormatter())
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        else:
            axes.set(**{f"{name}lim": (0, high * 1.22)})


def _label_points(
    picture: Figure, axes: Axes, points: Sequence[tuple[float, float]], labels: Sequence[tuple[str, str]]
) -> None:
    """Write each label, in its colour, beside its point where it covers neither a point nor another label."""
    picture.draw_without_rendering()
    picture.set_layout_engine("none")
    taken = [_around(*axes.transData.transform(point)) for point in points]
    for point, (text, colour) in zip(points, labels, strict=True):
        crowding = _crowding(taken, axes.get_window_extent())
        best = min(PLACES, key=lambda place: crowding(_annotate(axes, point, text, colour, place, remove=True)))
        taken.append(_annotate(axes, point, text, colour, best))


def _annotate(
    axes: Axes, point: tuple[float, float], text: str, colour: str, place: Place, *, remove: bool = False
) -> Bbox:
    """Write a label at a place beside its point, or only try to, and return the box that it fills."""
    horizontal, vertical = place
    offset = {"left": 9, "right": -9}.get(horizontal, 0), {"bottom": 9, "top": -9}.get(vertical, 0)
    label = axes.annotate(
        text, point, offset, textcoords="offset points", ha=horizontal, va=vertical, color=colour, fontsize=9
    )
    box = label.get_window_extent()
    if remove:
        label.remove()
    return box


def _crowding(taken: Sequence[Bbox], frame: Bbox) -> Callable[[Bbox], float]:
    """Area, in pixels, of a label's box that covers what is there or lies outside the frame."""

    def area(box: Bbox) -> float:
        return sum(_overlap(box, other) for other in taken) + box.width * box.height - _overlap(box, frame)

    return area


def _overlap(one: Bbox, other: Bbox) -> float:
    common = Bbox.intersection(one, other)
    return common.width * common.height if common is not None else 0.0


def _around(x: float, y: float, radius: float = 8.0) -> Bbox:
    return Bbox.from_extents(x - radius, y - radius, x + radius, y + radius)


def draw_training(training: Measurements | None) -> Figure | None:
    """One panel a loss, over the tokens seen: on the training text and, where it was measured, on held-out text."""
    curves = training.details.get("curves", []) if training else []
    losses = [name for name in LOSS_TITLES if len(_points(curves, name)) > 1]
    if not training or not losses:
        return None
    held_out = _with_tokens(training.details.get("validation", []), curves)
    picture, panels = _canvas(0.4 + 2.0 * -(-len(losses) // 2), panels=len(losses))
    for name, axes in zip(losses, panels, strict=True):
        axes.plot(*zip(*_points(curves, name), strict=True), color=BLUE, linewidth=1.6, label="training text")
        if points := _points(held_out, name):
            axes.plot(*zip(*points, strict=True), color=ORANGE, linewidth=1.6, marker="o", label="held-out text")
        axes.set_title(LOSS_TITLES[name], loc="left", fontsize=10)
        axes.set_xlabel("tokens seen", fontsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _ticks(value)))
        axes.margins(x=0.02)
    panels[0].legend(*panels[-1].get_legend_handles_labels(), frameon=False, fontsize=9)
    return picture


def _points(curve: Sequence[dict[str, float]], name: str) -> list[tuple[float, float]]:
    """The values of a loss by tokens."""
    return [(point["tokens"], point[name]) for point in curve if point.get(name) is not None]


def _with_tokens(validation: Sequence[dict[str, float]], curves: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    """Measurements on held-out text, which name their update only, with the tokens seen until then."""
    steps, tokens = [0.0, *(point["step"] for point in curves)], [0.0, *(point["tokens"] for point in curves)]
    return [{**point, "tokens": float(np.interp(point["step"], steps, tokens))} for point in validation]


def _ticks(value: float) -> str:
    return short_count(value).replace(" million", "M").replace(" billion", "B").replace(".0M", "M")


def draw_quality(quality: Measurements | None) -> Figure | None:
    """Bars of each model's mean of each task's main metric, with its standard deviation."""
    if not quality or not (scores := _main_scores(quality)):
        return None
    models = [row.case for row in quality.rows if any(row.case in score.values for score in scores)]
    colours = dict(zip(models, (GREY, BLUE, ORANGE, GREEN, PINK), strict=False))
    picture, (axes,) = _canvas(0.9 + 0.3 * len(scores) * (len(models) + 0.7))
    width = 0.84 / len(models)
    for place, model in enumerate(models):
        _bars(axes, scores, model, offset=(place - (len(models) - 1) / 2) * width, width=width, colour=colours[model])
    axes.set_yticks(range(len(scores)), [f"{score.title}\n{score.metric_title}" for score in scores])
    axes.set_ylim(len(scores) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.set_xlim(0, axes.get_xlim()[1] * 1.16)
    axes.set_xlabel("Score (higher is better); the bars are means over seeds, the lines one standard deviation")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(models), frameon=False, fontsize=9)
    return picture


def _main_scores(quality: Measurements) -> list[Score]:
    """The first metric of each task."""
    return list({score.task: score for score in reversed(task_scores(quality))}.values())[::-1]


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
