"""Tables of what a large corpus costs."""

from collections.abc import Iterator
from functools import partial

import numpy as np
from documented.view import Entry, Table, View, all_rows

from distilrubert.common.measurements import Measurements
from distilrubert.distill.corpus.build import REMEMBERED_KEYS


def of_kind(report: Measurements, kind: str) -> list[Entry]:
    """The rows ``KIND-SIZE``, by the size of the text."""
    rows = [row for row in all_rows(report) if row["case"].startswith(f"{kind}-")]
    return sorted(rows, key=lambda row: float(row.get("bytes", row.get("sequences"))))


def scale_speed(report: Measurements) -> str:
    """CPU time of preparing a corpus beside that of the tokenizer alone."""
    row = report["throughput"]
    bare, whole = (np.median(row.values["cpu_s"][work]) for work in ("bare", "prepare"))
    megabytes, processes = row.values["bytes"] / 1e6, report.details["processes"]
    repeated = "no text is repeated" if row.values["copies"] <= 1 else "text is repeated"
    return (
        f"Preparing {megabytes:.0f} MB with {processes} tokenising processes took {whole:.1f} CPU seconds, the "
        f"tokenizer alone {bare:.1f}: {row.ratio:.0%} of its speed\n"
        f"(medians of {len(row.values['cpu_s']['bare'])}; {repeated}).\n"
    )


def memory_laws(report: Measurements) -> str:
    """The line through the memory of the two smallest sizes."""
    laws = []
    small, large = of_kind(report, "memory")[:2]
    most = REMEMBERED_KEYS / 1e6
    for peak, name in (("peak_mib", "the preparing process"), ("worker_peak_mib", "a tokenising one")):
        millions = [row["texts"] / 1e6 for row in (small, large)]
        slope, start = np.polyfit(millions, [row[peak] for row in (small, large)], 1)
        at_ten = min(10 * large["texts"] / large["bytes"] * 1e3, most)
        laws.append(f"{name} {start:.0f} + {slope:.1f} × million texts, {start + at_ten * slope:.0f} at 10 GB")
    return (
        "The line through both sizes, in MiB: " + ";\n".join(laws) + f"\n(extrapolated, not measured; from {most:.0f} "
        "million texts on a process remembers no more of them)."
    )


def planning(report: Measurements) -> Iterator[Entry]:
    """What a rank takes to plan an epoch."""
    for row in of_kind(report, "planning"):
        yield {**row, "note": " (simulated)" if row["simulated"] else ""}


def scale_parts(report: Measurements) -> str:
    """The same corpus by different numbers of processes."""
    [row] = of_kind(report, "parts")
    *others, last = row["seconds"]
    same = "the same to the byte" if row["identical"] else "NOT the same"
    return (
        f"{row['bytes'] / 1e9:.2g} GB by {', '.join(others)} and {last} processes, one of the {last} killed after "
        f"its first shard: {same}.\n"
    )


VIEWS: dict[tuple[str, str], Table] = {
    ("scale", "speed"): scale_speed,
    ("scale", "memory"): View(
        "GB of text | preparing process, MiB | largest tokenising process, MiB | CPU seconds of all",
        "{bytes:GB g} | {peak_mib:.0f} | {worker_peak_mib:.0f} | {cpu_s:.0f}",
        partial(of_kind, kind="memory"),
        memory_laws,
    ),
    ("scale", "planning"): View(
        "sequences | windows | before the first, CPU s | a window, CPU s | peak, MiB | of it before planning",
        "{sequences:,}{note} | {windows} | {begin_cpu_s:.1f} | {window_cpu_s:.1f} | {peak_mib:.0f} "
        "| {peak_before_mib:.0f}",
        planning,
    ),
    ("scale", "parts"): scale_parts,
}
