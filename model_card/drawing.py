"""How every picture of the project is drawn: palette, canvas, axes, labels that do not cover each other."""

import dataclasses
import io
from collections.abc import Sequence

from adjustText import adjust_text
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter
from matplotlib.transforms import Bbox

from distilrubert.model_card.formatting import short_count

# Okabe and Ito's palette: different for any colour vision, and in lightness.
GREY, BLUE, SKY = "#5A5A5A", "#0072B2", "#56B4E9"
ORANGE, GREEN, PINK, RED = "#E69F00", "#009E73", "#CC79A7", "#D55E00"
PIXELS_PER_INCH = 160
FONT_SIZE = 9
# Half the width of a marker with some room around it, pixels.
MARKER = 14.0


def to_png(picture: Figure) -> bytes:
    """The picture's PNG, the same bytes each time."""
    buffer = io.BytesIO()
    picture.savefig(buffer, format="png", dpi=PIXELS_PER_INCH, metadata={"Software": None})
    return buffer.getvalue()


def canvas(height: float, panels: int = 1, columns: int = 2) -> tuple[Figure, list[Axes]]:
    """A picture as wide as a card, `height` inches high, and its panels, at most `columns` of them in a row."""
    picture = Figure(figsize=(7.6, height), layout="constrained")
    FigureCanvasAgg(picture)
    columns = min(panels, columns)
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
            axes.set(**{f"{name}lim": (0, high * 1.35)})


@dataclasses.dataclass(frozen=True)
class Mark:
    """A value of quality over another value.

    Attributes:
        x: the other value.
        y: the quality.
        error: half the length of the error bar; None for none.
        label: what is written beside it.
        colour: of all of it.
        marker: as matplotlib names it.
    """

    x: float
    y: float
    error: float | None
    label: str
    colour: str
    marker: str


def plot_marks(axes: Axes, marks: Sequence[Mark], *, least_room: float) -> None:
    """Draw marks with their error bars, on axes that leave room for labels: at least `least_room` above and below."""
    for mark in marks:
        axes.errorbar(mark.x, mark.y, yerr=mark.error or None, ecolor=mark.colour, elinewidth=1.2, capsize=3)
        axes.scatter(mark.x, mark.y, s=100, color=mark.colour, marker=mark.marker, edgecolor="white", zorder=3)
    scale(axes, [(mark.x, mark.y) for mark in marks])
    low = min(mark.y - (mark.error or 0.0) for mark in marks)
    high = max(mark.y + (mark.error or 0.0) for mark in marks)
    room = max(0.18 * (high - low), least_room)
    axes.set(yscale="linear", ylim=(low - room, high + room))
    if axes.get_xscale() == "log":
        # Room for the label of the largest.
        axes.set_xlim(right=4 * max(mark.x for mark in marks))


def label_marks(picture: Figure, axes: Axes, marks: Sequence[Mark]) -> None:
    """Write the label of each mark, once all else is drawn."""
    label_points(picture, axes, [(mark.x, mark.y) for mark in marks], [(mark.label, mark.colour) for mark in marks])


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
    """Write each label, in its colour, near its point, so that labels cover neither points nor each other."""
    # The axes must have their final size first.
    picture.draw_without_rendering()
    picture.set_layout_engine("none")
    # A line that leads to another label passes behind this one.
    background = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1}
    texts = [
        axes.text(x, y, text, color=colour, fontsize=FONT_SIZE, ha="center", va="center", bbox=background, zorder=2.5)
        for (x, y), (text, colour) in zip(points, labels, strict=True)
    ]
    adjust_text(
        texts,
        *zip(*points, strict=True),
        objects=[Bbox([place - MARKER, place + MARKER]) for place in axes.transData.transform(points)],
        ax=axes,
        # By number of iterations and not by time, so that the picture is the same each time.
        iter_lim=200,
        expand=(1.5, 2),
        force_text=(0.3, 0.5),
        force_pull=(0.03, 0.03),
        force_explode=(0.5, 1),
        max_move=(30, 30),
        explode_radius=80,
        arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.8},
    )
