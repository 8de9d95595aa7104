"""The pictures of the results: scores, quality against size, learning curves, what each loss is good for."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from comparisons import ABLATED_STUDENT, Comparison
from encoders import FILES, MARKERS, EncoderPoint, draw_encoders
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from results import (
    BAG_OF_WORDS,
    HELD_OUT,
    TEACHER,
    Point,
    Result,
    all_tasks,
    common_tasks,
    file_points,
)

from distilrubert.common.measurements import Measurements
from distilrubert.common.persistence import atomic_file
from distilrubert.model_card.card_pictures import points_of, with_tokens
from distilrubert.model_card.drawing import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PINK,
    RED,
    SKY,
    Mark,
    canvas,
    label_marks,
    label_points,
    over_tokens,
    plot_marks,
    to_png,
)
from distilrubert.model_card.formatting import listing
from distilrubert.model_card.scores import Value

# By the recipe that a model is made from.
COLOURS = {
    "reference-base": BLUE,
    "reference-narrow": SKY,
    "reference-slim": RED,
    "reference-small": GREEN,
    "reference-tiny": ORANGE,
    "reference-tiny-5k": PINK,
}
PALE = 0.45
PALE_GREY = "#BDBDBD"
# Line and label of a model's curve by the end of its name; others are not drawn.
CURVES = {"": ("-", "distilled"), "-mlm-only": ("--", "MLM only")}
PEER = "peer"
RUNTIMES = {"pytorch": "o", "onnx": "s", "openvino": "^", PEER: "D"}


def write_pictures(
    results: Sequence[Result],
    ablation: Mapping[str, Sequence[Comparison]],
    folder: Path,
    encoders: Sequence[EncoderPoint],
    measure: str,
    shapes: Sequence[Result],
    speeds: Measurements | None,
) -> dict[str, str]:
    """Draw every picture for which there are results, and remove the others.

    Returns:
        Alternative text of each picture by its name, without ``.png``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    points = file_points(results)
    compared = listing([all_tasks(results)[task].partition(",")[0] for task in common_tasks(results)])
    drawn = {
        "scores": (
            "Score of each model on each task, with its standard deviation over the seeds",
            draw_scores(results),
        ),
        "size": (
            f"Share of the teacher's gain over the majority class on {compared} against the size of a file",
            draw_size(points, compared),
        ),
        "throughput": ("Quality of each shape against the throughput of its files", draw_throughput(shapes, speeds)),
        "curves": ("Loss on held-out text over the tokens seen, with and without distillation", draw_curves(results)),
        "ablation": (f"What {ABLATED_STUDENT} gains from each of its losses", draw_ablation(ablation)),
        "encoders-size": (
            "Score of encoders of sentences against the size of a file",
            draw_encoders(encoders, measure, "size_mib"),
        ),
        "encoders-speed": (
            "Score of encoders of sentences against their speed",
            draw_encoders(encoders, measure, "speed"),
        ),
    }
    for name, (_, picture) in drawn.items():
        path = folder / f"reference-{name}.png"
        if picture is None:
            path.unlink(missing_ok=True)
        else:
            with atomic_file(path) as beside:
                beside.write_bytes(to_png(picture))
    return {name: alternative for name, (alternative, picture) in drawn.items() if picture is not None}


