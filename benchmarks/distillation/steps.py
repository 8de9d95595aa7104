"""What a distillation step costs: time against plain forms and the arithmetic, memory against tokens.

    python benchmarks/distillation/steps.py --output benchmarks/results/distillation.json
    python benchmarks/distillation/steps.py --small --output /tmp/distillation.json      a minute, to see that it runs

One step is the teacher's forward pass, the student's forward and backward pass with KL + MLM + cosine over all pairs
of layers, and AdamW. Random weights, no padding, no dropout, the same fused AdamW for all cases. Each figure comes from
a process of its own. Run it on an idle machine: two threads that wait for a third process cost more than that process.

Three tables: `rows` has the speed of each case, the cases taking turns in rounds; `details.memory` the peak memory
against the tokens of a step; `details.largest` the speed with the largest batch that the memory limit holds. With
`--tables` the others stay as the file has them: only the first has to have the machine to itself.

With `--device cuda` the first table also has compiled forms: encoders and losses over the vocabulary (`compiled`), and
the same with Liger's fused linear distillation loss (`liger`), which does the work of masked positions. On a CPU they
run if they are named. A case that cannot run here is left out, and a line says why.

The first table also has other families: `xlm-r` is a step with XLM-R's vocabulary of 250,002 tokens, `modernbert` one
with ModernBERT's blocks, which have rotary positions and gates. All else is as with BERT. Each is compared with the
plain form of its own.
"""

import argparse
import contextlib
import dataclasses
import importlib.util
import shutil
import statistics
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from step_forms import LABELLED, Shapes, flop_per_token

from distilrubert.common.errors import UserError
from distilrubert.common.measurements import Environment, Measurements, Row
from distilrubert.evaluation.speed.speed_process import SpeedProcess

