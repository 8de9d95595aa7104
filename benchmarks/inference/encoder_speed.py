"""How fast encoders of sentences are on this CPU, from texts to vectors: teacher, students' files, a peer, a yardstick.

    python benchmarks/inference/encoder_speed.py --teacher FOLDER --students small=FOLDER tiny=FOLDER --corpus FOLDER
        --output benchmarks/results/sentence_speed.json                        all in one line

    … --quick --output /tmp/sentence_speed.json        tiny models in place of the yardstick's, to see that it runs

Every case is a model of sentence-transformers in a process of its own, on `--threads` threads, and encodes the same
texts: tokenizer, model, pooling. The cases take turns, and all processes begin anew for each of the starts. A pass over
all texts that does not count goes before, in which runtimes prepare themselves for each length. Run it on an idle
machine.

The corpus is Parquet files with a column `text`; the texts are evenly out of all. One at a time they give the latency,
in batches the texts/s. The peer is what a user of sentence-transformers would make of the teacher: its own export to
ONNX with dynamic int8. The yardstick's models have the published shapes and random weights and read the tokens of the
first student's tokenizer. A table of word vectors, as model2vec makes it, may stand among the students.

`rows` has raw seconds in `batches`: those for one text and for a batch, by start. `details.yardstick` has the published
figures of its models.
"""

import argparse
import contextlib
import dataclasses
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet
import torch
from transformers import AutoTokenizer
from yardstick import ENCODERS, write_random

from distilrubert.common.bars import progress_bar
from distilrubert.common.derived import derive
from distilrubert.common.errors import UserError
from distilrubert.common.formats import CHECKPOINT, FORMATS, OPENVINO_HINTS, FormatCase, Hint, measured_cases
from distilrubert.common.measurements import Environment, Measurements, Row
from distilrubert.common.processes import peak_memory_mib
from distilrubert.common.sampling import evenly
from distilrubert.conversion.onnx import quiet_exporters
from distilrubert.evaluation.sentences.frozen_vectors import BACKENDS, is_static
from distilrubert.evaluation.speed.speed_process import SpeedProcess
from distilrubert.evaluation.speed.speed_settings import STARTS
from distilrubert.evaluation.speed.speed_worker import serve
from distilrubert.modeling.checkpoints import quiet_transformers
from distilrubert.pipeline.exit_statuses import DONE, USER_ERROR

BASELINE = "teacher-pytorch-fp32"
PEER = "teacher-peer-sentence-transformers-onnx-int8"
YARDSTICK = "yardstick-"
PROMPT = "query: "
# Short of what the shortest models of the yardstick take, some of which count padding among their positions.
LONGEST = 500
WORKER = "--worker"


@dataclasses.dataclass(frozen=True)
class Case:
    """A file of a model.

    Attributes:
        name: of its row.
        folder: of the model.
        backend: of sentence-transformers.
        file_name: of its file in the folder; None: the checkpoint.
        hint: number format in which OpenVINO computes what is not int8.
        size_mib: of the file.
    """

    name: str
    folder: str
    backend: str = "torch"
    file_name: str | None = None
    hint: Hint = "fp32"
    size_mib: float = 0.0


class EncoderWorker:
    """Answers the commands of the measuring process."""

    def open(self, *, folder: str, backend: str, file_name: str | None, hint: Hint, threads: int) -> dict[str, Any]:
        """Load the model."""
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(threads)
        options: dict[str, Any] = {"dtype": torch.float32}
        if backend == "onnx":
            import onnxruntime

            sessions = onnxruntime.SessionOptions()
            sessions.intra_op_num_threads = threads
            options = {"file_name": file_name, "session_options": sessions, "provider": "CPUExecutionProvider"}
        if backend == "openvino":
            settings = {"INFERENCE_NUM_THREADS": str(threads), "INFERENCE_PRECISION_HINT": OPENVINO_HINTS[hint]}
            options = {"file_name": file_name, "ov_config": settings}
        with quiet_transformers():
            self._model = SentenceTransformer(
                folder, device="cpu", backend=backend, local_files_only=True, model_kwargs=options
            )
        # A table of word vectors has no longest text.
        if not is_static(self._model):
            self._model.max_seq_length = min(LONGEST, self._model.max_seq_length or LONGEST)
        return {}

    def measure(self, *, texts: list[str], batch_size: int) -> dict[str, Any]:
        """Seconds from the texts to their vectors: a call for each text, or one for all, which sorts them."""
        calls = [[text] for text in texts] if batch_size == 1 else [texts]
        begin = time.perf_counter()
        for call in calls:
            self._model.encode(call, prompt=PROMPT, batch_size=batch_size, show_progress_bar=False)
        return {"seconds": time.perf_counter() - begin}

    def count_tokens(self, *, texts: list[str]) -> dict[str, Any]:
        """Tokens of the texts, with the prompt."""
        found = self._model.preprocess([PROMPT + text for text in texts])
        return {"tokens": int(found.get("attention_mask", torch.ones_like(found["input_ids"])).sum())}

    def memory(self) -> dict[str, Any]:
        """The most that the process ever took."""
        return {"peak_memory_mib": peak_memory_mib()}