def draw_scores(results: Sequence[Result]) -> Figure | None:
    """A panel a task: a bar a model, the teacher and the bag of words as lines."""
    titles = all_tasks(results)
    if not titles:
        return None
    bars = [sum(task in result.tasks for result in results) for task in titles]
    # Two panels stand side by side, and are as high as the one with more bars.
    rows = [max(bars[place : place + 2]) for place in range(0, len(bars), 2)]
    heights = [0.9 + 0.27 * row for row in rows]
    picture, panels = canvas(sum(heights), panels=len(titles))
    grid = panels[0].get_gridspec()
    assert grid is not None
    grid.set_height_ratios(heights)
    for number, (task, axes) in enumerate(zip(titles, panels, strict=True)):
        shown = [result for result in results if task in result.tasks]
        values = [result.score(result.model.name, task) for result in shown]
        _bars(axes, [result.model.name for result in shown], values, [_colour(result) for result in shown])
        axes.set_title(titles[task], loc="left", fontsize=10)
        _line(axes, shown[0].score(TEACHER, task).mean, "teacher", GREY, "-")
        if any(row.case == BAG_OF_WORDS and task in row.values["tasks"] for row in shown[0].report.rows):
            _line(axes, shown[0].score(BAG_OF_WORDS, task).mean, "bag of words", RED, ":")
        axes.set_ylim(rows[number // 2] - 0.5, -0.5)
        # Below the numbers of the axis, whatever the height of the panel: the distance is in letters.
        place = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "borderaxespad": 2.5}
        axes.legend(**place, ncols=2, frameon=False, fontsize=8, handlelength=1.5, columnspacing=1.2)
    return picture


def _colour(result: Result) -> tuple[str, float]:
    """The colour of a family, pale for models that are only compared with its student."""
    return COLOURS[result.model.recipe], 1.0 if result.model.has_files else PALE


def _bars(axes: Axes, names: Sequence[str], values: Sequence[Value], colours: Sequence[tuple[str, float]]) -> None:
    places = range(len(values))
    axes.barh(places, [value.mean for value in values], 0.72, color=colours)
    for place, value in zip(places, values, strict=True):
        if value.std is not None:
            axes.errorbar(value.mean, place, xerr=value.std, ecolor="black", elinewidth=1.2, capsize=3)
        end = value.mean + (value.std or 0.0), place
        label = axes.annotate(f"{value.mean:.3f}", end, (5, 0), textcoords="offset points", va="center", fontsize=8)
        label.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1.0, "alpha": 0.85})
    axes.set_yticks(places, names)
    axes.grid(visible=False, axis="y")
    axes.set_xlim(0, axes.get_xlim()[1] * 1.16)


def _line(axes: Axes, value: float, title: str, colour: str, style: str) -> None:
    axes.axvline(value, color=colour, linewidth=1.4, linestyle=style, label=f"{title} {value:.3f}", zorder=0.5)


def draw_size(points: Sequence[Point], compared: str) -> Figure | None:
    """The gain over the majority class on some tasks, as a share of the teacher's, against the size of each file."""
    if len(points) < 2:
        return None
    picture, (axes,) = canvas(4.6)
    marks = []
    for point in points:
        gain = _percent(point.gain)
        label = f"{point.model}, {FILES[point.file]}\n{point.size_mib:.3g} MiB, {gain.mean:.1f} %"
        colour = GREY if point.model == TEACHER else COLOURS[point.result.model.recipe]
        marks.append(Mark(point.size_mib, gain.mean, gain.std, label, colour, MARKERS[point.file]))
    plot_marks(axes, marks, least_room=2.0)
    axes.axhline(100.0, color=GREY, linewidth=1.0, linestyle="--", zorder=0.5)
    axes.set_xlabel("Weights, MiB (fewer is better)")
    axes.set_ylabel("Share of the teacher's gain over the majority class, %")
    axes.set_title(f"Quality on {compared} against size: up and left is better", loc="left", fontsize=11)
    label_marks(picture, axes, marks)
    return picture


def draw_throughput(shapes: Sequence[Result], speeds: Measurements | None) -> Figure | None:
    """The share of the teacher's gain over the texts a second of each file of a shape; peers' files are open marks."""
    tasks = common_tasks(shapes) if shapes and speeds else []
    if not tasks or speeds is None:
        return None
    picture, (axes,) = canvas(4.6)
    students = [result for result in shapes if result.model.has_files]
    labels, places = [], []
    for result in students:
        gain, colour = _percent(result.gain(tasks)), COLOURS[result.model.recipe]
        files = _throughputs(result.model.name, speeds)
        for kind, throughput in files:
            face = "white" if kind == PEER else colour
            axes.scatter(
                throughput,
                gain.mean,
                s=60,
                color=face,
                edgecolor=colour,
                marker=RUNTIMES[kind],
                linewidth=1.2,
                zorder=3,
            )
        if files:
            labels.append((f"{result.model.name}, {gain.mean:.1f} %", colour))
            places.append((max(throughput for _, throughput in files), gain.mean))
    if not places:
        return None
    axes.set(xscale="log", xlabel="Texts a second", ylabel="Share of the teacher's gain over the majority class, %")
    axes.margins(x=0.25, y=0.2)
    for kind, marker in RUNTIMES.items():
        face = "white" if kind == PEER else GREY
        axes.scatter([], [], color=face, edgecolor=GREY, marker=marker, label=kind)
    axes.legend(frameon=False, fontsize=8)
    compared = listing([all_tasks(shapes)[task].partition(",")[0] for task in tasks])
    axes.set_title(f"Quality on {compared} against throughput: up and right is better", loc="left", fontsize=11)
    label_points(picture, axes, places, labels)
    return picture


