"""What preparing a large corpus takes: memory at two sizes, speed beside the bare tokenizer, and parts that agree.

    python benchmarks/scale.py --output benchmarks/results/scale.json
    python benchmarks/scale.py --quick --output /tmp/scale.json

The text is that of DISTILRUBERT_DATA, or of the demo, repeated; each line begins with its number, or it would be
dropped as a duplicate. Each measurement is a process of its own.

- `memory`: the peak of the preparing process and of its largest tokenising process at `--sizes` GB. A line through the
  two smallest sizes gives `extrapolated_10_gb_mib`.
- `throughput`: bytes of text a second, of the whole of preparing and of the tokenizer alone on the same text in memory,
  by as many processes; they take turns. The `ratio` is that of their medians.
- `parts`: the same corpus by 1, 2 and 4 processes started together; one of the four is killed after its first shard
  and its part is done by the others. The files must be the same to the byte.
"""

import argparse
import dataclasses
import json
import multiprocessing
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from itertools import count
from pathlib import Path
from typing import Any

import psutil
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from distilrubert.common.measurements import Environment
from distilrubert.common.persistence import sha256_of, write_json
from distilrubert.common.processes import available_cores, peak_memory_mib
from distilrubert.distill.corpus.build import CorpusBuild
from distilrubert.distill.corpus.corpus_settings import CorpusSettings, CorpusSource
from distilrubert.distill.corpus.parts import Part
from distilrubert.distill.corpus.sources import iterate_texts
from distilrubert.modeling.tokenizer_kinds import plain_tokenizer
from distilrubert.modeling.wordpiece import train_wordpiece

ROOT = Path(__file__).parents[1]
SEED = 7
# As the pool has it.
TEXTS_AT_ONCE = 256
FILES = 8


def texts_of(data: str | None) -> list[str]:
    """The text to repeat."""
    path = f"{data}/corpus/*.parquet" if data else str(ROOT / "recipes/demo/dialogues.txt")
    return [text.replace("\n", " ") for text in iterate_texts([CorpusSource(path=path)])]


def write_text(texts: list[str], size: float, folder: Path) -> int:
    """Write `size` bytes of numbered lines to files in a folder; their number."""
    folder.mkdir()
    written, numbers = 0, count()
    for number in range(FILES):
        with (folder / f"{number}.txt").open("w", encoding="utf-8") as file:
            while written < size * (number + 1) / FILES:
                for text in texts:
                    line = f"{next(numbers)} {text}\n"
                    file.write(line)
                    written += len(line.encode())
                    if written >= size * (number + 1) / FILES:
                        break
    return written


def tokenizer_of(data: str | None, folder: Path) -> Path:
    """The folder of a tokenizer: that of the data, or one that is trained on the demo."""
    if data:
        return Path(data) / "teacher"
    train_wordpiece(texts_of(None), 2000).tokenizer.save_pretrained(folder)
    return folder


def build_of(text: Path, tokenizer: Path, folder: Path, processes: int) -> CorpusBuild:
    """The corpus that every measurement makes."""
    settings = CorpusSettings(sources=[CorpusSource(path=f"{text}/*.txt")], processes=processes)
    return CorpusBuild(settings, AutoTokenizer.from_pretrained(tokenizer, trust_remote_code=False), folder, SEED)


def prepare(options: argparse.Namespace) -> dict[str, Any]:
    """Make the corpus alone; seconds and memory."""
    build = build_of(options.text, options.tokenizer, options.folder, options.processes)
    peak, done = 0.0, threading.Event()
    began = time.perf_counter()

    def watch() -> None:
        nonlocal peak
        me = psutil.Process()
        while not done.wait(0.2):
            for child in me.children():
                try:
                    peak = max(peak, child.memory_info().rss / 2**20)
                except psutil.Error:
                    continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    corpus = build.build()
    seconds = time.perf_counter() - began
    done.set()
    watcher.join()
    total = corpus.manifest["total"]
    return {
        "seconds": seconds,
        "peak_mib": peak_memory_mib(),
        "worker_peak_mib": peak,
        "texts": total["texts"],
        "tokens": total["train_tokens"] + total["validation_tokens"],
    }


_bare: PreTrainedTokenizerFast


def _encode_all(texts: list[str]) -> int:
    backend = plain_tokenizer(_bare)
    batches = (texts[start : start + TEXTS_AT_ONCE] for start in range(0, len(texts), TEXTS_AT_ONCE))
    return sum(len(each) for batch in batches for each in backend.encode_batch_fast(batch, add_special_tokens=False))


def bare(options: argparse.Namespace) -> dict[str, Any]:
    """Tokenise the same text from memory, and keep nothing of it; seconds."""
    global _bare
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _bare = AutoTokenizer.from_pretrained(options.tokenizer, trust_remote_code=False)
    texts = list(iterate_texts([CorpusSource(path=f"{options.text}/*.txt")]))
    shares = [texts[number :: options.processes] for number in range(options.processes)]
    context = multiprocessing.get_context("fork")
    # Inherited by the fork: the text is not sent.
    processes = [context.Process(target=_encode_all, args=(share,)) for share in shares]
    began = time.perf_counter()
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert all(process.exitcode == 0 for process in processes), "a tokenising process died"
    return {"seconds": time.perf_counter() - began}


def part(options: argparse.Namespace) -> dict[str, Any]:
    """Work on parts as one of several processes that were started together."""
    build = build_of(options.text, options.tokenizer, options.folder, 1)
    return {"all_done": build.build_free_parts(Part(options.number, options.count))}


WORK = {"prepare": prepare, "bare": bare, "part": part}


