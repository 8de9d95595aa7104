"""What preparing a large corpus and planning its batches take: memory, CPU time beside the bare tokenizer, and parts.

    python benchmarks/scale.py --output benchmarks/results/scale.json
    python benchmarks/scale.py --quick --output /tmp/scale.json

The text is that of DISTILRUBERT_DATA, or of the demo, repeated; each line begins with its number, or it would be
dropped as a duplicate. Each measurement is a process of its own, forked from one that has only imported what it needs,
and is saved when it ends, with its revision: the same command goes on with those that are missing. Time is that of the
CPU, which other work on the machine changes little.

- `throughput`: CPU seconds of preparing, and of the tokenizer alone on the same text in memory, in turns. `ratio` is
  the tokenizer's median over that of preparing. The text is not repeated here: words that come again are tokenised
  once.
- `memory-GB`: the peak of the preparing process and of its largest tokenising process at each of `--sizes`.
- `planning-SEQUENCES`: an epoch of a real number of sequences, batch by batch, and a simulated one of a billion on 64
  ranks, whose lengths are those of the real one repeated. A rank counts the updates of all windows before it begins
  (`begin_cpu_s`), and plans one window (`window_cpu_s`) when its turn comes.
- `parts-GB`: the same corpus by 1, 2 and 4 processes started together; one of the four is killed after its first shard
  and its part is done by the others. The files must be the same to the byte.
"""

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray
from transformers import AutoTokenizer

from distilrubert.common.measurements import Environment, Measurements, Row
from distilrubert.common.persistence import sha256_of
from distilrubert.common.processes import available_cores, peak_memory_mib
from distilrubert.common.training.batching import WINDOW, BatchPlan
from distilrubert.common.training.training_settings import OptimizationSettings
from distilrubert.distill.corpus.build import CorpusBuild
from distilrubert.distill.corpus.corpus_settings import CorpusSettings, CorpusSource
from distilrubert.distill.corpus.parts import Part
from distilrubert.distill.corpus.sources import iterate_texts
from distilrubert.modeling.tokenizer_kinds import plain_tokenizer
from distilrubert.modeling.wordpiece import train_wordpiece
from distilrubert.pipeline.run import revision

ROOT = Path(__file__).parents[1]
SEED = 7
# Of the numbers of texts that were tried, the fastest for the bare tokenizer.
TEXTS_AT_ONCE = 1000
FILES = 8
PROCESSES = (1, 2, 4)
RANKS, SIMULATED = 64, 10**9


def texts_of(data: str | None) -> Iterator[str]:
    """The text to repeat."""
    path = f"{data}/corpus/*.parquet" if data else str(ROOT / "recipes/demo/dialogues.txt")
    return (text.replace("\n", " ") for text in iterate_texts([CorpusSource(path=path)]))


def write_text(data: str | None, size: float, folder: Path) -> dict[str, Any]:
    """Write `size` bytes of numbered lines to files in a folder."""
    folder.mkdir()
    texts = [*texts_of(data)]
    written, numbers = 0, count()
    for number in range(FILES):
        with (folder / f"{number}.txt").open("w", encoding="utf-8") as file:
            while written < size * (number + 1) / FILES:
                place = next(numbers)
                line = f"{place} {texts[place % len(texts)]}\n"
                file.write(line)
                written += len(line.encode())
    return {"bytes": written, "copies": next(numbers) / len(texts)}


def write_tokenizer(data: str | None, folder: Path) -> dict[str, Any]:
    """Copy the tokenizer of the data, or train one on the demo."""
    tokenizer = AutoTokenizer.from_pretrained(Path(data) / "teacher", trust_remote_code=False) if data else None
    (tokenizer or train_wordpiece(texts_of(None), 2000).tokenizer).save_pretrained(folder)
    return {}


