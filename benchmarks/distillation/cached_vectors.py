"""What it gains to compute the teacher's vectors of sentences once: updates a second with and without.

    python benchmarks/distillation/cached_vectors.py --output benchmarks/results/cached_vectors.json
    python benchmarks/distillation/cached_vectors.py --quick --output /tmp/cached_vectors.json    to see that it runs

An update is what `distill` computes for a batch of sentences with the losses ``sentence_cosine`` and ``similarity``:
the teacher's forward pass (where its vectors do not come with the batch), the student's forward and backward pass, and
AdamW. Shapes are multilingual-e5-small's, weights random, word embeddings frozen, no dropout, as in the recipes. Each
figure is the median update of a process of its own; the cases take turns, and start k is compared with start k. Run it
on an idle machine. To compute the vectors once costs a forward pass of the teacher over the corpus, which is not in
these figures.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import BertConfig, BertModel, DistilBertConfig, DistilBertModel

from distilrubert.common.measurements import Environment, Measurements, Row
from distilrubert.common.training.training_settings import OptimizationSettings
from distilrubert.common.training.update import autocast, build_optimizer
from distilrubert.distill.batches.masking import Masker
from distilrubert.distill.batches.masking_settings import MaskingSettings
from distilrubert.distill.losses import LossWeights
from distilrubert.distill.losses.objective import Objective
from distilrubert.distill.objective_settings import ObjectiveSettings
from distilrubert.distill.teacher_vectors import VectorCollator
from distilrubert.evaluation.speed.speed_process import SpeedProcess
from distilrubert.evaluation.speed.speed_settings import STARTS
from distilrubert.evaluation.speed.speed_worker import serve

TEACHER_LAYERS = 12
STUDENTS = {"6 layers": 6, "3 layers": 3}
WHOLE, CACHED = "teacher in each update", "vectors kept"
CASES = {f"{student}, {form}": (layers, form) for student, layers in STUDENTS.items() for form in (WHOLE, CACHED)}
WEIGHTS = LossWeights(sentence_cosine=20.0, similarity=30.0)
NO_MASKS = MaskingSettings().model_copy(update={"probability": 0.0})
# Width, heads, inner width: multilingual-e5-small's; and small ones.
SHAPES = {"true": (384, 12, 1536), "small": (32, 2, 64)}
VOCABULARY = 10_000
WORKER = "--worker"


def measure(case: str, options: argparse.Namespace) -> dict[str, float]:
    """Run a case in this process."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    layers, form = CASES[case]
    width, heads, inner = SHAPES[options.shape]
    teacher = BertModel(
        BertConfig(
            vocab_size=VOCABULARY,
            hidden_size=width,
            num_hidden_layers=TEACHER_LAYERS,
            num_attention_heads=heads,
            intermediate_size=inner,
        ),
        add_pooling_layer=False,
    ).requires_grad_(False)
    student = DistilBertModel(
        DistilBertConfig(vocab_size=VOCABULARY, n_layers=layers, dim=width, n_heads=heads, hidden_dim=inner)
    )
    objective = Objective(student, teacher.eval(), ObjectiveSettings(weights=WEIGHTS))
    objective.set_training(dropout=False, gradient_checkpointing=False)
    student.get_input_embeddings().requires_grad_(False)
    optimizer = build_optimizer(objective, OptimizationSettings())
    generator = np.random.default_rng(0)
    # Of different lengths, so that most are padded.
    lengths = generator.integers(options.tokens // 2, 3 * options.tokens // 2, options.sentences, endpoint=True)
    texts = [generator.integers(5, VOCABULARY, length, dtype=np.int32) for length in lengths]
    counts = np.ones(VOCABULARY, dtype=np.int64)
    masker = Masker(NO_MASKS, counts, special_ids=range(5), mask_id=None, seed=0)
    vectors_ND = generator.standard_normal((len(texts), width), dtype=np.float32)
    seconds = []
    for step in range(1 + options.steps):
        begin = time.perf_counter()
        if form == CACHED:
            examples = list(zip(texts, vectors_ND, strict=True))
            batch = VectorCollator(masker).collate(examples, step, range(len(texts)))
        else:
            batch = masker.collate(texts, step, range(len(texts)))
        with autocast(torch.device("cpu"), options.precision):
            losses = objective(batch, objective.preparation()(batch).counts)
        losses["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - begin)
    return {"update_s": statistics.median(seconds[1:]), "tokens": int(lengths.sum())}


class CacheWorker:
    """Answers the commands of the measuring process."""

    def measure(self, case: str, **options: Any) -> dict[str, float]:
        """Run a case."""
        return measure(case, argparse.Namespace(**options))


def run(case: str, options: argparse.Namespace) -> dict[str, float]:
    """Measure a case in a process of its own.

    Raises:
        UserError: if the process dies.
    """
    given = {name: value for name, value in vars(options).items() if name != "output"}
    with SpeedProcess(case, options.threads, (__file__, WORKER)) as process:
        figures: dict[str, float] = process.ask("measure", case=case, **given)
    print(case, json.dumps(figures), flush=True)
    return figures


def gains(starts: dict[str, list[float]]) -> list[Row]:
    """A row for each case out of the seconds of an update in each start, against the same student without a cache."""
    rows = []
    for case, seconds in starts.items():
        whole = starts[f"{case.partition(', ')[0]}, {WHOLE}"]
        ratios = [other / own for own, other in zip(seconds, whole, strict=True)]
        values = {
            "starts_s": seconds,
            "updates_per_s": 1 / statistics.median(seconds),
            "ratio_range": [min(ratios), max(ratios)],
        }
        rows.append(Row(case, values, statistics.median(ratios)))
    return rows


def main() -> None:
    """Measure the cases in turns and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--output", type=Path, required=True, metavar="FILE", help="JSON file to write")
    add("--sentences", type=int, default=48, metavar="N", help="of a batch")
    add("--tokens", type=int, default=20, metavar="N", help="of a sentence, in the mean")
    add("--starts", type=int, default=STARTS, metavar="N", help="processes of each case")
    add("--steps", type=int, default=10, metavar="N", help="updates of a start, after one that does not count")
    add("--threads", type=int, default=2, metavar="N")
    add("--precision", choices=["fp32", "bf16"], default="fp32")
    add("--quick", action="store_true", help="small shapes, one start")
    options = parser.parse_args()
    if not options.quick and options.starts < STARTS:
        parser.error(f"--starts {options.starts}: results for the documentation need at least {STARTS}; or use --quick")
    options.shape = "small" if options.quick else "true"
    if options.quick:
        options.starts, options.steps = 1, 2
    # There and back, so that no case always follows the same other one.
    turns = [
        {case: run(case, options) for case in [*CASES][:: 1 if start % 2 == 0 else -1]}
        for start in range(options.starts)
    ]
    rows = gains({case: [turn[case]["update_s"] for turn in turns] for case in CASES})
    details = {key: value for key, value in vars(options).items() if key != "output"}
    details["tokens_per_update"] = turns[0][rows[0].case]["tokens"]
    Measurements(Environment.capture(options.threads), rows, details=details).save(options.output)


if __name__ == "__main__":
    if sys.argv[1:] == [WORKER]:
        serve(CacheWorker())
    else:
        main()
