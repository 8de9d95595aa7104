"""How every picture of the project is drawn: palette, canvas, axes, labels that do not cover each other."""

import dataclasses
import io
import math
from collections.abc import Sequence
from typing import Self

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from distilrubert.model_card.formatting import short_count

# Okabe and Ito's palette: told apart with any colour vision, and by lightness in grey.
GREY, BLUE, ORANGE, GREEN, PINK, RED = "#5A5A5A", "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00"
PIXELS_PER_INCH = 160
FONT_SIZE = 9
# Half the width of what is taken to be a marker, pixels.
MARKER = 8.0
Pixels = NDArray[np.float64]


# Where a label may stand, in points (1/72 inch) from its point to the side that it touches: beside it, above or below,
# and further away at the end of a line.
NEAR = [(9, 0), (-9, 0), (0, 9), (0, -9), (9, 9), (-9, 9), (9, -9), (-9, -9)]
FAR = [(x, y) for x in (16, -16, 44, -44) for y in (14, -14, 28, -28, 42, -42, 56, -56, 70, -70)]
# A line that covers something is as bad as a label that covers a hundred times as much; at last the nearest wins.
LINE_WEIGHT, DISTANCE_WEIGHT = 100.0, 0.05


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
    """Write each label, in its colour, as near to its point as it covers neither a point nor another label."""
    picture.draw_without_rendering()
    picture.set_layout_engine("none")
    places = axes.transData.transform(points)
    taken = [Bbox([place - MARKER, place + MARKER]) for place in places]
    lines: list[Bbox] = []
    # From the top, so that lines to labels that had to give way do not cross.
    for index in sorted(range(len(points)), key=lambda index: -places[index][1]):
        text, colour = labels[index]
        spots = [_Spot.at(places[index], _size_of(picture, text), offset, picture.dpi) for offset in NEAR + FAR]
        best = min(spots, key=lambda spot: spot.cost(taken, lines, axes.get_window_extent()))
        _annotate(axes, points[index], text, colour, best)
        taken.append(best.box)
        lines += best.line


@dataclasses.dataclass(frozen=True)
class _Spot:
    """Where a label could stand.

    Attributes:
        offset: of the side that touches its point, or its line, in points.
        box: the pixels that it fills, with a little room around it.
        line: small boxes along the line that leads to it; none where it touches its point.
    """

    offset: tuple[int, int]
    box: Bbox
    line: list[Bbox]

    @classmethod
    def at(cls, place: Pixels, size: Pixels, offset: tuple[int, int], dpi: float) -> Self:
        end = place + np.array(offset) * dpi / 72
        low = end - size * (1 - np.array(_direction(offset))) / 2
        steps = np.linspace(place, end, 12)[1:-1] if offset in FAR else np.empty((0, 2))
        # Not where it leaves a crowd of markers: there all lines meet.
        beyond = [step for step in steps if np.abs(step - place).max() > 2 * MARKER]
        return cls(offset, Bbox([low, low + size]).padded(2), [Bbox([step - 1, step + 1]) for step in beyond])

    def cost(self, taken: Sequence[Bbox], lines: Sequence[Bbox], frame: Bbox) -> float:
        """Pixels covered that something else fills, or that lie outside the frame; and a little for the distance."""
        outside = self.box.width * self.box.height - _overlap(self.box, frame)
        covered = sum(_overlap(self.box, other) for other in (*taken, *lines))
        crossed = sum(_overlap(step, other) for step in self.line for other in taken)
        return outside + covered + LINE_WEIGHT * crossed + DISTANCE_WEIGHT * math.hypot(*self.offset)


def _size_of(picture: Figure, text: str) -> Pixels:
    """Width and height of a label."""
    label = picture.text(0, 0, text, fontsize=FONT_SIZE)
    box = label.get_window_extent()
    label.remove()
    return np.array([box.width, box.height])


def _direction(offset: tuple[int, int]) -> tuple[int, int]:
    """On which side of the end of its offset a label lies: right and up are 1, left and down -1, 0 is centred."""
    right, up = np.sign(offset).tolist()
    # At the end of a line a label stands beside it, at half of its height.
    return (right, 0) if offset in FAR else (right, up)


def _annotate(axes: Axes, point: tuple[float, float], text: str, colour: str, spot: _Spot) -> None:
    right, up = _direction(spot.offset)
    side = (1 - right) / 2, (1 - up) / 2
    line = {"arrowstyle": "-", "color": colour, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 4, "relpos": side}
    axes.annotate(
        text,
        point,
        spot.offset,
        textcoords="offset points",
        ha={1: "left", 0: "center", -1: "right"}[right],
        va={1: "bottom", 0: "center", -1: "top"}[up],
        color=colour,
        fontsize=FONT_SIZE,
        arrowprops=line if spot.offset in FAR else None,
    )


def _overlap(one: Bbox, other: Bbox) -> float:
    common = Bbox.intersection(one, other)
    return common.width * common.height if common is not None else 0.0