def build_of(text: Path, tokenizer: Path, folder: Path, processes: int) -> CorpusBuild:
    """The corpus that every measurement makes."""
    settings = CorpusSettings(sources=[CorpusSource(path=f"{text}/*.txt")], processes=processes)
    return CorpusBuild(settings, AutoTokenizer.from_pretrained(tokenizer, trust_remote_code=False), folder, SEED)


def cpu_seconds() -> float:
    """What this process and those that it has started and waited for have computed."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def prepare(text: Path, tokenizer: Path, folder: Path, processes: int) -> dict[str, Any]:
    """Make the corpus alone; seconds and memory."""
    build = build_of(text, tokenizer, folder, processes)
    peak, done = 0.0, threading.Event()
    began, began_cpu = time.perf_counter(), cpu_seconds()

    def watch() -> None:
        nonlocal peak
        me = psutil.Process()
        while not done.wait(0.2):
            for child in me.children():
                with suppress(psutil.Error):
                    peak = max(peak, child.memory_info().rss / 2**20)

    watcher = threading.Thread(target=watch)
    watcher.start()
    total = build.build().manifest["total"]
    done.set()
    watcher.join()
    return {
        "seconds": time.perf_counter() - began,
        "cpu_s": cpu_seconds() - began_cpu,
        "peak_mib": peak_memory_mib(),
        "worker_peak_mib": peak,
        "texts": total["texts"],
        "tokens": total["train_tokens"] + total["validation_tokens"],
    }


def bare(text: Path, tokenizer: Path) -> dict[str, Any]:
    """Tokenise the same text from memory, and keep nothing of it; CPU seconds."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    engine = plain_tokenizer(AutoTokenizer.from_pretrained(tokenizer, trust_remote_code=False))
    texts = list(iterate_texts([CorpusSource(path=f"{text}/*.txt")]))
    began = cpu_seconds()
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        engine.encode_batch_fast(texts[start : start + TEXTS_AT_ONCE], add_special_tokens=False)
    return {"cpu_s": cpu_seconds() - began}


def part(text: Path, tokenizer: Path, folder: Path, number: int, count: int) -> dict[str, Any]:
    """Work on parts as one of several processes that were started together."""
    return {"all_done": build_of(text, tokenizer, folder, 1).build_free_parts(Part(number, count))}


def draw_lengths(text: Path, tokenizer: Path, folder: Path, count: int) -> dict[str, Any]:
    """Draw as many lengths as are asked for from those of a corpus, and write them as a corpus has them on disk."""
    known = build_of(text, tokenizer, folder, 1).build().train.lengths
    drawn = np.random.default_rng(SEED).choice(known, count)
    np.save(folder / "train_lengths.npy", drawn)
    return {"mean_length": float(drawn.mean())}