BASELINE = "plain-fp32"
TABLES = ("speed", "memory", "largest")
PARTS = ("forward_s", "backward_s", "optimizer_s")
BERT_CASES = (
    "reference-fp32", BASELINE, "plain-bf16", "fused-all-fp32", "fused-masked-fp32", "fused-all-bf16",
    "fused-masked-bf16", "fused-recomputed-fp32", "fused-recomputed-bf16", "fused-recomputed-mapped-bf16",
)  # fmt: skip
# What another family changes, in parts of the sizes of BERT: whole numbers for those of Shapes().
FAMILIES = {
    "xlm-r": lambda shapes: {"family": "xlm-roberta", "vocabulary": shapes.vocabulary * 250_002 // 119_547},
    "modernbert": lambda shapes: {"family": "modernbert", "inner_width": shapes.inner_width * 1152 // 3072},
}
FAMILY_FORMS = (BASELINE, "plain-bf16", "fused-all-fp32", "fused-masked-fp32", "fused-masked-bf16")
COMPILED_CASES = (
    "compiled-all-fp32", "compiled-masked-fp32", "compiled-all-bf16", "compiled-masked-bf16", "liger-masked-fp32",
    "liger-masked-bf16",
)  # fmt: skip
CPU_CASES = (*BERT_CASES, *(f"{family}-{form}" for family in FAMILIES for form in FAMILY_FORMS))
CASES = (*CPU_CASES, *COMPILED_CASES)
SMALL = Shapes(vocabulary=2000, teacher_layers=4, student_layers=2, width=64, heads=4, inner_width=128, sequences=4)
PROGRAM = (str(Path(__file__).with_name("step_forms.py")),)
# Of glibc: tensors above this come from the system and go back to it when they are freed. By itself the bound grows to
# 32 MiB, and below it freed memory is kept for what comes next.
MAPPED = {"MALLOC_MMAP_THRESHOLD_": "1048576"}


class Runner:
    """Runs single measurements in processes of their own."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._device, self._threads = arguments.device, arguments.threads
        self._limit_mib = arguments.memory_limit * 1024

    def __call__(self, case: str, shapes: Shapes, steps: int) -> dict[str, float] | None:
        """The figures of a case; None where it takes more memory than allowed."""
        _, form, shapes = parts_of(case, shapes)
        task = {"form": form, "shapes": dataclasses.asdict(shapes), "steps": steps, "device": self._device}
        figures: dict[str, float] | None = None
        with SpeedProcess(case, self._threads, PROGRAM, MAPPED if "mapped" in case else None) as process:
            too_large = threading.Event()
            threading.Thread(target=self._kill_above_limit, args=(process.pid, too_large), daemon=True).start()
            try:
                figures = process.ask("measure", threads=self._threads, **task)
            except UserError:
                if not too_large.is_set():
                    raise
        print(f"{case:28} {shapes.tokens:6} tokens  {figures}", flush=True)
        return figures

    def _kill_above_limit(self, pid: int, too_large: threading.Event) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            while process.memory_info().rss / 2**20 <= self._limit_mib:
                time.sleep(0.05)
            too_large.set()
            process.kill()


def parts_of(case: str, shapes: Shapes) -> tuple[str, str, Shapes]:
    """What stands before a form in the name of a case, for its family; the form; and the shapes of the family."""
    for family, changes in FAMILIES.items():
        if case.startswith(f"{family}-"):
            form = case.removeprefix(f"{family}-")
            return f"{family}-", form, dataclasses.replace(shapes, **changes(shapes))
    return "", case, shapes


def missing_for(case: str, device: str) -> str | None:
    """What a case needs that is not here."""
    if case.startswith("liger-") and importlib.util.find_spec("liger_kernel") is None:
        return "the package liger-kernel"
    if case not in COMPILED_CASES:
        return None
    if device == "cuda":
        return None if importlib.util.find_spec("triton") else "the package triton"
    return None if shutil.which("c++") else "a C++ compiler"


def measure_speed(run: Runner, cases: Sequence[str], shapes: Shapes, rounds: int, steps: int) -> list[Row]:
    """The first table. Each round measures the machine's rates too."""
    runs: dict[str, list[dict[str, float]]] = {case: [] for case in ("rates", *cases)}
    for _ in range(rounds):
        for case, found in runs.items():
            figures = run(case, shapes, steps)
            assert figures is not None, f"{case} does not fit into the memory limit"
            found.append(figures)
    rate_runs = runs.pop("rates")
    rates = {name: max(each[name] for each in rate_runs) for name in rate_runs[0]}
    speeds = {case: [shapes.tokens / each["step_s"] for each in found] for case, found in runs.items()}
    rows = []
    for case, values in speeds.items():
        family, _, its_shapes = parts_of(case, shapes)
        flop = flop_per_token(its_shapes, LABELLED if "masked" in case else 1.0)
        precision = case.rpartition("-")[2]
        speed = statistics.median(values)
        figures = {
            "tokens_per_s": speed,
            "tokens_per_s_spread": max(values) - min(values),
            "step_s": shapes.tokens / speed,
            **{part: statistics.median(each[part] for each in runs[case]) for part in PARTS},
            "peak_memory_mib": max(each["peak_memory_mib"] for each in runs[case]),
            "gflop_per_token": flop / 1e9,
            "gflop_per_s": speed * flop / 1e9,
            "model_rate_gflop_per_s": rates[f"model_{precision}"],
            "product_rate_gflop_per_s": rates[f"product_{precision}"],
            # Time that the arithmetic alone takes, at the rate of a whole model and of large products, per time taken.
            "floor_share": speed * flop / 1e9 / rates[f"model_{precision}"],
            "product_share": speed * flop / 1e9 / rates[f"product_{precision}"],
        }
        plain = speeds.get(f"{family}{BASELINE}")
        baseline = statistics.median(plain) if plain else None
        rows.append(Row(case, figures, ratio=baseline and speed / baseline))
    return rows


def measure_memory(run: Runner, cases: Sequence[str], shapes: Shapes, tokens: Sequence[int]) -> list[dict[str, Any]]:
    """The second table: peak memory against tokens, with the slope over those that fit."""
    table = []
    for case in cases:
        peaks: dict[int, float | None] = {}
        for number in tokens:
            # What did not fit will not fit with more.
            fits = None not in peaks.values()
            figures = run(case, with_tokens(shapes, number), 1) if fits else None
            peaks[number] = figures["peak_memory_mib"] if figures else None
        known = {number: peak for number, peak in peaks.items() if peak is not None}
        entry: dict[str, Any] = {"case": case, "peak_memory_mib": {str(number): peak for number, peak in peaks.items()}}
        if len(known) > 1:
            slope, start = np.polyfit(list(known), list(known.values()), 1)
            entry |= {"mib_per_1000_tokens": 1000 * float(slope), "mib_without_tokens": float(start)}
        table.append(entry)
    return table


def measure_largest(
    run: Runner, memory: Sequence[dict[str, Any]], shapes: Shapes, limit_mib: float, most: int, steps: int
) -> list[dict[str, Any]]:
    """The third table: the largest batch, in multiples of the first table's, that stays below the limit."""
    table = []
    for entry in memory:
        if "mib_per_1000_tokens" not in entry:
            continue
        room = (limit_mib - entry["mib_without_tokens"]) / entry["mib_per_1000_tokens"] * 1000
        number = max(1, min(int(room), most) // shapes.tokens) * shapes.tokens
        while (figures := run(entry["case"], with_tokens(shapes, number), steps)) is None and number > shapes.tokens:
            number -= shapes.tokens
        if figures:
            table.append(
                {"case": entry["case"], "tokens": number, "tokens_per_s": number / figures["step_s"], **figures}
            )
    return table


def with_tokens(shapes: Shapes, tokens: int) -> Shapes:
    """The same sequences, as many as have that many tokens."""
    return dataclasses.replace(shapes, sequences=max(1, tokens // shapes.length))


def kept(path: Path, environment: Environment, shapes: Shapes) -> Measurements:
    """The tables of an earlier run, and the settings that each was made with; empty where there is none."""
    details = {"shapes": dataclasses.asdict(shapes), "settings": {}, "memory": [], "largest": []}
    if not path.exists():
        return Measurements(environment, [], details=details)
    report = Measurements.load(path)
    if report.details["shapes"] != details["shapes"] or not report.environment.is_like(environment):
        raise SystemExit(f"{path}: has other shapes, or is of another machine; name another file with --output")
    return report


def parse_arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--output", type=Path, required=True)
    add("--cases", nargs="+", choices=CASES, help="default: all, on a CPU those that are not compiled")
    add("--tables", nargs="+", choices=TABLES, default=TABLES)
    add("--small", action="store_true", help="tiny shapes")
    add("--length", type=int, default=64, help="tokens of a sequence")
    add("--rounds", type=int, default=3, help="turns of each case in the first table")
    add("--steps", type=int, default=3, help="steps of a turn, after one that does not count")
    add("--tokens", type=int, nargs="+", default=[1024, 2048, 4096, 8192, 16384], help="of a step in the second table")
    add("--most-tokens", type=int, default=32768, help="of a step in the third table")
    add("--memory-limit", type=float, default=20.0, help="GiB; a case that takes more is stopped")
    add("--threads", type=int, default=torch.get_num_threads())
    add("--device", choices=["cpu", "cuda"], default="cpu")
    arguments = parser.parse_args()
    arguments.cases = arguments.cases or list(CASES if arguments.device == "cuda" else CPU_CASES)
    missing = {case: missing_for(case, arguments.device) for case in arguments.cases}
    for case, what in missing.items():
        if what:
            print(f"{case:28} left out: {what} is missing", flush=True)
    arguments.cases = [case for case in arguments.cases if not missing[case]]
    return arguments


def main() -> None:
    """Measure, write the file after each table, print the rows."""
    arguments = parse_arguments()
    shapes = dataclasses.replace(SMALL if arguments.small else Shapes(), length=arguments.length)
    tokens = [number // 4 for number in arguments.tokens] if arguments.small else arguments.tokens
    run = Runner(arguments)
    report = kept(arguments.output, Environment.capture(threads=arguments.threads), shapes)
    own = {name: value for name, value in vars(arguments).items() if name not in ("output", "tables")}
    for table in TABLES:
        if table not in arguments.tables:
            continue
        rows, details = report.rows, {**report.details}
        if table == "speed":
            rows = measure_speed(run, arguments.cases, shapes, arguments.rounds, arguments.steps)
        elif table == "memory":
            details[table] = measure_memory(
                run, [case for case in arguments.cases if case in BERT_CASES], shapes, tokens
            )
        else:
            limit_mib, most = arguments.memory_limit * 1024, arguments.most_tokens if not arguments.small else 4096
            details[table] = measure_largest(run, details["memory"], shapes, limit_mib, most, 1)
        details["settings"] = {**details["settings"], table: own}
        report = Measurements(report.environment, rows, baseline=BASELINE if rows else None, details=details)
        report.save(arguments.output)
    for row in report.rows:
        figures = row.values
        print(
            f"{row.case:28} {figures['tokens_per_s']:8.1f} tokens/s  x {row.ratio or float('nan'):5.2f}  "
            f"floor {figures['floor_share']:6.1%}  {figures['peak_memory_mib']:8.0f} MiB"
        )


if __name__ == "__main__":
    main()
