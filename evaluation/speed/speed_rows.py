"""From the seconds of single passes to the rows of a speed report."""

import collections
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilrubert.common.measurements import Row
from distilrubert.evaluation.speed.backends import BACKENDS
from distilrubert.evaluation.speed.size import size_mib


@dataclasses.dataclass
class Run:
    """A case on a device, and what was measured of it.

    Attributes:
        name: of its row.
        folder: of the model.
        backend: a key of :data:`~distilrubert.evaluation.speed.backends.BACKENDS`.
        device: cpu or cuda.
        vocabulary: number of token ids.
        positions: longest sequence that the model takes.
        parameters: of its checkpoint; None where the folder has none.
        seconds: of each pass, by batch size.
        memory: figures of the process, the most of all starts.
    """

    name: str
    folder: Path
    backend: str
    device: str
    vocabulary: int
    positions: int
    parameters: int | None
    seconds: dict[int, list[float]] = dataclasses.field(default_factory=lambda: collections.defaultdict(list))
    memory: dict[str, float] = dataclasses.field(default_factory=dict)


def speed_rows(runs: Sequence[Run], threads: int) -> list[Row]:
    """A row for each run, against the first one.

    Figures: latency_s (median of a pass at the smallest batch), samples_per_s (sequences a second at the largest
    batch, median over passes), latency_spread_s and samples_spread_per_s (their interquartile ranges), batches (for
    each size median_s, spread_s, minimum_s, maximum_s and passes), device, threads, parameters (None without a
    checkpoint), size_mib of the file that is run, peak_memory_mib of the process, gpu_peak_memory_mib of its tensors.
    `ratio` is the first run's latency over this one's. latency_ratio and throughput_ratio, better above 1, are against
    ratio_to, the first run on the same device.
    """
    figures = [_figures(run, threads) for run in runs]
    return [_row(run, own, runs, figures) for run, own in zip(runs, figures, strict=True)]


def _row(run: Run, own: dict[str, Any], runs: Sequence[Run], figures: Sequence[dict[str, Any]]) -> Row:
    index = [other.device for other in runs].index(run.device)
    relative = {
        "latency_ratio": figures[index]["latency_s"] / own["latency_s"],
        "throughput_ratio": own["samples_per_s"] / figures[index]["samples_per_s"],
        "ratio_to": runs[index].name,
    }
    return Row(run.name, {**own, **relative}, figures[0]["latency_s"] / own["latency_s"])


def _figures(run: Run, threads: int) -> dict[str, Any]:
    seconds = {size: np.array(values) for size, values in sorted(run.seconds.items())}
    smallest, largest = min(seconds), max(seconds)
    return {
        "latency_s": float(np.median(seconds[smallest])),
        "latency_spread_s": _spread(seconds[smallest]),
        "samples_per_s": float(np.median(largest / seconds[largest])),
        "samples_spread_per_s": _spread(largest / seconds[largest]),
        "batches": {str(size): _distribution(values) for size, values in seconds.items()},
        "device": run.device,
        "threads": threads,
        "parameters": run.parameters,
        "size_mib": size_mib(run.folder, BACKENDS[run.backend]),
        **run.memory,
    }


def _distribution(seconds: NDArray[np.float64]) -> dict[str, float]:
    return {
        "median_s": float(np.median(seconds)),
        "spread_s": _spread(seconds),
        "minimum_s": float(seconds.min()),
        "maximum_s": float(seconds.max()),
        "passes": len(seconds),
    }


def _spread(values: NDArray[np.float64]) -> float:
    """Interquartile range."""
    low, high = np.percentile(values, [25, 75])
    return float(high - low)