def _throughputs(model: str, speeds: Measurements) -> list[tuple[str, float]]:
    """The runtime and the texts a second of each file of a student."""
    found = []
    for row in speeds.rows:
        runtime = row.case.removeprefix(f"student-{model}-").partition("-")[0]
        if runtime in RUNTIMES:
            found.append((runtime, row.values["inputs"]["texts"]["samples_per_s"]))
    return found


def _percent(value: Value) -> Value:
    return Value(100 * value.mean, None if value.std is None else 100 * value.std, value.seeds)


def draw_curves(results: Sequence[Result]) -> Figure | None:
    """A panel a recipe of which there are several models: the masked-token loss on held-out text."""
    families: dict[str, list[tuple[str, list[tuple[float, float]]]]] = {}
    for result in results:
        details, student = result.report.details, result.model.recipe.removeprefix("reference-")
        points = points_of(with_tokens(details["validation"], details["curves"]), "mlm")
        kind = result.model.name.removeprefix(student)
        if len(points) > 1 and kind in CURVES:
            families.setdefault(student, []).append((kind, points))
    compared = {student: shown for student, shown in families.items() if len(shown) > 1}
    if not compared:
        return None
    picture, panels = canvas(0.4 + 2.6 * -(-len(compared) // 2), panels=len(compared))
    for (student, shown), axes in zip(compared.items(), panels, strict=True):
        for kind, points in shown:
            style, label = CURVES[kind]
            colour = COLOURS[f"reference-{student}"]
            axes.plot(*zip(*points, strict=True), linestyle=style, color=colour, linewidth=1.8, label=label)
        axes.set_title(f"{student}: masked-token loss, nats", loc="left", fontsize=10)
        over_tokens(axes)
        axes.legend(frameon=False, fontsize=8)
    return picture


def draw_ablation(ablation: Mapping[str, Sequence[Comparison]]) -> Figure | None:
    """A panel a measure: by how much the student is better than the same without one of its losses."""
    measures = list(dict.fromkeys(each.title for comparisons in ablation.values() for each in comparisons))
    if not measures:
        return None
    lower = {title for title, _, is_more_better in HELD_OUT.values() if not is_more_better}
    picture, panels = canvas((0.75 + 0.3 * len(ablation)) * -(-len(measures) // 2), panels=len(measures))
    for measure, axes in zip(measures, panels, strict=True):
        sign = -1 if measure in lower else 1
        found = {loss: each for loss, comparisons in ablation.items() for each in comparisons if each.title == measure}
        gains = [sign * each.difference for each in found.values()]
        colours = {True: GREEN, False: RED, None: PALE_GREY}
        axes.barh(range(len(found)), gains, 0.66, color=[colours[each.is_better] for each in found.values()])
        axes.xaxis.set_major_locator(MaxNLocator(4))
        for place, (gain, each) in enumerate(zip(gains, found.values(), strict=True)):
            if each.error is not None:
                axes.errorbar(gain, place, xerr=each.error, ecolor="black", elinewidth=1.2, capsize=3)
            side = 1 if gain > 0 else -1
            axes.annotate(
                f"{gain:+.{2 if abs(gain) >= 0.1 else 3}f}",
                (gain + side * (each.error or 0.0), place),
                (5 * side, 0),
                textcoords="offset points",
                va="center",
                ha="left" if side > 0 else "right",
                fontsize=8,
            )
        axes.axvline(0, color="black", linewidth=1.0)
        axes.margins(x=0.3)
        axes.set_yticks(range(len(found)), list(found))
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_title(f"{measure}: {'lower' if sign < 0 else 'higher'} by", loc="left", fontsize=7.5)
    return picture
