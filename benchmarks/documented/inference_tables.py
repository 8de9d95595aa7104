"""Tables of how fast files are, and of where their time goes."""

import re
import statistics
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from documented.view import Entry, Table, View, all_rows

from distilrubert.common.derived import derive
from distilrubert.common.measurements import Measurements
from distilrubert.evaluation.speed.speed_settings import STARTS

OF_BASE = re.compile("teacher|student-base")
# All files of base, and of the smaller students those that everybody has: the rest is in the JSON.
COMMON = re.compile(rf"{OF_BASE.pattern}|(?!.*(-avx|-two-streams|-in-fp32|-in-bf16))")
# What a user chooses from.
CHOICES = re.compile("teacher-pytorch-fp32|student-.+-(pytorch-fp32|onnx-int8|openvino-(fp32|int8)(-in-bf16)?)$")
# A file of ours, and the shape of its model.
OF_SHAPE = re.compile("student-((?!.*(-peer-|-two-streams)).+?)-(?=pytorch|onnx|openvino)")
# Our files that a peer is compared with: the first of them that was measured.
COUNTERPARTS = {
    "nncf-int8": ("openvino-int8",),
    "nncf-int8-in-bf16": ("openvino-int8-in-bf16",),
    "nncf-int8-in-fp32": ("openvino-int8-in-fp32", "openvino-int8"),
    "ortquantizer-int8": ("onnx-int8-avx512-vnni", "onnx-int8"),
    "ortoptimizer-int8": ("onnx-int8-avx512-vnni", "onnx-int8"),
    "pytorch-compiled": ("openvino-fp32",),
    "pytorch-compiled-in-bf16": ("openvino-fp32-in-bf16",),
    "pytorch-int8": ("openvino-int8",),
    "ctranslate2-int8": ("openvino-int8",),
}
# Kinds of input of the inference benchmark.
INPUTS = {"512-tokens": "512 tokens", "128-tokens": "128 tokens", "32-tokens": "32 tokens", "texts": "texts"}
SPEEDS = (
    "case | MiB | latency, ms | × | samples/s | × | of the ceiling",
    "{case}{note} | {size_mib:.1f} | {latency_s:ms .1f} | {latency_gain} | {samples_per_s:.1f} | {throughput_gain} "
    "| {share_of_ceiling:.0%}",
)


def speeds(report: Measurements, shown: re.Pattern[str] = re.compile("")) -> Iterator[Entry]:
    """The cases that are shown, with their ratios and, where the file has it, the range over the starts."""
    for row in all_rows(report):
        if shown.match(row["case"]):
            for name in ("latency", "throughput"):
                low, high = row.get(f"{name}_ratio_range", (None, None))
                row[f"{name}_gain"] = f"{row[f'{name}_ratio']:.1f}"
                row[f"{name}_gain"] += "" if low is None else f" ({low:.1f} to {high:.1f})"
            row["note"] = " (latency of a pair)" if row["case"].endswith("two-streams") else ""
            yield {**row, "file": row["case"].removeprefix("student-")}


def few_starts(report: Measurements) -> str:
    """A warning below values that rest on few starts; they are also medians over all passes of all starts."""
    starts = min(row.values.get("starts", report.details.get("starts", 1)) for row in report.rows)
    if starts >= STARTS:
        return ""
    number = "One start" if starts == 1 else f"{starts} starts"
    return f"{number} of each case, fewer than {STARTS}: one slow or fast start moves these values."


