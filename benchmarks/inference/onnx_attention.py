"""The int8 ONNX files, whose attention is one operator of ONNX Runtime, against the same with attention written out.

python benchmarks/inference/onnx_attention.py --output benchmarks/results/onnx_attention.json      about four minutes

The two take turns, and each turn is a new session: threads of another session would take part of the processor.
`time_ratio` is the median over turns of the seconds of the published file over those of the other. Weights are random.
"""

import argparse
import functools
import statistics
import tempfile
from pathlib import Path

import numpy as np
import torch
from random_models import FULL, export_source, make_tokenizer

from distilrubert.common.bars import tracked
from distilrubert.common.measurements import Environment, Measurements, Row
from distilrubert.conversion.onnx import graph_of
from distilrubert.conversion.quantization import quantize_onnx
from distilrubert.evaluation.speed.speed_worker import timed_passes

MODELS = ("base", "slim", "tiny")
# Tokens of a text, and texts at once.
INPUTS = ((16, 1), (32, 1), (128, 1), (512, 1), (16, 16), (128, 16))
FORMS = {"one_operator": True, "written_out": False}


def write_forms(model: str, work: Path) -> dict[str, Path]:
    """The int8 file of a shape in both forms."""
    torch.manual_seed(0)
    source = export_source(FULL[model], make_tokenizer(FULL[model], work))
    paths = {form: work / f"{model}-{form}.onnx" for form in FORMS}
    for form, path in paths.items():
        quantize_onnx(graph_of(source.smoothed, source.task, fused_attention=FORMS[form]), path)
    return paths


def turn(path: Path, threads: int, seconds: float) -> dict[str, float]:
    """The median seconds of a pass over each kind of input, in a session of its own."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    random, found = np.random.default_rng(0), {}
    for length, batch in INPUTS:
        ids_BL = random.integers(5, 400, (batch, length))
        inputs = {"input_ids": ids_BL, "attention_mask": np.ones_like(ids_BL)}
        passes = timed_passes(functools.partial(session.run, None, inputs), 2, seconds)
        found[f"{length} x {batch}"] = statistics.median(passes)
    return found


def main() -> None:
    """Make the files, measure and write the report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="JSON file to write")
    parser.add_argument("--models", nargs="+", choices=[*FULL][1:], default=MODELS, metavar="NAME")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), metavar="N")
    parser.add_argument("--turns", type=int, default=9, metavar="N")
    parser.add_argument("--seconds", type=float, default=0.3, metavar="S", help="of a turn on one kind of input")
    options = parser.parse_args()
    rows = []
    for model in options.models:
        with tempfile.TemporaryDirectory() as work:
            paths = write_forms(model, Path(work))
            turns: dict[str, list[dict[str, float]]] = {form: [] for form in paths}
            for index in tracked(range(options.turns), model, unit="turn"):
                for form in [*paths][:: 1 if index % 2 == 0 else -1]:
                    turns[form].append(turn(paths[form], options.threads, options.seconds))
        for given in turns["one_operator"][0]:
            seconds = {f"{form}_s": [found[given] for found in own] for form, own in turns.items()}
            ratios = [one / other for one, other in zip(*seconds.values(), strict=True)]
            rows.append(Row(f"{model}-{given}", {**seconds, "time_ratio": statistics.median(ratios)}))
            print(f"{rows[-1].case:20} {rows[-1].values['time_ratio']:.3f}", flush=True)
    details = {"turns": options.turns, "seconds": options.seconds}
    Measurements(Environment.capture(options.threads), rows, None, details).save(options.output)


if __name__ == "__main__":
    main()