class Repeated:
    """Lengths over and over, of which a plan asks for one window at a time.

    Args:
        lengths: those that are repeated.
        size: how many there seem to be.
    """

    def __init__(self, lengths: NDArray[np.int32], size: int) -> None:
        self._lengths, self._size = lengths, size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, window: slice) -> NDArray[np.int32]:
        first, size = window.start % len(self._lengths), window.stop - window.start
        return np.tile(self._lengths, -(-(first + size) // len(self._lengths)))[first : first + size]


def plan(folder: Path, count: int) -> dict[str, Any]:
    """Plan an epoch on one rank: the whole of it, or of a simulated one the first window and a resumed one."""
    known = np.load(folder / "train_lengths.npy", mmap_mode="r")
    settings = OptimizationSettings(batches_per_update=RANKS)
    is_simulated = count > len(known)
    before, began = peak_memory_mib(), cpu_seconds()
    planned = BatchPlan(Repeated(known, count) if is_simulated else known, settings, SEED)
    begin_s, begun = cpu_seconds() - began, cpu_seconds()
    _, _, batches = next(planned.remaining(0))
    window_s = cpu_seconds() - begun
    in_window = sum(map(len, batches))
    if not is_simulated:
        # Every sequence once: as many as there are, and none of them twice.
        is_planned = np.zeros(count, dtype=bool)
        is_planned[np.concatenate(batches)] = True
        assert is_planned.all(), "a sequence is not in the plan"
        assert in_window == count, "a sequence is twice in the plan"
    del batches
    resumed = cpu_seconds()
    next(planned.remaining(planned.total_steps // 2))
    return {
        "sequences": count,
        "ranks": RANKS,
        "simulated": is_simulated,
        "windows": -(-count // WINDOW),
        "window_sequences": in_window,
        "updates": planned.total_steps // settings.epochs,
        "begin_cpu_s": begin_s,
        "window_cpu_s": window_s,
        "resume_cpu_s": cpu_seconds() - resumed,
        "peak_mib": peak_memory_mib(),
        "peak_before_mib": before,
    }


class Work:
    """A function with keyword arguments in a process of its own.

    Attributes:
        process: the process.
    """

    def __init__(self, function: Callable[..., dict[str, Any]], **arguments: Any) -> None:
        context = multiprocessing.get_context("fork")
        self._receiver, sender = context.Pipe(duplex=False)
        self.process = context.Process(target=lambda: sender.send(function(**arguments)))
        self.process.start()
        sender.close()

    def result(self) -> dict[str, Any]:
        """What the function returns."""
        with suppress(EOFError):
            done: dict[str, Any] = self._receiver.recv()
        self.process.join()
        assert self.process.exitcode == 0, f"a measuring process ended with status {self.process.exitcode}"
        return done


class Scale:
    """All measurements.

    Args:
        options: of the command line.
        scratch: a folder for texts and corpora.
    """

    def __init__(self, options: argparse.Namespace, scratch: Path) -> None:
        self._options, self._data = options, os.environ.get("DISTILRUBERT_DATA")
        self._files = {"text": scratch / "text", "tokenizer": scratch / "tokenizer"}
        self._corpus = scratch / "corpus"
        Work(write_tokenizer, data=self._data, folder=self._files["tokenizer"]).result()

    def steps(self) -> dict[str, Callable[[], Row]]:
        """The measurements by the names of their rows, in the order in which they are made."""
        steps: dict[str, Callable[[], Row]] = {"throughput": self._throughput}
        for number in (self._options.sequences, SIMULATED):
            steps[f"planning-{number}"] = partial(self._planning, number)
        for size in self._options.sizes:
            steps[f"memory-{size:g}"] = partial(self._memory, size)
        return steps | {f"parts-{self._options.parts_gb:g}": self._parts}

    def _write_text(self, size: float) -> dict[str, Any]:
        """Text for the next measurement, and nothing that is left of the last one."""
        for folder in (self._files["text"], self._corpus):
            shutil.rmtree(folder, ignore_errors=True)
        return Work(write_text, data=self._data, size=size, folder=self._files["text"]).result()

    def _prepare(self, processes: int) -> dict[str, Any]:
        return Work(prepare, **self._files, folder=self._corpus, processes=processes).result()

    def _throughput(self) -> Row:
        written = self._write_text(self._options.throughput_mb * 1e6)
        taken: dict[str, list[float]] = {"bare": [], "prepare": []}
        for _ in range(self._options.turns):
            taken["bare"].append(Work(bare, **self._files).result()["cpu_s"])
            taken["prepare"].append(self._prepare(self._options.processes)["cpu_s"])
            shutil.rmtree(self._corpus)
        medians = {work: statistics.median(seconds) for work, seconds in taken.items()}
        return Row("throughput", {**written, "cpu_s": taken}, medians["bare"] / medians["prepare"])

    def _memory(self, size: float) -> Row:
        written = self._write_text(size * 1e9)
        return Row(f"memory-{size:g}", written | self._prepare(self._options.processes))

    def _planning(self, number: int) -> Row:
        self._write_text(min(2e6, self._options.throughput_mb * 1e6))
        drawn = Work(draw_lengths, **self._files, folder=self._corpus, count=self._options.sequences).result()
        return Row(f"planning-{number}", Work(plan, folder=self._corpus, count=number).result() | drawn)

    def _parts(self) -> Row:
        written = self._write_text(self._options.parts_gb * 1e9)
        digests, seconds, killed = {}, {}, False
        for parts in PROCESSES:
            began = time.perf_counter()
            working = [
                Work(part, **self._files, folder=self._corpus, number=number, count=parts)
                for number in range(1, parts + 1)
            ]
            if parts == PROCESSES[-1]:
                killed = _kill_after_a_shard(working.pop(1), self._corpus)
            for each in working:
                each.result()
            # Whoever was last has seen that all is done; this one puts it together.
            self._prepare(1)
            seconds[str(parts)] = time.perf_counter() - began
            digests[parts] = {path.name: sha256_of(path) for path in sorted(self._corpus.iterdir())}
            shutil.rmtree(self._corpus)
            tell(f"parts: {parts} done in {seconds[str(parts)]:.0f} s")
        assert killed, "the second of four parts was done before it could be killed; take more text"
        same = all(digest == digests[1] for digest in digests.values())
        values = {"seconds": seconds, "identical": same, "one_killed": killed, "files": digests[1]}
        return Row(f"parts-{self._options.parts_gb:g}", written | values)


def _kill_after_a_shard(work: Work, corpus: Path) -> bool:
    """Kill the process that does the second part once it has finished a shard; whether it was still at work."""
    shards = corpus.with_name(f".{corpus.name}.shards") / "part-00002"
    while work.process.is_alive() and not list(shards.glob("shard-*")):
        time.sleep(0.01)
    work.process.kill()
    work.process.join()
    return work.process.exitcode == -signal.SIGKILL


def tell(what: str) -> None:
    """Say how far it is."""
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


def measured_before(path: Path | None, details: dict[str, Any]) -> list[Row]:
    """The rows that an earlier run on the same text has saved; each has the revision that it was measured with."""
    if path is None or not path.is_file():
        return []
    saved = Measurements.load(path)
    if saved.details != details or not saved.environment.is_like(Environment.capture()):
        raise SystemExit(f"{path}: was measured otherwise, or on another machine; name another file with --output")
    return saved.rows


def main() -> None:
    """Do the measurements that are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="JSON file to write, after each measurement")
    parser.add_argument("--quick", action="store_true", help="small sizes and one turn: whether it works")
    parser.add_argument("--sizes", type=float, nargs="+", default=[0.1, 1.0], metavar="GB")
    parser.add_argument("--throughput-mb", type=float, default=40.0)
    parser.add_argument("--parts-gb", type=float, default=1.0)
    parser.add_argument("--sequences", type=int, default=10**7, help="sequences of the epoch that is planned for real")
    parser.add_argument(
        "--again", nargs="*", default=[], metavar="ROW", help="measure these again, for example parts-1"
    )
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--processes", type=int, default=available_cores())
    parser.add_argument("--scratch", type=Path, help="folder for text and corpora (default: that of the system)")
    options = parser.parse_args()
    if options.quick:
        options.sizes, options.throughput_mb, options.parts_gb, options.turns = [0.002, 0.01], 1.0, 0.04, 1
        options.sequences = 10**6
    text = "reference" if os.environ.get("DISTILRUBERT_DATA") else "demo"
    details = {"text": text, "quick": options.quick, "processes": options.processes}
    rows = [row for row in measured_before(options.output, details) if row.case not in options.again]
    measured_with = revision()
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        steps = Scale(options, Path(folder)).steps()
        for number, (name, measure) in enumerate(steps.items(), start=1):
            if any(row.case == name for row in rows):
                continue
            tell(f"{number} of {len(steps)}: {name}")
            row = measure()
            row.values["revision"] = measured_with
            rows.append(row)
            if options.output:
                Measurements(Environment.capture(), rows, details=details).save(options.output)
    for row in rows:
        print(json.dumps(row.to_dict()))


if __name__ == "__main__":
    main()
