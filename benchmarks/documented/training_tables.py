"""Tables of what distillation costs, and of what students begin with."""

import math
from collections.abc import Iterator, Mapping

import numpy as np
from documented.view import Entry, Table, View, all_rows
from scipy import stats

from distilrubert.common.measurements import Measurements
from distilrubert.evaluation.tasks.significance import SIGNIFICANCE

KL = "kl_to_teacher_nats"
EXPORTED = {
    "onnx-fp32": "ONNX fp32", "onnx-int8": "int8", "openvino-fp32": "OpenVINO fp32", "openvino-int8": "int8",
}  # fmt: skip


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


VIEWS: dict[tuple[str, str], Table] = {
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
    ("cached_vectors", "rows"): View(
        "case | updates/s | ×",
        "{case} | {updates_per_s:.2f} | {ratio:.2f} ({ratio_range[0]:.2f} to {ratio_range[1]:.2f})",
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
}