def student_cases(name: str, folder: Path) -> list[Case]:
    """A student's checkpoint and the int8 files that run here, each number format of OpenVINO by itself."""
    formats = [CHECKPOINT, *(entry for entry in FORMATS.values() if entry.precision == "int8" and entry.task is None)]
    present = [entry for entry in formats if entry.runs_here and entry.is_in(folder)]
    found = measured_cases(present, Environment.capture().instruction_sets)
    if not found:
        raise UserError(f"{folder}: has no file of a model")
    return [_case(f"{name}-{case.name}", folder, case) for case in found]


def _case(name: str, folder: Path, case: FormatCase) -> Case:
    backend, file_name = BACKENDS[case.format.runtime], None
    if backend != "torch":
        file_name = case.format.opened_in(folder).relative_to(folder).as_posix()
    return Case(name, str(folder), backend, file_name, case.hint, case.format.size_mib(folder))


def write_peer(teacher: Path, folder: Path) -> Case:
    """The teacher in dynamic int8, as sentence-transformers exports it for this processor."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.backend import export_dynamic_quantized_onnx_model

    sets = Environment.capture().instruction_sets
    kind = "avx512_vnni" if "avx512_vnni" in sets else "avx2" if "avx2" in sets else "arm64"
    with quiet_exporters():
        model = SentenceTransformer(str(teacher), backend="onnx", device="cpu", model_kwargs={"export": True})
        model.save_pretrained(str(folder))
        export_dynamic_quantized_onnx_model(model, kind, str(folder))
    (path,) = folder.glob("onnx/model_q*.onnx")
    return Case(PEER, str(folder), "onnx", path.relative_to(folder).as_posix(), size_mib=path.stat().st_size / 2**20)


def write_yardstick(tokenizer_folder: Path, folder: Path, *, quick: bool) -> list[Case]:
    """The yardstick's models; their size is the published one."""
    with quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    cases = []
    for encoder in ENCODERS:
        own = folder / encoder.short_name
        write_random(encoder.scaled_down() if quick else encoder, tokenizer, own)
        cases.append(Case(f"{YARDSTICK}{encoder.short_name}", str(own), size_mib=encoder.size_mib))
    return cases


def texts_of(corpus: Path, number: int) -> list[str]:
    """So many texts, evenly out of all."""
    files = sorted(corpus.glob("*.parquet"))
    texts = [text for file in files for text in pyarrow.parquet.read_table(file, columns=["text"])["text"].to_pylist()]
    if not texts:
        raise UserError(f"{corpus}: has no Parquet files with texts")
    return evenly(texts, number)


