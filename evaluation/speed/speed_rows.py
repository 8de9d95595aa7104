"""From the times of single passes to the rows of a speed report.

A start is one process of a case. Its time is the median of its passes, so that a fast start, which makes more passes,
has no more weight than a slow one. What a row says of a case is the median over the starts. Start k of a case is
compared with start k of the baseline: both took turns, so a machine that was slower then was slower for both.
"""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distilrubert.common.formats import FormatCase
from distilrubert.common.measurements import Row

VERSION = 1
"""To be raised with every change by which the same settings measure otherwise: runs measure speed again then."""


@dataclasses.dataclass
class Run:
    """A case on a device, and what was measured of it.

    Attributes:
        vocabulary: number of token ids.
        positions: longest sequence that the model takes.
        parameters: of its checkpoint; None where the folder has none.
        seconds: of each pass of each start, by batch size.
        memory: peaks of the process, the largest of all starts.
    """

    name: str
    folder: Path
    case: FormatCase
    device: str
    vocabulary: int
    positions: int
    parameters: int | None
    seconds: dict[int, list[list[float]]] = dataclasses.field(default_factory=lambda: collections.defaultdict(list))
    memory: dict[str, float] = dataclasses.field(default_factory=dict)


def speed_rows(runs: Sequence[Run], threads: int) -> list[Row]:
    """A row for each run, against the first one.

    The raw values of a row are in ``batches``: for each batch size ``starts_s``, the median time of a pass in each
    start, and ``passes``, their number in each start. The rest is derived from them: ``median_s`` in ``batches`` and
    the values of :func:`times_of` and, against the first run on the same device, of :func:`ratios_of`. That run's name
    is ``ratio_to``. ``ratio`` is the latency ratio to the first run of all.

    Besides a row has starts, device, threads, hint (the number format of the arithmetic), parameters (None without a
    checkpoint), size_mib of the files, peak_memory_mib of the process, gpu_peak_memory_mib of its tensors.
    """
    batches = [_batches(run) for run in runs]
    rows = []
    for run, own in zip(runs, batches, strict=True):
        index = [other.device for other in runs].index(run.device)
        values = {
            **times_of(own),
            **ratios_of(own, batches[index]),
            "ratio_to": runs[index].name,
            "batches": own,
            "device": run.device,
            "threads": threads,
            "hint": run.case.hint,
            "parameters": run.parameters,
            "size_mib": run.case.format.size_mib(run.folder),
            **run.memory,
        }
        rows.append(Row(run.name, values, ratios_of(own, batches[0])["latency_ratio"]))
    return rows


def times_of(batches: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What the times of a row's starts come to.

    Returns:
        latency_s, of a pass at the smallest batch size, and samples_per_s, sequences a second at the largest one, each
        the median over the starts; their interquartile ranges latency_spread_s and samples_spread_per_s; starts.
    """
    smallest, largest = min(batches, key=int), max(batches, key=int)
    latencies = np.array(batches[smallest]["starts_s"])
    rates = int(largest) / np.array(batches[largest]["starts_s"])
    return {
        "latency_s": float(np.median(latencies)),
        "latency_spread_s": float(np.subtract(*np.percentile(latencies, [75, 25]))),
        "samples_per_s": float(np.median(rates)),
        "samples_spread_per_s": float(np.subtract(*np.percentile(rates, [75, 25]))),
        "starts": len(latencies),
    }


def ratios_of(batches: Mapping[str, Mapping[str, Any]], baseline: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """How many times faster a case is than a baseline with as many starts, start by start; better above 1.

    Returns:
        latency_ratio and throughput_ratio, the medians over the starts; latency_ratio_range and throughput_ratio_range,
        the least and the largest of a start.
    """
    found: dict[str, Any] = {}
    for name, size in (("latency_ratio", min(batches, key=int)), ("throughput_ratio", max(batches, key=int))):
        ratios = np.array(baseline[size]["starts_s"]) / np.array(batches[size]["starts_s"])
        found[name] = float(np.median(ratios))
        found[f"{name}_range"] = [float(ratios.min()), float(ratios.max())]
    return found


def _batches(run: Run) -> dict[str, dict[str, Any]]:
    found = {}
    for size, starts in sorted(run.seconds.items()):
        medians = [float(np.median(seconds)) for seconds in starts]
        found[str(size)] = {
            "median_s": float(np.median(medians)),
            "starts_s": medians,
            "passes": [len(seconds) for seconds in starts],
        }
    return found
