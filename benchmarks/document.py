"""Write the tables of README and docs/ from the committed results: ``python benchmarks/document.py``.

A page asks for a table by a comment, ``<!-- table: inference.rows -->``, which names a file of benchmarks/results and
one of the views below. The text between it and ``<!-- end -->`` is replaced. The file of another machine or model has
that after a hyphen, ``inference-amx.rows``, and the same views. A test keeps pages and results together.
"""

import dataclasses
import math
import re
import statistics
import string
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from distilrubert.common.derived import derive
from distilrubert.common.formats import FORMATS
from distilrubert.common.measurements import Measurements
from distilrubert.distill.corpus.build import REMEMBERED_KEYS
from distilrubert.evaluation.speed.speed_settings import STARTS
from distilrubert.evaluation.tasks.baselines import MAJORITY
from distilrubert.evaluation.tasks.significance import SIGNIFICANCE

Entry = dict[str, Any]

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
REQUEST = re.compile(r"(<!-- table: ([\w/]+)((?:-[\w-]+)?)\.(\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
# What a value is multiplied by, for a reader.
UNITS = {"ms": 1e3, "points": 1e2, "GiB": 2**-10, "MB": 1e-6, "GB": 1e-9}
OF_BASE = re.compile("teacher|student-base")
# All files of base, and of the smaller students those that everybody has: the rest is in the JSON.
COMMON = re.compile(rf"{OF_BASE.pattern}|(?!.*(-avx|-two-streams|-in-fp32|-in-bf16))")
# What a user of base or tiny chooses from. Older results have OpenVINO's default arithmetic without a mark; newer ones
# have fp32 without one.
CHOICES = re.compile(
    "teacher-pytorch-fp32|student-(base|slim|narrow|tiny|tiny-256)-(pytorch-fp32|onnx-int8|openvino-(fp32|int8)(-in-(fp32|bf16))?)$"
)
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
INT8_FILES = {"onnx-int8": "ONNX int8", "openvino-int8": "OpenVINO int8"}
EXPORTED = {
    "onnx-fp32": "ONNX fp32", "onnx-int8": "int8", "openvino-fp32": "OpenVINO fp32", "openvino-int8": "int8",
}  # fmt: skip
# README's rows of base: the title, and the file that each is of.
BASE = {
    "teacher": ("teacher: 12 layers × 384", None),
    "base": ("base: 6 layers × 384", "pytorch-fp32"),
    **{f"student-{file}": (f"base, {title}", file) for file, title in INT8_FILES.items()},
    "bag-of-words": ("bag of words", None),
    "majority-class": ("majority class", None),
}
BASE_TASKS = {"rusentiment": "f1_weighted", "factrueval": "span_f1", "paraphraser": "f1"}
# What knows words alone: of texts, and of taggers.
WORDS = ("bag-of-words", "word-tags")
KL = "kl_to_teacher_nats"


class Cells(string.Formatter):
    """``str.format``, where ``{latency_s:ms .1f}`` is in another unit of :data:`UNITS`, and no value leaves nothing."""

    def get_field(self, field_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, str]:
        """The value; None where there is none."""
        try:
            return super().get_field(field_name, args, kwargs)
        except KeyError:
            return None, field_name

    def format_field(self, value: Any, format_spec: str) -> str:
        """The text."""
        unit, _, form = format_spec.rpartition(" ")
        return "" if value is None else format(value * UNITS[unit] if unit else value, form)


def all_rows(report: Measurements) -> list[Entry]:
    """The rows as they are in the file."""
    return [row.to_dict() for row in report.rows]


@dataclasses.dataclass(frozen=True)
class View:
    """A table, the first column left-aligned and the others right-aligned, and what is told below it.

    Attributes:
        headings: its first line.
        cells: the line of a row, in the notation of :class:`Cells`.
        rows: the rows of a report.
        note: text in that notation, of the report and its ``rows``; or what makes it.
    """

    headings: str
    cells: str
    rows: Callable[[Measurements], Iterable[Entry]] = all_rows
    note: str | Callable[[Measurements], str] = ""

    def __call__(self, report: Measurements) -> str:
        """Markdown."""
        rows = [*self.rows(report)]
        lines = [self.headings, " | ".join(["---", *["---:"] * self.headings.count("|")])]
        lines += [Cells().vformat(self.cells, (), row) for row in rows]
        about = {"details": report.details, "environment": report.environment, "rows": rows}
        note = self.note(report) if callable(self.note) else Cells().vformat(self.note, (), about)
        return "".join(f"| {line} |\n" for line in lines) + (f"\n{note}\n" if note else "")


def base_files(report: Measurements) -> Iterator[Entry]:
    """Every file of base with its size, its speed and its scores, the teacher and the baselines beside them."""
    base = report["base"].values
    for case, (title, file) in BASE.items():
        row: Entry = {"title": title}
        if case == "teacher":
            row |= {"mib": 4 * report[case].values["parameters"] / 2**20, "speed": 1.0}
        elif file:
            row |= {"mib": base["files_mib"][FORMATS[file].path], "speed": base["throughput_ratio"][file]}
        for task, metric in BASE_TASKS.items():
            if scores := report[case].values["tasks"].get(task):
                values = [100 * value for value in scores[metric]["values"]]
                spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
                row[task] = f"{statistics.fmean(values):.1f}{spread}"
        yield row


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


def memory(report: Measurements) -> Iterator[Entry]:
    """Peak memory against the tokens of a step."""
    for entry in report.details["memory"]:
        peaks = [f"{peak / 1024:.1f}" if peak else "over the limit" for peak in entry["peak_memory_mib"].values()]
        yield {**entry, "peaks": peaks}


def vocabularies(report: Measurements) -> Iterator[Entry]:
    """A step of each loss over two vocabularies."""
    base = report[report.baseline or ""].values["step_s"]
    yield from ({**row, "times": row["step_s"] / base} for row in all_rows(report))


def pruned(report: Measurements) -> Iterator[Entry]:
    """Predictions of each student before and after training, and how far the pruned one is ahead of the others."""
    compared = sum(row.values["start"] != "pruned" for row in report.rows)
    for row in all_rows(report):
        after, best = row["after"], report[f"{row['recipe']}-pruned"].values["after"]
        lead = np.subtract(after["by_fold"][KL], best["by_fold"][KL])
        if row["start"] != "pruned":
            # Bonferroni's correction: the table compares as often as it has other starts.
            p_value = min(1.0, compared * float(stats.ttest_1samp(lead, 0.0).pvalue))
            mark = " *" if p_value < SIGNIFICANCE else ""
            row["lead"] = f"{after[KL] - best[KL]:.2f} ± {np.std(lead, ddof=1) / len(lead) ** 0.5:.2f}{mark}"
        name, start = row["recipe"].removeprefix("reference-"), row["start"].replace("-", " ")
        yield {**row, "name": f"{name}, {start}", "parts": len(lead), "compared": compared}


def derived(report: Measurements) -> list[Entry]:
    """The rows with what follows from their raw values."""
    return all_rows(derive(report))


def suite(report: Measurements) -> str:
    """Encoders of sentences, with a column for each task."""
    tasks, absent = report.details["tasks"], report.details["absent"]
    names, mean = " | ".join(f"`{task}`" for task in tasks), f"mean of {len(tasks)}" if absent else "S"
    scores = " | ".join(f"{{best[{task}]:.3f}}" for task in tasks)
    return View(
        f"case | {names} | {mean} | MiB | tokenizer, MiB | vectors' cosine to fp32, p1 | updates | minutes",
        f"{{case}} | {scores} | {{mean_score:.3f}} | {{size_mib:.1f}} | {{tokenizer_mib:.1f}} "
        "| {vector_cosine_p1:.4f} | {updates:,} | {training_minutes:.0f}",
        derived,
    )(report)


def task_students(report: Measurements) -> Iterator[Entry]:
    """Scores of students of tasks beside those of what each is compared with."""
    values = {row.case: row.values for row in report.rows}
    for student, found in report.details["students"].items():
        task, _, layers = student.partition("-")
        cases = {"majority": f"{task}-{MAJORITY}", "teacher": f"{task}-teacher"}
        cases["words"] = next(case for name in WORDS if (case := f"{task}-{name}") in values)
        cases |= {name: f"{student}-{name}" for name in ("alone", "distilled", *INT8_FILES)}
        row: Entry = {
            name: 100 * statistics.fmean(values[case]["tasks"][task][found["metric"]]["values"])
            for name, case in cases.items()
        }
        mark = " \\*" if found["comparison"]["p_value"] < SIGNIFICANCE else ""
        row["ahead"] = f"{100 * found['comparison']['difference']:+.1f}{mark}"
        row["kept"] = (row["distilled"] - row["majority"]) / (row["teacher"] - row["majority"])
        equal = " | ".join(f"{values[cases[file]]['equal_decisions']:.1%}" for file in INT8_FILES)
        yield {**row, "student": f"{task}, {layers} layers", "equal": equal}


def task_protocol(report: Measurements) -> str:
    """How many seeds there were, also where models differ in it, and what the marks mean."""
    seeds = sorted({len(found["calibration"]) for found in report.details["students"].values()})
    span = "one seed" if seeds == [1] else f"{' to '.join(map(str, dict.fromkeys((seeds[0], seeds[-1]))))} seeds"
    return (
        f"Points of each task's main metric on the test part, {span} of each student. Words: a bag of words, for\n"
        "taggers the most frequent tag of each word. Equal: decisions that are the student's. \\* is a significant\n"
        "difference (paired bootstrap over the test rows)."
    )


def page_medians(report: Measurements) -> Iterator[Entry]:
    """How soon a demo page answers."""
    for row in all_rows(report):
        yield {key: statistics.median(value) if isinstance(value, list) else value for key, value in row.items()}


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


def families(report: Measurements) -> Iterator[Entry]:
    """What is exact of a student of each family, and who opens its files."""
    for row in all_rows(report):
        files = row["files"]
        exported = (f"{shown} ({_closeness(case, files[case])})" for case, shown in EXPORTED.items() if case in files)
        bounds = {name: _bound(row[name]) for name in ("exact_to", "trimmed_difference")}
        yield {**row, **bounds, "files": ", ".join(exported), "clients": ", ".join(row["clients"])}


def _bound(difference: float) -> str:
    """A power of ten that a difference does not exceed."""
    return f"1e{math.ceil(math.log10(difference))}" if difference else "0"


def _closeness(case: str, figures: Mapping[str, float]) -> str:
    """How close a file is to its checkpoint: by the largest difference in fp32, by the cosine in int8."""
    return f"{figures['token_cosine']:.2f}" if "int8" in case else _bound(figures["maximal_difference"])


def other_families(report: Measurements) -> str:
    """What the rows of other families are, where there are any."""
    if not any(row.case.startswith(("xlm-r-", "modernbert-")) for row in report.rows):
        return ""
    return (
        "`xlm-r` is a step with XLM-R's vocabulary of 250,002 tokens, `modernbert` one with ModernBERT's blocks; all "
        "else is the\nsame. × is the ratio to `plain-fp32` of the same family."
    )


SPEEDS = (
    "case | MiB | latency, ms | × | samples/s | × | of the ceiling",
    "{case}{note} | {size_mib:.1f} | {latency_s:ms .1f} | {latency_gain} | {samples_per_s:.1f} | {throughput_gain} "
    "| {share_of_ceiling:.0%}",
)
VIEWS: dict[tuple[str, str], Callable[[Measurements], str]] = {
    ("reference/base", "files"): View(
        "model | weights, MiB | throughput, × | RuSentiment, weighted F1 | FactRuEval, span F1 | ParaPhraser, F1",
        "{title} | {mib:.1f} | {speed:.1f} | {rusentiment} | {factrueval} | {paraphraser}",
        base_files,
    ),
    ("inference", "rows"): View(*SPEEDS, partial(speeds, shown=COMMON), few_starts),
    ("inference", "base"): View(*SPEEDS, partial(speeds, shown=OF_BASE), few_starts),
    ("inference", "files"): View(
        "file | MiB | memory, MiB | latency, ms | × | samples/s | ×",
        "{file} | {size_mib:.0f} | {peak_memory_mib:,.0f} | {latency_s:ms .1f} | {latency_gain} "
        "| {samples_per_s:.1f} | {throughput_gain}",
        partial(speeds, shown=CHOICES),
        few_starts,
    ),
    ("inference", "peers"): View(
        f"peer | our file | {' | '.join(INPUTS.values())}",
        f"{{case}} | {{ours}} | {' | '.join(f'{{cells[{kind}]}}' for kind in INPUTS)}",
        peers,
        leading_peers,
    ),
    ("inference", "texts"): View(
        f"file | MiB | a text, ms | texts/s | {' | '.join(f'{name}, ×' for name in INPUTS.values())}",
        "{file} | {size_mib:.0f} | {texts[latency_s]:ms .1f} | {texts[samples_per_s]:.0f} "
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
    ("inference_parity", "rows"): View(
        "cosine to fp32 | texts as they are, mean | least | long texts, mean | least",
        "{case} | {short[token_cosine]:.4f} | {short[minimal_token_cosine]:.4f} | {long[token_cosine]:.4f} "
        "| {long[minimal_token_cosine]:.4f}",
        by_kind,
    ),
    ("distillation", "rows"): View(
        "case | tokens/s | × plain-fp32 | of the floor | forward, s | backward, s | AdamW, s | peak, GiB",
        "{case} | {tokens_per_s:.0f} | {ratio:.2f} | {floor_share:.0%} | {forward_s:.2f} | {backward_s:.2f} "
        "| {optimizer_s:.2f} | {peak_memory_mib:GiB .1f}",
        note=other_families,
    ),
    ("distillation", "memory"): View(
        "peak memory, GiB | 1,024 tokens | 4,096 tokens | 16,384 tokens | per 1,000 tokens",
        "{case} | {peaks[0]} | {peaks[1]} | {peaks[2]} | {mib_per_1000_tokens:GiB .2f}",
        memory,
    ),
    ("distillation", "largest"): View(
        "case | tokens of a batch | peak, GiB | tokens/s",
        "{case} | {tokens:,} | {peak_memory_mib:GiB .1f} | {tokens_per_s:.0f}",
        lambda report: report.details["largest"],
    ),
    ("vocabulary", "rows"): View(
        "case | a step, s | × one-vocabulary | peak memory, GiB",
        "{case} | {step_s:.2f} | {times:.2f} | {peak_memory_mib:GiB .1f}",
        vocabularies,
    ),
    ("trimming", "rows"): View(
        "tokens that stay | tokens | MiB | times smaller | held-out tokens tokenised differently | held-out texts",
        "{case} | {tokens:,} | {file_mib:.1f} | {ratio:.2f} | {held_out_resplit_token_share:.2%} "
        "| {held_out_resplit_text_share:.2%}",
        note="With what is {rows[1][case]}, {rows[1][corpus_resplit_text_share]:.0%} of the {details[texts]:,} texts "
        "are tokenised differently, and the vectors of {details[lines]:,} of them\n"
        "differ from the whole model's by at most {rows[1][largest_difference]:.1g}.",
    ),
    ("pruning", "rows"): View(
        "student | KL before, nats | after | pruned is ahead by | teacher's first choice before, % | after "
        "| masked tokens right before, % | after",
        f"{{name}} | {{before[{KL}]:.2f}} | {{after[{KL}]:.2f}} | {{lead}} "
        "| {before[teacher_agreement]:points .1f} | {after[teacher_agreement]:points .1f} "
        "| {before[masked_accuracy]:points .1f} | {after[masked_accuracy]:points .1f}",
        pruned,
        "{rows[0][updates]:,} updates, {rows[0][tokens]:,} tokens, with {rows[0][precision]}; "
        "{rows[0][after][masked_tokens]:,} masked tokens of held-out text in {rows[0][parts]} parts.\n"
        "± is the standard error over the parts, \\* a significant difference (paired t-test over the parts, corrected "
        "for {rows[0][compared]} comparisons).",
    ),
    ("sentences", "scores"): suite,
    **dict.fromkeys(
        (("sentence_speed", "rows"), ("task_speed", "rows")),
        View(
            "case | MiB | a text, ms | × | texts/s | ×",
            "{case} | {size_mib:.1f} | {latency_s:ms .1f} | {latency_gain} | {samples_per_s:.1f} | {throughput_gain}",
            lambda report: speeds(derive(report)),
            lambda report: few_starts(derive(report)),
        ),
    ),
    ("cached_vectors", "rows"): View(
        "case | updates/s | ×",
        "{case} | {updates_per_s:.2f} | {ratio:.2f} ({ratio_range[0]:.2f} to {ratio_range[1]:.2f})",
    ),
    ("task_students", "rows"): View(
        "student | majority class | words | teacher | alone | distilled | ahead by | lead kept "
        f"| {' | '.join(INT8_FILES.values())} | equal in ONNX | in OpenVINO",
        "{student} | {majority:.1f} | {words:.1f} | {teacher:.1f} | {alone:.1f} | {distilled:.1f} | {ahead} "
        "| {kept:.0%} | {onnx-int8:.1f} | {openvino-int8:.1f} | {equal}",
        task_students,
        task_protocol,
    ),
    ("token_types", "rows"): View(
        "the teacher reads | guesses | cross-entropy, nats",
        "{case} | {masked_accuracy:.1%} | {masked_cross_entropy:.2f}",
        note="{details[masked_tokens]:,} masked tokens in {details[pairs]} pairs. Without types "
        "{rows[1][top1_agreement]:.1%} of the guesses are the same. The cosine of\n"
        "the last hidden states to those with types is {rows[1][token_cosine_first]:.4f} in the first texts and "
        "{rows[1][token_cosine_second]:.4f} in the second.",
    ),
    ("families", "rows"): View(
        "teacher | tokenizer | exact to | trimmed to | exported to | loads in",
        "`{case}` | {tokenizer} | {exact_to} | {trimmed_tokens} of {tokens} tokens, {trimmed_difference} | {files} "
        "| {clients}",
        families,
    ),
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


def with_tables(page: str) -> str:
    """The text of a page, its tables made from the results."""

    def replace(request: re.Match[str]) -> str:
        beginning, name, variant, view, end = request.groups()
        return beginning + VIEWS[name, view](Measurements.load(RESULTS / f"{name}{variant}.json")) + end

    return REQUEST.sub(replace, page)


def main() -> None:
    """Rewrite the pages."""
    for page in PAGES:
        page.write_text(with_tables(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
