"""What distilling across two vocabularies costs: a step of each loss, and one of the same student over one vocabulary.

    python benchmarks/distillation/vocabularies.py --output benchmarks/results/vocabulary.json
    python benchmarks/distillation/vocabularies.py --shape small --steps 2 --output /tmp/vocabulary.json

Random weights; the cases take turns, each in a process of its own. Equal text for all: the teacher reads
`--sequences` sequences of `--tokens` tokens, the student the same words in its own pieces. Vocabularies are made such
that every word of the teacher is two pieces of the student for `--split` of the words.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertTokenizerFast,
    DistilBertConfig,
    DistilBertForMaskedLM,
    PreTrainedTokenizerFast,
)

from distilrubert.common.measurements import Environment, Measurements, Row
from distilrubert.common.processes import peak_memory_mib
from distilrubert.common.training.training_settings import OptimizationSettings
from distilrubert.common.training.update import build_optimizer
from distilrubert.distill.batches.masking_settings import MaskingSettings
from distilrubert.distill.batches.span_masking import SpanMasker
from distilrubert.distill.corpus.pairs import PairEncoder
from distilrubert.distill.losses import LossWeights
from distilrubert.distill.losses.objective import Objective
from distilrubert.distill.losses.term import Tokenizers
from distilrubert.distill.objective_settings import ObjectiveSettings
from distilrubert.evaluation.speed.speed_process import SpeedProcess
from distilrubert.evaluation.speed.speed_worker import serve
from distilrubert.modeling.student import Student
from distilrubert.modeling.teacher import Teacher

# Teacher: pieces, layers, width, heads, inner width; student: the same.
SHAPES = {
    "true": ((119_547, 12, 768, 12, 3072), (30_522, 3, 264, 12, 792)),
    "small": ((6_000, 2, 96, 4, 192), (2_000, 2, 48, 4, 96)),
}
ONE = "one-vocabulary"
CASES: dict[str, dict[str, float]] = {
    ONE: {"kl": 5.0, "mlm": 2.0},
    "first-token": {"first_token": 5.0, "mlm": 2.0},
    "match": {"match": 5.0, "mlm": 2.0},
    "reduce": {"reduce": 0.1, "mlm": 2.0},
    "match-and-reduce": {"match": 5.0, "reduce": 0.1, "mlm": 2.0},
    "reduce-map": {"reduce_map": 5.0, "mlm": 2.0},
}
WORKER = "--worker"
LETTERS = "абвгдежзиклмнопрстуфхцчшыьэюя"


def syllables(number: int) -> list[str]:
    """Different strings of three letters, of which there are 24,389."""
    names = (a + b + c for a in LETTERS for b in LETTERS for c in LETTERS)
    return [name for name, _ in zip(names, range(number), strict=False)]


def tokenizer_of(pieces: list[str]) -> PreTrainedTokenizerFast:
    """A cased BERT tokenizer of these pieces."""
    with tempfile.TemporaryDirectory() as folder:
        specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        Path(folder, "vocab.txt").write_text("\n".join([*specials, *pieces]), encoding="utf-8")
        return BertTokenizerFast.from_pretrained(folder, do_lower_case=False, strip_accents=False, model_max_length=512)


def vocabularies(teacher_size: int, student_size: int) -> tuple[list[str], list[str]]:
    """The student has syllables that begin and that continue words; the teacher these and words of two of them."""
    half = (student_size - 5) // 2
    own = syllables(half)
    pieces = [*own, *(f"##{syllable}" for syllable in own)]
    words = (first + second for first in own for second in own)
    longer = [word for word, _ in zip(words, range(teacher_size - 5 - len(pieces)), strict=False)]
    return [*pieces, *longer], pieces


def texts(words: list[str], single: list[str], rows: int, tokens: int, split: float) -> list[str]:
    """Sequences of words, a share of which the student splits."""
    generator = np.random.default_rng(0)
    chosen = [
        [generator.choice(words if generator.random() < split else single) for _ in range(tokens - 2)]
        for _ in range(rows)
    ]
    return [" ".join(row) for row in chosen]


def measure(case: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Run a case in this process."""
    torch.set_num_threads(arguments.threads)
    (its_size, *its), (own_size, *own) = SHAPES[arguments.shape]
    teacher_pieces, student_pieces = vocabularies(its_size, own_size)
    teacher_tokenizer = tokenizer_of(teacher_pieces)
    student_tokenizer = teacher_tokenizer if case == ONE else tokenizer_of(student_pieces)
    torch.manual_seed(0)
    keys = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")
    config = BertConfig(vocab_size=len(teacher_tokenizer), **dict(zip(keys, its, strict=True)))
    teacher = Teacher(BertForMaskedLM(config).eval().requires_grad_(False), teacher_tokenizer, "random")
    keys = ("n_layers", "dim", "n_heads", "hidden_dim")
    student_config = DistilBertConfig(vocab_size=len(student_tokenizer), **dict(zip(keys, own, strict=True)))
    student = Student(DistilBertForMaskedLM(student_config), student_tokenizer)
    longer = teacher_pieces[len(student_pieces) :]
    single = student_pieces[: len(student_pieces) // 2]
    text = texts(longer, single, arguments.sequences, arguments.tokens, arguments.split)
    pairs = [each[0] for each in PairEncoder(teacher_tokenizer, student_tokenizer, 512).encode(text)]
    counts = np.ones(len(student_tokenizer), dtype=np.int64)
    masker = SpanMasker(MaskingSettings(), teacher_tokenizer, student_tokenizer, counts, 0)
    layer_map = "all-mean" if "reduce" in CASES[case] else "block-mean"
    settings = ObjectiveSettings(weights=LossWeights(**CASES[case]), layer_map=layer_map)
    tokenizers = None if case == ONE else Tokenizers(teacher.tokenizer, student.tokenizer)
    objective = Objective(student.model, teacher.model, settings, tokenizers)
    optimizer = build_optimizer(objective, OptimizationSettings())
    seconds = []
    for step in range(1 + arguments.steps):
        batch = masker.collate(pairs, step, range(len(pairs)))
        began = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=arguments.precision == "bf16"):
            losses = objective(batch, objective.preparation()(batch).counts)
        losses["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - began)
    return {
        "step_s": statistics.median(seconds[1:]),
        "peak_memory_mib": peak_memory_mib(),
        "teacher_tokens": sum(len(pair.teacher.ids_L) for pair in pairs),
        "student_tokens": sum(len(pair.student.ids_L) for pair in pairs),
        "loss": float(losses["loss"].detach()),
    }


class VocabularyWorker:
    """Answers the commands of the measuring process."""

    def measure(self, case: str, **arguments: Any) -> dict[str, float]:
        """Run a case."""
        return measure(case, argparse.Namespace(**arguments))


def run(case: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Measure a case in a process of its own.

    Raises:
        UserError: if the process dies.
    """
    given = {name: value for name, value in vars(arguments).items() if name != "output"}
    with SpeedProcess(case, arguments.threads, (__file__, WORKER)) as process:
        figures: dict[str, float] = process.ask("measure", case=case, **given)
    print(case, json.dumps(figures), flush=True)
    return figures


def main() -> None:
    """Measure the cases in turns and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--shape", choices=SHAPES, default="true")
    parser.add_argument("--sequences", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=64, help="of a sequence, in the teacher's pieces")
    parser.add_argument("--split", type=float, default=0.25, help="share of the words that the student splits in two")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each case")
    parser.add_argument("--steps", type=int, default=3, help="of a turn, after one that does not count")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    arguments = parser.parse_args()
    turns = [{case: run(case, arguments) for case in CASES} for _ in range(arguments.rounds)]
    figures = {
        case: {key: statistics.median(turn[case][key] for turn in turns) for key in turns[0][case]} for case in CASES
    }
    rows = [Row(case, found, figures[ONE]["step_s"] / found["step_s"]) for case, found in figures.items()]
    details = {key: str(value) for key, value in vars(arguments).items() if key != "output"}
    Measurements(Environment.capture(arguments.threads), rows, ONE, details).save(arguments.output)


if __name__ == "__main__":
    if sys.argv[1:] == [WORKER]:
        serve(VocabularyWorker())
    else:
        main()