def inputs_of(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """A row's figures for each kind of input; older results have sequences of 512 tokens alone."""
    found: Mapping[str, Any] = values.get("inputs", {"512-tokens": values})
    return found


def peers(report: Measurements) -> Iterator[Entry]:
    """Our file of the same kind against each peer: how many times faster it is, by kind of input."""
    cases = {row.case: row.values for row in report.rows}
    for case, peer in cases.items():
        model, _, name = case.partition("-peer-")
        ours = next((f"{model}-{kind}" for kind in COUNTERPARTS.get(name, ()) if f"{model}-{kind}" in cases), None)
        if ours:
            gains = {
                kind: (
                    figures["latency_s"] / inputs_of(cases[ours])[kind]["latency_s"],
                    inputs_of(cases[ours])[kind]["samples_per_s"] / figures["samples_per_s"],
                )
                for kind, figures in inputs_of(peer).items()
            }
            cells = {kind: f"{latency:.2f}, {throughput:.2f}" for kind, (latency, throughput) in gains.items()}
            yield {"case": case, "ours": ours, "gains": gains, "cells": {**dict.fromkeys(INPUTS, ""), **cells}}


def shapes(report: Measurements) -> Iterator[Entry]:
    """How many times faster the best file of each shape is than the best of base, by kind of input.

    Each shape was measured in turns with the teacher: the gains over it are compared, and not times.
    """
    files: dict[str, list[Mapping[str, Any]]] = {}
    for row in report.rows:
        if found := OF_SHAPE.match(row.case):
            files.setdefault(found[1], []).append(inputs_of(row.values))

    def best(shape: str, kind: str, gain: str) -> float:
        return max(float(inputs[kind][gain]) for inputs in files[shape])

    for shape, found_files in files.items():
        cells = {
            kind: ", ".join(
                f"{best(shape, kind, gain) / best('base', kind, gain):.2f}"
                for gain in ("latency_ratio", "throughput_ratio")
            )
            for kind in found_files[0]
        }
        yield {"shape": shape, "cells": {**dict.fromkeys(INPUTS, ""), **cells}}


def leading_peers(report: Measurements) -> str:
    """The cases in which a peer is ahead."""
    ahead = []
    for row in peers(report):
        leads = {
            f"{what} with {INPUTS[kind]}": 100 / gain - 100
            for kind, gains in row["gains"].items()
            for what, gain in zip(("latency", "throughput"), gains, strict=True)
        }
        if found := [f"{lead:.0f} % in {what}" for what, lead in leads.items() if lead >= 0.5]:
            ahead.append(f"- `{row['case']}` is ahead of `{row['ours']}` by {', '.join(found)}.")
    return "\n".join(ahead) or "No peer is ahead of our file."


def throughputs(report: Measurements) -> Iterator[Entry]:
    """What a user chooses from, with texts/s and the gain in throughput for each kind of input."""
    for row in speeds(report, CHOICES):
        inputs = inputs_of(row)
        gains = {kind: f"{figures['throughput_ratio']:.1f}" for kind, figures in inputs.items()}
        yield {**row, "gains": {**dict.fromkeys(INPUTS, ""), **gains}, "texts": inputs.get("texts", {})}


def profile(report: Measurements) -> Iterator[Entry]:
    """Where the time of a pass goes, also as shares."""
    kinds = ("products_with_weights_ms", "attention_ms", "rest_ms")
    for row in all_rows(report):
        yield {**row, "share": {kind: row[kind] / sum(row[each] for each in kinds) for kind in kinds}}


def by_kind(report: Measurements) -> Iterable[Entry]:
    """The values of rows ``KIND-CASE``, a row for each case."""
    found: dict[str, Entry] = {}
    for row in report.rows:
        kind, _, case = row.case.partition("-")
        found.setdefault(case, {"case": case})[kind] = row.values
    return found.values()


def page_medians(report: Measurements) -> Iterator[Entry]:
    """How soon a demo page answers."""
    for row in all_rows(report):
        yield {key: statistics.median(value) if isinstance(value, list) else value for key, value in row.items()}


VIEWS: dict[tuple[str, str], Table] = {
    ("inference", "rows"): View(*SPEEDS, partial(speeds, shown=COMMON), few_starts),
    ("inference", "peers"): View(
        f"peer | our file | {' | '.join(INPUTS.values())}",
        f"{{case}} | {{ours}} | {' | '.join(f'{{cells[{kind}]}}' for kind in INPUTS)}",
        peers,
        leading_peers,
    ),
    ("inference", "shapes"): View(
        f"best file of | {' | '.join(INPUTS.values())}",
        f"{{shape}} | {' | '.join(f'{{cells[{kind}]}}' for kind in INPUTS)}",
        shapes,
    ),
    ("inference", "texts"): View(
        f"file | MiB | memory, MiB | a text, ms | texts/s | {' | '.join(f'{name}, ×' for name in INPUTS.values())}",
        "{file} | {size_mib:.0f} | {peak_memory_mib:,.0f} | {texts[latency_s]:ms .1f} | {texts[samples_per_s]:.0f} "
        f"| {' | '.join(f'{{gains[{kind}]}}' for kind in INPUTS)}",
        throughputs,
        few_starts,
    ),
    ("inference_profile", "rows"): View(
        "ms of a pass | products with weights | attention | rest",
        "{case} | {products_with_weights_ms:.1f} ({share[products_with_weights_ms]:.0%}) "
        "| {attention_ms:.1f} ({share[attention_ms]:.0%}) | {rest_ms:.1f} ({share[rest_ms]:.0%})",
        profile,
    ),
    ("inference_variants", "rows"): View(
        "time over the published file's | base | tiny",
        "{case} | {base[time_ratio]:.2f} | {tiny[time_ratio]:.2f}",
        by_kind,
    ),
    ("onnx_attention", "rows"): View(
        "tokens × texts at once | base | slim | tiny",
        "{case} | {base[time_ratio]:.2f} | {slim[time_ratio]:.2f} | {tiny[time_ratio]:.2f}",
        by_kind,
        "Medians over {details[turns]} turns on {environment.threads} threads of an {environment.cpu}.",
    ),
    ("inference_parity", "rows"): View(
        "cosine to fp32 | texts as they are, mean | least | long texts, mean | least",
        "{case} | {short[token_cosine]:.4f} | {short[minimal_token_cosine]:.4f} | {long[token_cosine]:.4f} "
        "| {long[minimal_token_cosine]:.4f}",
        by_kind,
    ),
    **dict.fromkeys(
        (("sentence_speed", "rows"), ("task_speed", "rows")),
        View(
            "case | MiB | a text, ms | × | texts/s | ×",
            "{case} | {size_mib:.1f} | {latency_s:ms .1f} | {latency_gain} | {samples_per_s:.1f} | {throughput_gain}",
            lambda report: speeds(derive(report)),
            lambda report: few_starts(derive(report)),
        ),
    ),
    ("page_sizes", "rows"): View(
        "page of | parameters | what it loads beside the library, MB",
        "{case} | {parameters:,} | {total_bytes:MB .1f}",
    ),
    ("page_speed", "rows"): View(
        "page of | first prediction, s after opening | a sentence, ms | a paragraph, ms",
        "{case} | {first_prediction_s:.1f} | {sentence_ms:.0f} | {paragraph_ms:.0f}",
        page_medians,
        "Medians over the starts, on {environment.cores} cores of an {environment.cpu}, in {details[browser]}; a "
        "sentence has {details[words][sentence]} words, a paragraph {details[words][paragraph]}.",
    ),
}
