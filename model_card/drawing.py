"""How every picture of the project is drawn: palette, canvas, axes, labels that do not cover each other."""

import io
from collections.abc import Callable, Sequence
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter
from matplotlib.transforms import Bbox

from distilrubert.model_card.formatting import short_count

# Okabe and Ito's palette: told apart with any colour vision, and by lightness in grey.
GREY, BLUE, ORANGE, GREEN, PINK, RED = "#5A5A5A", "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00"
PIXELS_PER_INCH = 160

Place = tuple[Literal["left", "center", "right"], Literal["bottom", "center", "top"]]
# Which part of a label touches its point, the best first: a label whose left touches it stands to the right.
PLACES: tuple[Place, ...] = (
    ("left", "center"), ("right", "center"), ("center", "bottom"), ("center", "top"),
    ("left", "bottom"), ("right", "bottom"), ("left", "top"), ("right", "top"),
)  # fmt: skip


def to_png(picture: Figure) -> bytes:
    """The picture's PNG, the same bytes each time."""
    buffer = io.BytesIO()
    picture.savefig(buffer, format="png", dpi=PIXELS_PER_INCH, metadata={"Software": None})
    return buffer.getvalue()


def canvas(height: float, panels: int = 1) -> tuple[Figure, list[Axes]]:
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


def scale(axes: Axes, points: Sequence[tuple[float, float]]) -> None:
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


def over_tokens(axes: Axes) -> None:
    """Tokens seen along the horizontal axis, in short."""
    axes.set_xlabel("tokens seen", fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _ticks(value)))
    axes.margins(x=0.02)


def _ticks(value: float) -> str:
    return short_count(value).replace(" million", "M").replace(" billion", "B").replace(".0M", "M")


def label_points(
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
