"""How fast the files of each student run on this CPU: against the teacher, the peers and the CPU's own ceiling.

    python benchmarks/inference/run.py --output benchmarks/results/inference.json     5 to 35 minutes a model
    python benchmarks/inference/run.py --quick --output /tmp/inference.json            two minutes, to see that it runs

What is measured is kept beside the output, in `NAME.parts/`, model by model. The same command continues after it.

Shapes are the family's, weights random: speed does not depend on them. Every case has a process of its own, and the
cases of a model take turns with the teacher's, as in ``distilrubert benchmark``. Run it on an idle machine.

`rows` has a case for each model and file. `inputs` of a row has its figures for each kind of input: sequences of 512,
128 and 32 tokens, and `texts`, the demo's dialogues and their speeches with the tokenizer in the time. Each is measured
one at a time (latency) and sixteen at once (throughput), with ratios to the teacher. Those of 512 tokens are also the
row's own, with the arithmetic that was reached and its share of the ceiling. `details.ceiling_gflop_per_s` is what one
product reaches in the same runtime, at the size that suits it best; `details.benchmark_app` what OpenVINO's own
program says of one of the files.
"""

import argparse
import dataclasses
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from chart import draw
from peers import PEERS, register_peers
from random_models import FULL, QUICK, Shape, conversation, write_model

from distilrubert.common.derived import derive
from distilrubert.common.formats import FORMATS, measured_cases
from distilrubert.common.measurements import Environment, Measurements, Row
from distilrubert.evaluation.speed.benchmark import SpeedCase, cases_of, measure_speeds
from distilrubert.evaluation.speed.speed_process import SpeedProcess
from distilrubert.evaluation.speed.speed_settings import STARTS, SpeedSettings

HERE = Path(__file__).parent
WORKER = (str(HERE / "worker.py"),)
BASELINE = "teacher-pytorch-fp32"
LENGTHS = (512, 128, 32)
WHOLE = "512-tokens"
# Of the demo's dialogues and speeches.
TEXTS = 64
CHECKED = "openvino/openvino_model_qint8_quantized.xml"

# The worker does the same in its own process.
register_peers()


def main() -> None:
    """Measure and write the report."""
    options = _options()
    shapes = QUICK if options.quick else FULL
    kinds = _kinds(options)
    parts = options.output.with_name(f"{options.output.stem}.parts")
    ceiling = _ceiling(options)
    groups: dict[str, dict[str, Measurements]] = {}
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        teacher = write_model("teacher", shapes["teacher"], Path(work))
        for name in options.models or [*shapes][1:]:
            folder = write_model(name, shapes[name], Path(work))
            groups[name] = _measured(parts / name, _cases(name, folder, teacher), kinds)
        first = next(iter(groups))
        check = _benchmark_app(Path(work) / first / CHECKED, kinds[WHOLE])
    report = _report(groups, shapes, ceiling, kinds)
    report.details["benchmark_app"] = {"case": f"student-{first}-openvino-int8", "latency_s": check}
    report.save(options.output)
    shutil.rmtree(parts)
    draw(report, options.output.with_suffix(".png"))
    for row in report.rows:
        share = row.values["share_of_ceiling"]
        print(
            f"{row.case:40} {row.values['size_mib']:7.1f} MiB {1000 * row.values['latency_s']:8.2f} ms "
            f"{row.values['samples_per_s']:8.2f}/s  x {row.ratio:6.2f}  {share or 0:4.0%} of the ceiling"
        )


def _kinds(options: argparse.Namespace) -> dict[str, SpeedSettings]:
    """How each kind of input is measured."""
    settings = SpeedSettings(
        batch_sizes=[1, 2] if options.quick else [1, 16],
        threads=options.threads,
        device="cpu",
        starts=1 if options.quick else options.starts,
        rounds=1 if options.quick else options.rounds,
        minimum_time_s=0.0 if options.quick else 0.5,
    )
    lengths = {f"{length}-tokens": {"sequence_length": 32 if options.quick else length} for length in LENGTHS}
    how = {**lengths, "texts": {"texts": 4 if options.quick else TEXTS}}
    return {kind: settings.model_copy(update=own) for kind, own in how.items()}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="JSON file to write")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), metavar="N")
    parser.add_argument("--starts", type=int, default=STARTS, metavar="N", help="processes of each case")
    parser.add_argument("--rounds", type=int, default=1, metavar="N", help="turns of each at each batch size")
    parser.add_argument("--models", nargs="+", choices=[*FULL][1:], metavar="NAME", help=f"of {', '.join([*FULL][1:])}")
    parser.add_argument("--work", type=Path, metavar="DIR", help="where the models are made meanwhile; 8 GB")
    parser.add_argument("--quick", action="store_true", help="small shapes, one round")
    options = parser.parse_args()
    if not options.quick and options.starts < STARTS:
        parser.error(f"--starts {options.starts}: results for the documentation need at least {STARTS}; or use --quick")
    return options