def start(work: str, **arguments: Any) -> subprocess.Popen[str]:
    """A process that does one piece of work."""
    given = [text for name, value in arguments.items() for text in (f"--{name}", str(value))]
    return subprocess.Popen([sys.executable, __file__, "--work", work, *given], stdout=subprocess.PIPE, text=True)


def result_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What a process says."""
    said, _ = process.communicate()
    assert process.returncode == 0, f"a measuring process ended with status {process.returncode}"
    return dict(json.loads(said.splitlines()[-1]))


def measure_memory(options: argparse.Namespace, texts: list[str], tokenizer: Path, scratch: Path) -> dict[str, Any]:
    """Peak memory at each size, and what a line through the two smallest says of 10 GB."""
    rows = []
    for size in options.sizes:
        text = scratch / "text"
        written = write_text(texts, size * 1e9, text)
        process = start(
            "prepare", text=text, tokenizer=tokenizer, folder=scratch / "corpus", processes=options.processes
        )
        rows.append({"gb": written / 1e9, **result_of(process)})
        print(json.dumps(rows[-1]), flush=True)
        shutil.rmtree(text)
        shutil.rmtree(scratch / "corpus")
    one, two = rows[:2]
    slope = (two["peak_mib"] - one["peak_mib"]) / (two["gb"] - one["gb"])
    law = {"mib_at_zero": one["peak_mib"] - slope * one["gb"], "mib_per_gb": slope}
    return {"rows": rows, "law": law, "extrapolated_10_gb_mib": law["mib_at_zero"] + 10 * slope}


def measure_throughput(options: argparse.Namespace, texts: list[str], tokenizer: Path, scratch: Path) -> dict[str, Any]:
    """Preparing and the tokenizer alone, in turns."""
    text = scratch / "text"
    written = write_text(texts, options.throughput_mb * 1e6, text)
    seconds: dict[str, list[float]] = {"prepare": [], "bare": []}
    for _ in range(options.turns):
        for work, taken in seconds.items():
            folder = scratch / "corpus"
            process = start(work, text=text, tokenizer=tokenizer, folder=folder, processes=options.processes)
            taken.append(result_of(process)["seconds"])
            shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(text)
    medians = {work: written / statistics.median(taken) for work, taken in seconds.items()}
    return {
        "bytes": written,
        "processes": options.processes,
        "seconds": seconds,
        "bytes_per_s": medians,
        "ratio": medians["prepare"] / medians["bare"],
    }


def measure_parts(options: argparse.Namespace, texts: list[str], tokenizer: Path, scratch: Path) -> dict[str, Any]:
    """The corpus by 1, 2 and 4 processes, one of the four killed."""
    text = scratch / "text"
    written = write_text(texts, options.parts_gb * 1e9, text)
    digests, seconds, killed = {}, {}, False
    for number_of in (1, 2, 4):
        folder = scratch / f"corpus-{number_of}"
        began = time.perf_counter()
        processes = [
            start("part", text=text, tokenizer=tokenizer, folder=folder, number=number, count=number_of)
            for number in range(1, number_of + 1)
        ]
        if number_of == 4:
            shards = folder.with_name(f".{folder.name}.shards") / "part-00002"
            while processes[1].poll() is None and not list(shards.glob("shard-*")):
                time.sleep(0.01)
            processes[1].send_signal(signal.SIGKILL)
            killed = processes[1].wait() == -signal.SIGKILL
            processes[1].communicate()
            del processes[1]
        for process in processes:
            result_of(process)
        # Whoever was last has seen that all is done; this one puts it together.
        result_of(start("prepare", text=text, tokenizer=tokenizer, folder=folder, processes=1))
        seconds[number_of] = time.perf_counter() - began
        digests[number_of] = {path.name: sha256_of(path) for path in sorted(folder.iterdir())}
        shutil.rmtree(folder)
    shutil.rmtree(text)
    assert killed, "the second of four parts was done before it could be killed; take more text"
    same = all(digest == digests[1] for digest in digests.values())
    return {"bytes": written, "seconds": seconds, "identical": same, "one_killed": killed, "files": digests[1]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="JSON file to write")
    parser.add_argument("--quick", action="store_true", help="small sizes and two turns: whether it works")
    parser.add_argument("--sizes", type=float, nargs="+", default=[0.1, 1.0], metavar="GB")
    parser.add_argument("--throughput-mb", type=float, default=200.0)
    parser.add_argument("--parts-gb", type=float, default=1.0)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--processes", type=int, default=available_cores())
    parser.add_argument("--scratch", type=Path, help="folder for text and corpora (default: that of the system)")
    hidden = {"work": str, "text": Path, "tokenizer": Path, "folder": Path, "number": int, "count": int}
    for name, kind in hidden.items():
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        print(json.dumps(WORK[options.work](options)))
        return
    if options.quick:
        options.sizes, options.throughput_mb, options.parts_gb, options.turns = [0.002, 0.01], 4.0, 0.02, 2
    data = os.environ.get("DISTILRUBERT_DATA")
    texts = texts_of(data)
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        scratch = Path(folder)
        tokenizer = tokenizer_of(data, scratch / "tokenizer")
        report = {
            "environment": dataclasses.asdict(Environment.capture()),
            "text": "reference" if data else "demo",
            "quick": options.quick,
            "throughput": measure_throughput(options, texts, tokenizer, scratch),
            "memory": measure_memory(options, texts, tokenizer, scratch),
            "parts": measure_parts(options, texts, tokenizer, scratch),
        }
    print(json.dumps(report, indent=2))
    if options.output:
        write_json(options.output, report)


if __name__ == "__main__":
    main()
