"""Write the tables of the documentation from the committed results: ``python benchmarks/document.py``.

A page asks for a table by a comment, ``<!-- table: inference.rows -->``, which names a file of benchmarks/results and
one of the views below. The text between it and ``<!-- end -->`` is replaced. The file of another machine has the
machine after a hyphen, ``inference-amx.rows``, and the same views. A test keeps pages and results together.
"""

import math
import re
import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from distilrubert.common.derived import derive
from distilrubert.common.measurements import Measurements, Row
from distilrubert.distill.corpus.build import REMEMBERED_KEYS
from distilrubert.evaluation.speed.speed_settings import STARTS
from distilrubert.evaluation.tasks.baselines import MAJORITY
from distilrubert.evaluation.tasks.significance import SIGNIFICANCE

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results"
PAGES = sorted((ROOT / "docs").glob("*.md"))
SPECIAL = re.compile(r"-avx|-two-streams|-in-fp32|-in-bf16")
# Older results have OpenVINO's default arithmetic without a mark; newer ones have fp32 without one.
CHOICES = re.compile(r"student-(base|tiny)-(pytorch-fp32|onnx-int8|openvino-(fp32|int8)(-in-(fp32|bf16))?)")
# Our files that a peer is compared with: the first of them that was measured.
COUNTERPARTS = {
    "nncf-int8": ("openvino-int8",),
    "nncf-int8-in-bf16": ("openvino-int8-in-bf16",),
    "nncf-int8-in-fp32": ("openvino-int8-in-fp32", "openvino-int8"),
    "ortquantizer-int8": ("onnx-int8-avx512-vnni", "onnx-int8"),
    "pytorch-int8": ("openvino-int8",),
    "ctranslate2-int8": ("openvino-int8",),
}
# Of encoders of sentences, by heading: a value of a row, and its form.
SENTENCE_COLUMNS = {
    "MiB": ("size_mib", "{:.1f}"),
    "tokenizer, MiB": ("tokenizer_mib", "{:.1f}"),
    "vectors' cosine to fp32, p1": ("vector_cosine_p1", "{:.4f}"),
    "updates": ("updates", "{:,}"),
    "minutes": ("training_minutes", "{:.0f}"),
}
TASK_FILES = {"onnx-int8": "ONNX int8", "openvino-int8": "OpenVINO int8"}
GAINS = ("latency, ms", "×", "samples/s", "×")
EXPORTED = {
    "onnx-fp32": "ONNX fp32", "onnx-int8": "int8", "openvino-fp32": "OpenVINO fp32", "openvino-int8": "int8",
}  # fmt: skip
OTHER_FAMILIES = """
`xlm-r` is a step with XLM-R's vocabulary of 250,002 tokens, `modernbert` one with ModernBERT's blocks; all else is the
same. × is the ratio to `plain-fp32` of the same family.
"""
REQUEST = re.compile(r"(<!-- table: (\w+)((?:-\w+)?)\.(\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table, the first column left-aligned and the others right-aligned."""
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)], *rows]
    return "".join(f"| {' | '.join(str(cell) for cell in line)} |\n" for line in lines)


def inference_rows(report: Measurements) -> str:
    """Speed of each file; of the smaller students those that everybody has, the rest is in the JSON."""
    return _speeds(report, [row for row in report.rows if _is_of_base(row) or not SPECIAL.search(row.case)])


def inference_base(report: Measurements) -> str:
    """The same of the teacher and the base student alone."""
    return _speeds(report, [row for row in report.rows if _is_of_base(row)])


def inference_files(report: Measurements) -> str:
    """The files that a user of base or tiny chooses from."""
    rows = [row for row in report.rows if row.case == report.baseline or CHOICES.fullmatch(row.case)]
    lines = [
        [
            row.case.removeprefix("student-"),
            f"{row.values['size_mib']:.0f}",
            f"{row.values['peak_memory_mib']:,.0f}",
            *_gains(row),
        ]
        for row in rows
    ]
    return table(["file", "MiB", "memory, MiB", *GAINS], lines) + _note_on_starts(report)


def _is_of_base(row: Row) -> bool:
    return row.case.startswith(("teacher", "student-base"))