def measure(cases: Sequence[Case], texts: Sequence[str], options: argparse.Namespace) -> Measurements:
    """Let the cases take turns, in processes that begin anew for each start."""
    # One at a time takes longer for each text.
    parts = {1: list(texts)[: max(1, len(texts) // 4)], options.batch: list(texts)}
    seconds: dict[str, dict[int, list[float]]] = {case.name: {size: [] for size in parts} for case in cases}
    peaks = dict.fromkeys(seconds, 0.0)
    tokens = {}
    program = (__file__, WORKER)
    with progress_bar("speed", options.starts * len(parts) * len(cases), unit="turn") as bar:
        for start in range(options.starts):
            with contextlib.ExitStack() as stack:
                processes = {
                    case.name: stack.enter_context(SpeedProcess(case.name, options.threads, program)) for case in cases
                }
                for case in cases:
                    given = dataclasses.asdict(case)
                    own = {key: given[key] for key in ("folder", "backend", "file_name", "hint")}
                    processes[case.name].ask("open", **own, threads=options.threads)
                for size, given in parts.items():
                    # There and back, so that no case always follows the same other one.
                    for name in [*processes][:: 1 if start % 2 == 0 else -1]:
                        bar.set_postfix_str(name)
                        processes[name].ask("measure", texts=given, batch_size=size)
                        taken = processes[name].ask("measure", texts=given, batch_size=size)["seconds"]
                        seconds[name][size].append(taken / len(given) * size)
                        bar.update()
                for name, process in processes.items():
                    peaks[name] = max(peaks[name], process.ask("memory")["peak_memory_mib"])
                    tokens[name] = process.ask("count_tokens", texts=list(texts))["tokens"] / len(texts)
    rows = [
        Row(
            case.name,
            {
                "batches": {str(size): {"starts_s": found} for size, found in seconds[case.name].items()},
                "device": "cpu",
                "threads": options.threads,
                "hint": case.hint,
                "size_mib": case.size_mib,
                "peak_memory_mib": peaks[case.name],
                "tokens_per_text": tokens[case.name],
            },
        )
        for case in cases
    ]
    details = {
        "texts": len(texts),
        "texts_one_at_a_time": len(parts[1]),
        "characters_per_text": statistics.fmean(map(len, texts)),
        "batch": options.batch,
        "prompt": PROMPT,
        "yardstick": {f"{YARDSTICK}{encoder.short_name}": encoder.published for encoder in ENCODERS},
    }
    return Measurements(Environment.capture(options.threads), rows, BASELINE, details)


def main() -> int:
    """Measure and write the file; the exit status as the command line has it."""
    options = _options()
    try:
        report = _measure_all(options)
    except UserError as error:
        print(f"encoder_speed.py: {error}", file=sys.stderr)
        return USER_ERROR
    report.save(options.output)
    for row in derive(report).rows:
        values = row.values
        print(
            f"{row.case:50} {values['size_mib']:7.1f} MiB {1000 * values['latency_s']:8.2f} ms a text x "
            f"{values['latency_ratio']:5.2f} {values['samples_per_s']:8.1f} texts/s x {values['throughput_ratio']:5.2f}"
        )
    return DONE


def _measure_all(options: argparse.Namespace) -> Measurements:
    CHECKPOINT.find(options.teacher)
    texts = texts_of(options.corpus, options.texts)
    students = dict(options.students)
    cases = [Case(BASELINE, str(options.teacher), size_mib=CHECKPOINT.size_mib(options.teacher))]
    ours = [case for name, folder in students.items() for case in student_cases(name, folder)]
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        cases += [write_peer(options.teacher, Path(work) / "peer"), *ours]
        cases += write_yardstick(next(iter(students.values())), Path(work), quick=options.quick)
        return measure(cases, texts, options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--teacher", type=Path, required=True, metavar="FOLDER")
    add("--students", type=_named_folder, nargs="+", required=True, metavar="NAME=FOLDER", help="of published files")
    add("--corpus", type=Path, required=True, metavar="FOLDER", help="of Parquet files with a column text")
    add("--output", type=Path, required=True, metavar="FILE", help="JSON file to write")
    add("--texts", type=int, default=256, metavar="N", help="texts out of the corpus")
    add("--batch", type=int, default=32, metavar="N", help="texts of a batch")
    add("--threads", type=int, default=2, metavar="N")
    add("--starts", type=int, default=STARTS, metavar="N", help="processes of each case")
    add("--work", type=Path, metavar="DIR", help="where models are made meanwhile; 6 GB")
    add("--quick", action="store_true", help="one start, few texts, tiny models as the yardstick")
    options = parser.parse_args()
    if options.quick:
        options.texts, options.starts, options.batch = min(options.texts, 8), 1, 4
    elif options.starts < STARTS:
        parser.error(f"--starts {options.starts}: results for the documentation need at least {STARTS}; or use --quick")
    return options


def _named_folder(text: str) -> tuple[str, Path]:
    name, _, folder = text.partition("=")
    if not name or not folder:
        raise argparse.ArgumentTypeError(f"found {text!r}; NAME=FOLDER is needed")
    return name, Path(folder)


if __name__ == "__main__":
    if sys.argv[1:] == [WORKER]:
        serve(EncoderWorker())
    else:
        sys.exit(main())