def _ceiling(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """GFLOP/s of one product, by runtime and precision, each runtime in a process of its own."""
    sizes = [256] if options.quick else [512, 1024, 2048, 4096]
    found = {}
    for runtime in ("openvino", "onnx", "pytorch"):
        with SpeedProcess(runtime, options.threads, (str(HERE / "ceiling.py"),)) as process:
            found[runtime] = process.ask("measure", runtime=runtime, threads=options.threads, sizes=sizes)
    return found


def _measured(folder: Path, cases: Sequence[SpeedCase], kinds: Mapping[str, SpeedSettings]) -> dict[str, Measurements]:
    """The speed of the cases on each kind of input: what an earlier call has kept if it was measured alike, or anew."""
    paths = [folder / f"{kind}.json" for kind in kinds]
    found = [Measurements.load(path) for path in paths if path.exists()]
    here = Environment.capture(kinds[WHOLE].threads)
    is_alike = all(
        report.environment.is_like(here) and [row.case for row in report.rows] == [case.name for case in cases]
        for report in found
    )
    if is_alike and [report.details for report in found] == [settings.model_dump() for settings in kinds.values()]:
        print(f"{folder}: measured already", flush=True)
    else:
        found = measure_speeds(cases, list(kinds.values()), WORKER, conversation())
        folder.mkdir(parents=True, exist_ok=True)
        for path, report in zip(paths, found, strict=True):
            report.save(path)
    return dict(zip(kinds, map(derive, found), strict=True))


def _cases(name: str, folder: Path, teacher: Path) -> list[SpeedCase]:
    sets = Environment.capture().instruction_sets
    ours = [case.name for case in measured_cases(FORMATS.values(), sets)]
    if "avx512_vnni" in sets:
        # It is for CPUs without.
        ours.remove("onnx-int8-avx2")
    peers = [case for case in PEERS if "compiled" not in case or shutil.which("g++")]
    found = cases_of(f"student-{name}", folder, [*ours, "pytorch-bf16", *peers])
    return [SpeedCase(BASELINE, teacher, "pytorch-fp32"), *found]


def _benchmark_app(path: Path, settings: SpeedSettings) -> float | None:
    """Seconds of a sequence, the median, as OpenVINO's own program measures them."""
    shape = f"[1,{settings.sequence_length}]"
    found = subprocess.run(
        [
            *(Path(sys.executable).with_name("benchmark_app"), "-m", path, "-d", "CPU", "-t", "3"),
            *("-api", "sync", "-hint", "none", "-nstreams", "1", "-nthreads", str(settings.threads)),
            *("-infer_precision", "f32", "-data_shape", f"input_ids{shape},attention_mask{shape}"),
        ],
        capture_output=True, text=True,
    )  # fmt: skip
    median = re.search(r"Median:\s+([\d.]+) (us|ms|s)", found.stdout)
    return float(median[1]) * {"us": 1e-6, "ms": 1e-3, "s": 1.0}[median[2]] if median else None


def _report(
    groups: Mapping[str, Mapping[str, Measurements]],
    shapes: Mapping[str, Shape],
    ceiling: Mapping[str, Mapping[str, float]],
    kinds: Mapping[str, SpeedSettings],
) -> Measurements:
    first = next(iter(groups.values()))[WHOLE]
    rows: list[Row] = []
    for name, reports in groups.items():
        for row in reports[WHOLE].rows:
            if row.case != BASELINE or not rows:
                shape = shapes["teacher" if row.case == BASELINE else name]
                inputs = {kind: _figures(report[row.case]) for kind, report in reports.items()}
                rows.append(_row(row, inputs, shape, ceiling, kinds[WHOLE]))
    details = {
        **first.details,
        "texts": kinds["texts"].texts,
        "shapes": {name: dataclasses.asdict(shape) for name, shape in shapes.items()},
        "ceiling_gflop_per_s": ceiling,
    }
    return Measurements(first.environment, rows, baseline=BASELINE, details=details)


def _figures(row: Row) -> dict[str, Any]:
    """Those of one kind of input."""
    ratios = (f"{what}_ratio{end}" for what in ("latency", "throughput") for end in ("", "_range"))
    names = ("latency_s", "samples_per_s", "tokens_per_text", *ratios)
    return {name: row.values[name] for name in names if name in row.values}


def _row(
    row: Row,
    inputs: Mapping[str, Any],
    shape: Shape,
    ceiling: Mapping[str, Mapping[str, float]],
    settings: SpeedSettings,
) -> Row:
    gflop = shape.gflop(settings.sequence_length)
    reached = gflop * row.values["samples_per_s"]
    precision, runtime = _precision(row.case), _runtime(row.case)
    limit = ceiling[runtime].get(precision) if runtime else None
    fastest = max(products[precision] for products in ceiling.values() if precision in products)
    figures = {
        **row.values,
        "inputs": inputs,
        "gflop": gflop,
        "gflop_per_s": reached,
        "share_of_ceiling": limit and reached / limit,
        "share_of_fastest_product": reached / fastest,
    }
    return Row(row.case, figures, row.values["latency_ratio"])


def _runtime(case: str) -> str | None:
    """The runtime whose products are a case's ceiling; None where none of it was measured."""
    measured = {"ortquantizer": "onnx", "ortoptimizer": "onnx", "nncf": "openvino"}
    measured |= {name: name for name in ("pytorch", "onnx", "openvino")}
    return next((runtime for name, runtime in measured.items() if f"-{name}" in case), None)


def _precision(case: str) -> str:
    """In what a case multiplies."""
    if "int8" in case:
        return "int8"
    return "bf16" if case.endswith("bf16") else "fp32"


if __name__ == "__main__":
    main()
