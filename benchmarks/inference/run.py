"""How fast the files of each student run on this CPU: against the teacher, the peers and the CPU's own ceiling.

    python benchmarks/inference/run.py --output benchmarks/results/inference.json      about 40 minutes on two cores
    python benchmarks/inference/run.py --quick --output /tmp/inference.json            two minutes, to see that it runs

Each model is kept beside the output, in `NAME.parts/`, as soon as it is measured. The same command continues after it.

Shapes are the family's, weights random: speed does not depend on them. Every case has a process of its own, and the
cases of a model take turns with the teacher's, as in ``distilrubert benchmark``. Run it on an idle machine.

`rows` has a case for each model and file: sequences of 512 tokens, one at a time (latency) and sixteen (throughput),
with `ratio` to the teacher, the arithmetic that was reached and its share of the ceiling. `details.conversation` has
tokens/s on texts of real length; `details.ceiling_gflop_per_s` what one product reaches in the same runtime, at
the size that suits it best.
"""

import argparse
import dataclasses
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from chart import draw
from conversation import CASES as CONVERSATION_CASES
from conversation import LENGTHS, measure_conversation
from peers import PEERS, register_peers
from random_models import FULL, QUICK, Shape, write_model

from distilrubert.common.derived import derive
from distilrubert.common.formats import FORMATS, measured_cases
from distilrubert.common.measurements import Environment, Measurements, Row
from distilrubert.evaluation.speed.benchmark import SpeedCase, cases_of, measure_speed
from distilrubert.evaluation.speed.speed_process import SpeedProcess
from distilrubert.evaluation.speed.speed_settings import STARTS, SpeedSettings

HERE = Path(__file__).parent
WORKER = (str(HERE / "worker.py"),)
BASELINE = "teacher-pytorch-fp32"

# The worker does the same in its own process.
register_peers()


def main() -> None:
    """Measure and write the report."""
    options = _options()
    shapes = QUICK if options.quick else FULL
    settings = SpeedSettings(
        sequence_length=32 if options.quick else 512,
        batch_sizes=[1, 2] if options.quick else [1, 16],
        threads=options.threads,
        device="cpu",
        starts=1 if options.quick else options.starts,
        rounds=1 if options.quick else options.rounds,
        minimum_time_s=0.0 if options.quick else 0.5,
    )
    parts = options.output.with_name(f"{options.output.stem}.parts")
    ceiling = _ceiling(options)
    groups: dict[str, Measurements] = {}
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        teacher = write_model("teacher", shapes["teacher"], Path(work))
        for name in options.models or [*shapes][1:]:
            folder = write_model(name, shapes[name], Path(work))
            groups[name] = derive(_measured(parts / f"{name}.json", _cases(name, folder, teacher), settings))
        conversation = _conversation(Path(work) / next(iter(groups)), shapes, options)
    report = _report(groups, shapes, ceiling, conversation, settings)
    report.save(options.output)
    shutil.rmtree(parts)
    draw(report, options.output.with_suffix(".png"))
    for row in report.rows:
        share = row.values["share_of_ceiling"]
        print(
            f"{row.case:40} {row.values['size_mib']:7.1f} MiB {1000 * row.values['latency_s']:8.2f} ms "
            f"{row.values['samples_per_s']:8.2f}/s  x {row.ratio:6.2f}  {share or 0:4.0%} of the ceiling"
        )


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


def _measured(part: Path, cases: Sequence[SpeedCase], settings: SpeedSettings) -> Measurements:
    """The speed of the cases: what an earlier call has kept, if it was measured likewise, or anew."""
    if part.exists():
        kept = Measurements.load(part)
        here = dataclasses.replace(Environment.capture(settings.threads), date=kept.environment.date)
        if (kept.environment, kept.details) == (here, settings.model_dump()):
            print(f"{part}: measured already", flush=True)
            return kept
    found = measure_speed(cases, settings, WORKER)
    part.parent.mkdir(exist_ok=True)
    found.save(part)
    return found


def _cases(name: str, folder: Path, teacher: Path) -> list[SpeedCase]:
    ours = [case.name for case in measured_cases(FORMATS.values(), Environment.capture().instruction_sets)]
    found = cases_of(f"student-{name}", folder, [*ours, "pytorch-bf16", *PEERS])
    return [SpeedCase(BASELINE, teacher, "pytorch-fp32"), *found]


def _conversation(folder: Path, shapes: Mapping[str, Shape], options: argparse.Namespace) -> dict[str, Any]:
    cases = cases_of(folder.name, folder, CONVERSATION_CASES)
    return measure_conversation(
        cases,
        [min(length, 48) for length in LENGTHS[:64]] if options.quick else LENGTHS,
        vocabulary=shapes[folder.name].vocabulary_size,
        threads=options.threads,
        rounds=1 if options.quick else 3,
        program=WORKER,
    )


def _report(
    groups: Mapping[str, Measurements],
    shapes: Mapping[str, Shape],
    ceiling: Mapping[str, Mapping[str, float]],
    conversation: Mapping[str, Any],
    settings: SpeedSettings,
) -> Measurements:
    first = next(iter(groups.values()))
    rows = [_row(first[BASELINE], shapes["teacher"], ceiling, settings)]
    for name, group in groups.items():
        rows += [_row(row, shapes[name], ceiling, settings) for row in group.rows if row.case != BASELINE]
    details = {
        **first.details,
        "shapes": {name: dataclasses.asdict(shape) for name, shape in shapes.items()},
        "ceiling_gflop_per_s": ceiling,
        "conversation": conversation,
    }
    return Measurements(first.environment, rows, baseline=BASELINE, details=details)


def _row(row: Row, shape: Shape, ceiling: Mapping[str, Mapping[str, float]], settings: SpeedSettings) -> Row:
    gflop = shape.gflop(settings.sequence_length)
    reached = gflop * row.values["samples_per_s"]
    precision, runtime = _precision(row.case), _runtime(row.case)
    limit = ceiling[runtime].get(precision) if runtime else None
    fastest = max(products[precision] for products in ceiling.values() if precision in products)
    figures = {
        **row.values,
        "gflop": gflop,
        "gflop_per_s": reached,
        "share_of_ceiling": limit and reached / limit,
        "share_of_fastest_product": reached / fastest,
    }
    return Row(row.case, figures, row.values["latency_ratio"])


def _runtime(case: str) -> str | None:
    """The runtime whose products are a case's ceiling; None where none of it was measured."""
    measured = {"ortquantizer": "onnx", "nncf": "openvino"} | {name: name for name in ("pytorch", "onnx", "openvino")}
    return next((runtime for name, runtime in measured.items() if f"-{name}" in case), None)


def _precision(case: str) -> str:
    """In what a case multiplies."""
    if "int8" in case:
        return "int8"
    return "bf16" if case.endswith("bf16") else "fp32"


if __name__ == "__main__":
    main()
