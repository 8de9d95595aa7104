"""Encoders of sentences by score, size and speed, with the models that Encodechka has measured beside them."""

import dataclasses
import statistics
from collections.abc import Sequence

from matplotlib.figure import Figure

from distilrubert.common.derived import derive
from distilrubert.common.measurements import Measurements, Row
from distilrubert.model_card.drawing import BLUE, GREEN, GREY, ORANGE, PINK, canvas, label_points, scale

TEACHER = "teacher"
COLOURS = (BLUE, ORANGE, GREEN, PINK)
OPEN = "#8A8A8A"
AXES = {
    "size_mib": "Weights, MiB (fewer is better)",
    "speed": "Texts a second over the teacher's in PyTorch (more is better)",
}
MARKERS = {"pytorch-fp32": "o", "onnx-int8": "s", "openvino-int8": "^"}
FILES = {"pytorch-fp32": "PyTorch", "onnx-int8": "ONNX int8", "openvino-int8": "OpenVINO int8"}
NO_VALUE = "–"


@dataclasses.dataclass(frozen=True)
class EncoderPoint:
    """A file of an encoder.

    Attributes:
        model: its name.
        file: a key of :data:`FILES`; empty: of the yardstick.
        score: the mean over the tasks.
        size_mib: of the file; None where it is not known.
        speed: texts a second over the teacher's in PyTorch; None where it was not measured.
        milliseconds: for a text by itself; None where it was not measured.
    """

    model: str
    file: str
    score: float
    size_mib: float | None = None
    speed: float | None = None
    milliseconds: float | None = None

    @property
    def label(self) -> str:
        """For a picture."""
        return f"{self.model}, {FILES[self.file]}" if self.file else self.model


def encoder_points(scores: Measurements, speeds: Measurements | None) -> list[EncoderPoint]:
    """What was measured, and after it the yardstick: its published scores over the same tasks."""
    rows = {row.case: row for row in derive(speeds).rows} if speeds else {}
    points = []
    for row in derive(scores).rows:
        file = next((file for file in FILES if row.case.endswith(f"-{file}")), None)
        if file:
            model = row.case.removesuffix(f"-{file}")
            score, size = row.values["mean_score"], row.values.get("size_mib")
            points.append(EncoderPoint(model, file, score, size, *_speeds(rows.get(row.case))))
    tasks = None if not scores.details["absent"] else [*scores.details["tasks"]]
    for case, published in (speeds.details["yardstick"] if speeds else {}).items():
        if tasks is None or set(tasks) <= published["scores"].keys():
            score = statistics.fmean(published["scores"][task] for task in tasks) if tasks else published["mean_score"]
            name = case.partition("-")[2]
            points.append(EncoderPoint(name, "", score, published["size_mib"], *_speeds(rows.get(case))))
    return points


def _speeds(row: Row | None) -> tuple[float, float] | tuple[None, None]:
    return (row.values["throughput_ratio"], 1000 * row.values["latency_s"]) if row else (None, None)


def measure_title(scores: Measurements) -> str:
    """What the score is."""
    tasks, title = scores.details["tasks"], scores.details["suite"]["title"]
    if not scores.details["absent"]:
        return f"mean of the {len(tasks)} tasks of {title} (S)"
    return f"mean of {len(tasks)} tasks of {title}, {', '.join(tasks)}"


def encoder_table(points: Sequence[EncoderPoint]) -> str:
    """Score, size and speed of each, in Markdown."""
    headings = ["model", "file", "score", "weights, MiB", "texts/s over the teacher's", "ms a text"]
    lines = ["| " + " | ".join(headings) + " |", "|---|---|" + "---:|" * (len(headings) - 2)]
    for point in points:
        cells = [
            f"{point.score:.3f}",
            _cell(point.size_mib, "{:.1f}"),
            _cell(point.speed, "{:.1f}"),
            _cell(point.milliseconds, "{:.1f}"),
        ]
        file = FILES.get(point.file, "PyTorch, published score")
        lines.append(f"| {point.model} | {file} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(value: float | None, form: str) -> str:
    return NO_VALUE if value is None else form.format(value)


def draw_encoders(points: Sequence[EncoderPoint], measure: str, axis: str) -> Figure | None:
    """The score over the size (`axis` is ``size_mib``) or the speed (``speed``); the yardstick's are open marks.

    None where fewer than two files have that value.
    """
    known = [(getattr(point, axis), point) for point in points if getattr(point, axis) is not None]
    if len(known) < 2:
        return None
    models = dict.fromkeys(point.model for _, point in known if point.file and point.model != TEACHER)
    colours = {TEACHER: GREY, **dict(zip(models, COLOURS, strict=False))}
    picture, (axes,) = canvas(5.0)
    for value, point in known:
        colour = colours.get(point.model, OPEN)
        face = colour if point.file else "white"
        marker = MARKERS.get(point.file, "D")
        axes.scatter(value, point.score, s=80, color=face, edgecolor=colour, linewidth=1.4, marker=marker, zorder=3)
    places = [(value, point.score) for value, point in known]
    scale(axes, places)
    # Room for the names of the slowest and the fastest, or of the smallest and the largest.
    axes.set_xlim(min(value for value, _ in known) / 2.5, 4 * max(value for value, _ in known))
    low, high = (limit(point.score for _, point in known) for limit in (min, max))
    room = max(0.2 * (high - low), 0.01)
    axes.set(yscale="linear", ylim=(low - room, high + room), xlabel=AXES[axis], ylabel=measure)
    label_points(picture, axes, places, [(point.label, colours.get(point.model, OPEN)) for _, point in known])
    return picture