def _speeds(report: Measurements, rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        share = row.values["share_of_ceiling"]
        case = f"{row.case} (latency of a pair)" if row.case.endswith("two-streams") else row.case
        lines.append([case, f"{row.values['size_mib']:.1f}", *_gains(row), f"{share:.0%}" if share else ""])
    return table(["case", "MiB", *GAINS, "of the ceiling"], lines) + _note_on_starts(report)


def _note_on_starts(report: Measurements) -> str:
    """A warning below values that rest on few starts; they are also medians over all passes of all starts."""
    starts = min(row.values.get("starts", report.details.get("starts", 1)) for row in report.rows)
    if starts >= STARTS:
        return ""
    number = "One start" if starts == 1 else f"{starts} starts"
    return f"\n{number} of each case, fewer than {STARTS}: one slow or fast start moves these values.\n"


def inference_peers(report: Measurements) -> str:
    """Each peer against our file of the same kind, and the cases in which the peer is ahead."""
    cases = {row.case: row.values for row in report.rows}
    lines, ahead = [], []
    for case, peer in cases.items():
        model, _, name = case.partition("-peer-")
        ours = next((f"{model}-{kind}" for kind in COUNTERPARTS.get(name, ()) if f"{model}-{kind}" in cases), None)
        if ours is None:
            continue
        own = cases[ours]
        ratios = {
            "latency": peer["latency_s"] / own["latency_s"],
            "throughput": own["samples_per_s"] / peer["samples_per_s"],
        }
        lines.append([case, ours, *(f"{ratio:.2f}" for ratio in ratios.values())])
        found = [f"{100 / ratio - 100:.0f} % in {what}" for what, ratio in ratios.items() if 100 / ratio - 100 >= 0.5]
        if found:
            ahead.append(f"- `{case}` is ahead of `{ours}` by {' and '.join(found)}.")
    verdict = "\n".join(ahead) or "No peer is ahead of our file."
    heading = ["peer", "our file", "our speed over the peer's, latency", "throughput"]
    return f"{table(heading, lines)}\n{verdict}\n"


def _gains(row: Row) -> list[str]:
    """The cells below :data:`GAINS`."""
    return [
        f"{1000 * row.values['latency_s']:.1f}",
        _ratio(row, "latency_ratio"),
        f"{row.values['samples_per_s']:.1f}",
        _ratio(row, "throughput_ratio"),
    ]


def _ratio(row: Row, name: str) -> str:
    """A ratio and, where the file has it, its range over the starts."""
    low, high = row.values.get(f"{name}_range", (None, None))
    spread = "" if low is None else f" ({low:.1f} to {high:.1f})"
    return f"{row.values[name]:.1f}{spread}"


def inference_conversation(report: Measurements) -> str:
    """Speed on texts of real length."""
    cases = {name: found for name, found in report.details["conversation"].items() if isinstance(found, dict)}
    rows = [
        [
            name,
            f"{found['arrival_tokens_per_s']:,.0f}",
            f"{found['sorted_tokens_per_s']:,.0f}",
            f"{found['sorted_over_arrival']:.2f}",
        ]
        for name, found in cases.items()
    ]
    return table(["case", "in order of arrival, tokens/s", "sorted by length, tokens/s", "×"], rows)


def inference_profile_rows(report: Measurements) -> str:
    """Where the time goes."""
    kinds = ("products_with_weights_ms", "attention_ms", "rest_ms")
    rows = []
    for row in report.rows:
        total = sum(row.values[kind] for kind in kinds)
        rows.append([row.case, *(f"{row.values[kind]:.1f} ({row.values[kind] / total:.0%})" for kind in kinds)])
    return table(["ms of a pass", "products with weights", "attention", "rest"], rows)


def inference_variants_rows(report: Measurements) -> str:
    """Time of each changed file over that of the published one, by model."""
    changes = [row.case.partition("-")[2] for row in report.rows]
    models = dict.fromkeys(row.case.partition("-")[0] for row in report.rows)
    rows = [
        [change, *(f"{report[f'{model}-{change}'].values['time_ratio']:.2f}" for model in models)]
        for change in dict.fromkeys(changes)
    ]
    return table(["time over the published file's", *models], rows)


def inference_parity_rows(report: Measurements) -> str:
    """How close each file is, on texts as they are and on long ones."""
    kinds = ("short", "long")
    files = dict.fromkeys(row.case.partition("-")[2] for row in report.rows)
    figures = ("token_cosine", "minimal_token_cosine")
    rows = [
        [file, *(f"{report[f'{kind}-{file}'].values[figure]:.4f}" for kind in kinds for figure in figures)]
        for file in files
    ]
    tokens = [report.details[kind]["tokens"] / report.details[kind]["sentences"] for kind in kinds]
    return table(
        ["cosine to fp32", *(f"{name}, {mean:.0f} tokens" for mean in tokens for name in ("mean", "least"))], rows
    )


def distillation_rows(report: Measurements) -> str:
    """Speed of each form of a step."""
    rows = [
        [
            row.case,
            f"{row.values['tokens_per_s']:.0f}",
            f"{row.ratio:.2f}",
            f"{row.values['floor_share']:.0%}",
            *(f"{row.values[part]:.2f}" for part in ("forward_s", "backward_s", "optimizer_s")),
            f"{row.values['peak_memory_mib'] / 1024:.1f}",
        ]
        for row in report.rows
    ]
    headings = [
        "case",
        "tokens/s",
        "× plain-fp32",
        "of the floor",
        "forward, s",
        "backward, s",
        "AdamW, s",
        "peak, GiB",
    ]
    others = any(row.case.startswith(("xlm-r-", "modernbert-")) for row in report.rows)
    return table(headings, rows) + (OTHER_FAMILIES if others else "")


def distillation_memory(report: Measurements) -> str:
    """Peak memory against the tokens of a step."""
    entries: list[dict[str, Any]] = report.details["memory"]
    sizes = [*entries[0]["peak_memory_mib"]]
    rows = []
    for entry in entries:
        peaks = [entry["peak_memory_mib"][size] for size in sizes]
        slope = entry.get("mib_per_1000_tokens")
        rows.append(
            [
                entry["case"],
                *(f"{peak / 1024:.1f}" if peak else "over the limit" for peak in peaks),
                f"{slope / 1024:.2f}" if slope is not None else "",
            ]
        )
    return table(["peak memory, GiB", *(f"{int(size):,} tokens" for size in sizes), "per 1,000 tokens"], rows)


def distillation_largest(report: Measurements) -> str:
    """Speed with the largest batch that each form fits into the memory limit."""
    rows = [
        [
            entry["case"],
            f"{entry['tokens']:,}",
            f"{entry['peak_memory_mib'] / 1024:.1f}",
            f"{entry['tokens_per_s']:.0f}",
        ]
        for entry in report.details["largest"]
    ]
    return table(["case", "tokens of a batch", "peak, GiB", "tokens/s"], rows)


def vocabulary_rows(report: Measurements) -> str:
    """A step of each loss over two vocabularies."""
    base = report[report.baseline or ""].values["step_s"]
    rows = [
        [
            row.case,
            f"{row.values['step_s']:.2f}",
            f"{row.values['step_s'] / base:.2f}",
            f"{row.values['peak_memory_mib'] / 1024:.1f}",
        ]
        for row in report.rows
    ]
    return table(["case", "a step, s", "× one-vocabulary", "peak memory, GiB"], rows)


def trimming_rows(report: Measurements) -> str:
    """Tokens and size of an encoder with a part of its vocabulary, and what of text is tokenised differently."""
    rows = []
    for row in report.rows:
        shares = (row.values.get(f"held_out_resplit_{unit}_share") for unit in ("token", "text"))
        sizes = [f"{row.values['tokens']:,}", f"{row.values['file_mib']:.1f}", f"{row.ratio:.2f}"]
        rows.append([row.case, *sizes, *("" if share is None else f"{share:.2%}" for share in shares)])
    headings = ["tokens that stay", "tokens", "MiB", "times smaller"]
    headings += ["held-out tokens tokenised differently", "held-out texts"]
    first, details = report.rows[1], report.details
    share, largest = (first.values[name] for name in ("corpus_resplit_text_share", "largest_difference"))
    told = (
        f"With what is {first.case}, {share:.0%} of the {details['texts']:,} texts are tokenised differently, "
        f"and the vectors of {details['lines']:,} of them\ndiffer from the whole model's by at most {largest:.1g}."
    )
    return f"{table(headings, rows)}\n{told}\n"


def pruning_rows(report: Measurements) -> str:
    """Predictions of each student before and after training, and how far the pruned one is ahead of the others."""
    kl, agreement, accuracy = "kl_to_teacher_nats", "teacher_agreement", "masked_accuracy"
    others = [row for row in report.rows if row.values["start"] != "pruned"]
    rows = []
    for row in report.rows:
        before, after = row.values["before"], row.values["after"]
        shares = [f"{100 * values[share]:.1f}" for share in (agreement, accuracy) for values in (before, after)]
        difference = ""
        if row in others:
            best = report[f"{row.values['recipe']}-pruned"].values["after"]
            lead = np.subtract(after["by_fold"][kl], best["by_fold"][kl])
            # Bonferroni's correction: the table compares as often as it has other starts.
            p_value = min(1.0, len(others) * float(stats.ttest_1samp(lead, 0.0).pvalue))
            mark = " *" if p_value < SIGNIFICANCE else ""
            difference = f"{after[kl] - best[kl]:.2f} ± {np.std(lead, ddof=1) / len(lead) ** 0.5:.2f}{mark}"
        name, start = row.values["recipe"].removeprefix("reference-"), row.values["start"].replace("-", " ")
        rows.append([f"{name}, {start}", f"{before[kl]:.2f}", f"{after[kl]:.2f}", difference, *shares])
    first = report.rows[0].values
    headings = ["student", "KL before, nats", "after", "pruned is ahead by"]
    headings += ["teacher's first choice before, %", "after", "masked tokens right before, %", "after"]
    masked, parts = first["after"]["masked_tokens"], len(first["after"]["by_fold"][kl])
    told = (
        f"{first['updates']:,} updates, {first['tokens']:,} tokens, with {first['precision']}; {masked:,} masked "
        f"tokens of held-out text in {parts} parts.\n± is the standard error over the parts, \\* a significant "
        f"difference (paired t-test over the parts, corrected for {len(others)} comparisons)."
    )
    return f"{table(headings, rows)}\n{told}\n"


def sentence_scores(report: Measurements) -> str:
    """Scores of encoders of sentences on each task, with the size of each file and what its training took."""
    derived = derive(report)
    tasks = report.details["tasks"]
    rows = [
        [
            row.case,
            *(f"{score:.3f}" for score in (*row.values["best"].values(), row.values["mean_score"])),
            *(_optional(row, name, form) for name, form in SENTENCE_COLUMNS.values()),
        ]
        for row in derived.rows
    ]
    mean = "S" if not report.details["absent"] else f"mean of {len(tasks)}"
    return table(["case", *(f"`{task}`" for task in tasks), mean, *SENTENCE_COLUMNS], rows)


def _optional(row: Row, name: str, form: str) -> str:
    value = row.values.get(name)
    return "" if value is None else form.format(value)


def sentence_speed_rows(report: Measurements) -> str:
    """Speed of encoders of sentences from texts to vectors."""
    derived = derive(report)
    lines = [[row.case, f"{row.values['size_mib']:.1f}", *_gains(row)] for row in derived.rows]
    return table(["case", "MiB", "a text, ms", "×", "texts/s", "×"], lines) + _note_on_starts(derived)


def cached_vectors_rows(report: Measurements) -> str:
    """Updates a second with the teacher in each, and with its vectors computed before."""
    rows = []
    for row in report.rows:
        low, high = row.values["ratio_range"]
        rows.append([row.case, f"{row.values['updates_per_s']:.2f}", f"{row.ratio:.2f} ({low:.2f} to {high:.2f})"])
    return table(["case", "updates/s", "×"], rows)


def task_students_rows(report: Measurements) -> str:
    """Scores of students of tasks beside those of what each is compared with."""
    rows, cases = [], {row.case for row in report.rows}
    for student, found in report.details["students"].items():
        task, _, layers = student.partition("-")
        metric = found["metric"]

        def score(case: str, task: str = task, metric: str = metric) -> float:
            return 100 * statistics.fmean(report[case].values["tasks"][task][metric]["values"])

        majority, teacher, alone, distilled, *files = (
            score(case)
            for case in (
                f"{task}-{MAJORITY}",
                f"{task}-teacher",
                f"{student}-alone",
                f"{student}-distilled",
                *(f"{student}-{file}" for file in TASK_FILES),
            )
        )
        # Only texts have one.
        bag = f"{score(f'{task}-bag-of-words'):.1f}" if f"{task}-bag-of-words" in cases else ""
        mark = " \\*" if found["comparison"]["p_value"] < SIGNIFICANCE else ""
        ahead = f"{100 * found['comparison']['difference']:+.1f}{mark}"
        kept = f"{(distilled - majority) / (teacher - majority):.0%}"
        compared = (f"{cell:.1f}" for cell in (teacher, alone, distilled))
        rows.append([f"{task}, {layers} layers", f"{majority:.1f}", bag, *compared, ahead, kept])
        rows[-1] += [f"{cell:.1f}" for cell in files]
    headings = ["student", "majority class", "bag of words", "teacher", "alone", "distilled", "ahead by"]
    seeds = {len(found["calibration"]) for found in report.details["students"].values()}
    told = (
        f"Points of each task's main metric on the test part, {_span(seeds)} of each student.\n\\* is a "
        "significant difference (paired bootstrap over the test rows)."
    )
    return f"{table([*headings, 'lead kept', *TASK_FILES.values()], rows)}\n{told}\n"


def _span(seeds: Collection[int]) -> str:
    """How many seeds, also where models differ in it."""
    if max(seeds) == 1:
        return "one seed"
    return f"{max(seeds)} seeds" if len(seeds) == 1 else f"{min(seeds)} to {max(seeds)} seeds"


def token_types_rows(report: Measurements) -> str:
    """What a BERT reads of pairs with its token types and without them."""
    rows = [
        [row.case, f"{row.values['masked_accuracy']:.1%}", f"{row.values['masked_cross_entropy']:.2f}"]
        for row in report.rows
    ]
    without, details = report.rows[1].values, report.details
    cosines = [f"{without[f'token_cosine_{text}']:.4f}" for text in ("first", "second")]
    told = (
        f"{details['masked_tokens']:,} masked tokens in {details['pairs']} pairs. Without types "
        f"{without['top1_agreement']:.1%} of the guesses are the same. The cosine of\n"
        f"the last hidden states to those with types is {cosines[0]} in the first texts and {cosines[1]} in the second."
    )
    return f"{table(['the teacher reads', 'guesses', 'cross-entropy, nats'], rows)}\n{told}\n"


def scale_speed(report: Measurements) -> str:
    """CPU time of preparing a corpus beside that of the tokenizer alone."""
    row = report["throughput"]
    bare, whole = (np.median(row.values["cpu_s"][work]) for work in ("bare", "prepare"))
    megabytes, processes = row.values["bytes"] / 1e6, report.details["processes"]
    note = (
        f"medians of {len(row.values['cpu_s']['bare'])}; {'no ' if row.values['copies'] <= 1 else ''}text is repeated"
    )
    return (
        f"Preparing {megabytes:.0f} MB with {processes} tokenising processes took {whole:.1f} CPU seconds, the "
        f"tokenizer alone {bare:.1f}: {row.ratio:.0%} of its speed\n({note}).\n"
    )


def scale_memory(report: Measurements) -> str:
    """Peak memory of preparing by the size of the text, and the line through the two smallest sizes."""
    rows = sorted(_of_kind(report, "memory"), key=lambda row: float(row.values["bytes"]))
    lines, peaks = [], ("peak_mib", "worker_peak_mib")
    for row in rows:
        size, seconds = row.values["bytes"] / 1e9, row.values["cpu_s"]
        lines.append([f"{size:g}", *(f"{row.values[peak]:.0f}" for peak in peaks), f"{seconds:.0f}"])
    laws = []
    small, large = rows[:2]
    most = REMEMBERED_KEYS / 1e6
    for peak, name in zip(peaks, ("the preparing process", "a tokenising one"), strict=True):
        millions = [row.values["texts"] / 1e6 for row in (small, large)]
        slope, start = np.polyfit(millions, [row.values[peak] for row in (small, large)], 1)
        at_ten = min(10 * large.values["texts"] / large.values["bytes"] * 1e3, most)
        laws.append(f"{name} {start:.0f} + {slope:.1f} × million texts, {start + at_ten * slope:.0f} at 10 GB")
    told = (
        "The line through both sizes, in MiB: " + ";\n".join(laws) + f"\n(extrapolated, not measured; from {most:.0f} "
        "million texts on a process remembers no more of them).\n"
    )
    headings = ["GB of text", "preparing process, MiB", "largest tokenising process, MiB", "CPU seconds of all"]
    return f"{table(headings, lines)}\n{told}"


def scale_planning(report: Measurements) -> str:
    """What a rank takes to plan an epoch."""
    lines = [
        [
            f"{row.values['sequences']:,}{' (simulated)' if row.values['simulated'] else ''}",
            row.values["windows"],
            *(f"{row.values[name]:.1f}" for name in ("begin_cpu_s", "window_cpu_s")),
            f"{row.values['peak_mib']:.0f}",
            f"{row.values['peak_before_mib']:.0f}",
        ]
        for row in _of_kind(report, "planning")
    ]
    headings = [
        "sequences",
        "windows",
        "before the first, CPU s",
        "a window, CPU s",
        "peak, MiB",
        "of it before planning",
    ]
    return table(headings, lines)


def scale_parts(report: Measurements) -> str:
    """The same corpus by different numbers of processes."""
    [values] = [row.values for row in _of_kind(report, "parts")]
    *others, last = values["seconds"]
    same = "the same to the byte" if values["identical"] else "NOT the same"
    return (
        f"{values['bytes'] / 1e9:.2g} GB by {', '.join(others)} and {last} processes, one of the {last} killed after "
        f"its first shard: {same}.\n"
    )


def _of_kind(report: Measurements, kind: str) -> list[Row]:
    return [row for row in report.rows if row.case.startswith(f"{kind}-")]


def families_rows(report: Measurements) -> str:
    """What is exact of a student of each family, and who opens its files."""
    rows = []
    for row in report.rows:
        values = row.values
        trimmed = f"{values['trimmed_tokens']} of {values['tokens']} tokens, {_bound(values['trimmed_difference'])}"
        files = ", ".join(
            f"{shown} ({_closeness(case, values['files'][case])})"
            for case, shown in EXPORTED.items()
            if case in values["files"]
        )
        cells = [values["tokenizer"], _bound(values["exact_to"]), trimmed, files, ", ".join(values["clients"])]
        rows.append([f"`{row.case}`", *cells])
    return table(["teacher", "tokenizer", "exact to", "trimmed to", "exported to", "loads in"], rows)


def _bound(difference: float) -> str:
    """A power of ten that a difference does not exceed."""
    return f"1e{math.ceil(math.log10(difference))}" if difference else "0"


def _closeness(case: str, figures: Mapping[str, float]) -> str:
    """How close a file is to its checkpoint: by the largest difference in fp32, by the cosine in int8."""
    return f"{figures['token_cosine']:.2f}" if "int8" in case else _bound(figures["maximal_difference"])


VIEWS: dict[tuple[str, str], Callable[[Measurements], str]] = {
    ("inference", "rows"): inference_rows,
    ("inference", "base"): inference_base,
    ("inference", "files"): inference_files,
    ("inference", "peers"): inference_peers,
    ("inference", "conversation"): inference_conversation,
    ("inference_profile", "rows"): inference_profile_rows,
    ("inference_variants", "rows"): inference_variants_rows,
    ("inference_parity", "rows"): inference_parity_rows,
    ("distillation", "rows"): distillation_rows,
    ("distillation", "memory"): distillation_memory,
    ("distillation", "largest"): distillation_largest,
    ("vocabulary", "rows"): vocabulary_rows,
    ("trimming", "rows"): trimming_rows,
    ("pruning", "rows"): pruning_rows,
    ("sentences", "scores"): sentence_scores,
    ("sentence_speed", "rows"): sentence_speed_rows,
    ("cached_vectors", "rows"): cached_vectors_rows,
    ("task_students", "rows"): task_students_rows,
    ("token_types", "rows"): token_types_rows,
    ("families", "rows"): families_rows,
    ("scale", "speed"): scale_speed,
    ("scale", "memory"): scale_memory,
    ("scale", "planning"): scale_planning,
    ("scale", "parts"): scale_parts,
}


def with_tables(page: str) -> str:
    """The text of a page, its tables made from the results."""

    def replace(request: re.Match[str]) -> str:
        beginning, name, machine, view, end = request.groups()
        return beginning + VIEWS[name, view](Measurements.load(RESULTS / f"{name}{machine}.json")) + end

    return REQUEST.sub(replace, page)


def main() -> None:
    """Rewrite the pages."""
    for page in PAGES:
        page.write_text(with_tables(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
