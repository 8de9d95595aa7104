"""The chart of ``run.py``: ``python chart.py inference.json inference.png``."""

import sys
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from distilrubert.common.measurements import Measurements

# Okabe and Ito's palette, told apart with any colour vision.
COLOURS = {
    "pytorch": "#0072B2", "onnx": "#D55E00", "openvino": "#009E73", "peer": "#CC79A7", "teacher": "#5A5A5A",
}  # fmt: skip
MARKERS = {
    "base": "o", "small": "s", "slim": "P", "narrow": "X", "tiny": "^", "tiny-256": "<", "tiny-5k": "v", "teacher": "D",
}  # fmt: skip


def draw(report: Measurements, path: Path) -> None:
    """Throughput over the file's size, both logarithmic: a colour for each runtime, a shape for each model.

    Peers are open marks. Throughput is that of real texts; older results have only sequences of 512 tokens.
    """
    picture = Figure(figsize=(8.4, 5.4), layout="constrained")
    FigureCanvasAgg(picture)
    axes = picture.add_subplot()
    is_of_texts = "inputs" in report.rows[0].values
    seen = set()
    for row in report.rows:
        model, runtime = _parts(row.case)
        seen |= {(model, "shape"), (runtime, "colour")}
        figures = row.values["inputs"]["texts"] if is_of_texts else row.values
        face, edge = ("none", COLOURS[runtime]) if runtime == "peer" else (COLOURS[runtime], "white")
        axes.scatter(
            row.values["size_mib"], figures["samples_per_s"], s=70, facecolor=face, edgecolor=edge,
            marker=MARKERS[model], zorder=3,
        )  # fmt: skip
    for model, marker in MARKERS.items():
        if (model, "shape") in seen:
            axes.scatter([], [], color="#333333", marker=marker, label=model)
    for runtime, colour in COLOURS.items():
        if (runtime, "colour") in seen and runtime != "teacher":
            face = "none" if runtime == "peer" else colour
            axes.scatter([], [], facecolor=face, edgecolor=colour, marker="s", label=runtime)
    unit = "texts/s" if is_of_texts else "samples/s"
    axes.set(xscale="log", yscale="log", xlabel="Size of the file, MiB", ylabel=f"Throughput, {unit}")
    what = "Dialogues and their speeches" if is_of_texts else f"{report.details['sequence_length']} tokens"
    axes.set_title(f"{what} on {report.environment.cpu}, {report.environment.threads} threads", loc="left", fontsize=11)
    axes.grid(color="#E3E3E3", which="both", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=9, ncols=2)
    picture.savefig(path, dpi=160, metadata={"Software": None})


def _parts(case: str) -> tuple[str, str]:
    """Model and runtime of a case: ``student-tiny-5k-onnx-int8`` is of tiny-5k and onnx."""
    if case.startswith("teacher"):
        return "teacher", "teacher"
    rest = case.removeprefix("student-")
    model = max((name for name in MARKERS if rest.startswith(f"{name}-")), key=len)
    return model, rest.removeprefix(f"{model}-").partition("-")[0]


if __name__ == "__main__":
    draw(Measurements.load(Path(sys.argv[1])), Path(sys.argv[2]))
