"""Tokens a second on texts of real length, in batches in the order of arrival and sorted by length."""

import contextlib
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distilrubert.common.bars import tracked
from distilrubert.evaluation.speed.benchmark import SpeedCase
from distilrubert.evaluation.speed.speed_process import SpeedProcess

# Lengths in tokens of 1,024 dialogues and speeches in the order of a shuffle.
LENGTHS: list[int] = json.loads((Path(__file__).parent / "conversation_lengths.json").read_text())
# Not CTranslate2, which leaves padding out by itself where it is told of it, and here all tokens are real.
CASES = ("pytorch-fp32", "onnx-int8", "openvino-int8", "peer-nncf-int8")
BATCH = 32


def measure_conversation(
    cases: Sequence[SpeedCase],
    lengths: Sequence[int],
    *,
    vocabulary: int,
    threads: int,
    rounds: int,
    program: Sequence[str],
) -> dict[str, Any]:
    """Let the cases take turns over all texts, in both orders, after one pass over them that does not count.

    The first pass is where runtimes prepare themselves for each length.

    Args:
        cases: of one model.
        lengths: of the texts in tokens, as they arrive.
        vocabulary: number of token ids.
        threads: on the CPU.
        rounds: passes that count.
        program: what Python runs for a case.

    Returns:
        For each case the figures of :func:`conversation_figures`; and batch, texts and tokens.
    """
    orders = {"arrival": list(lengths), "sorted": sorted(lengths)}
    seconds: dict[str, dict[str, list[float]]] = {case.name: {order: [] for order in orders} for case in cases}
    with contextlib.ExitStack() as stack:
        processes = {case.name: stack.enter_context(SpeedProcess(case.name, threads, program)) for case in cases}
        for case in cases:
            processes[case.name].ask("open", folder=str(case.folder), case=case.case, device="cpu", threads=threads)
        passes = list(itertools.product(range(rounds + 1), processes, orders))
        for turn, name, order in tracked(passes, "conversation", unit="pass"):
            taken = _pass_over(processes[name], orders[order], vocabulary)
            if turn > 0:
                seconds[name][order].append(taken)
    tokens = sum(lengths)
    figures = {name: conversation_figures(tokens, of_case) for name, of_case in seconds.items()}
    return {"batch": BATCH, "texts": len(lengths), "tokens": tokens, "rounds": rounds, **figures}


def conversation_figures(tokens: int, seconds: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Tokens/s in each order, median and interquartile range over the passes, and how much sorting gains."""
    figures = {}
    for order, of_order in seconds.items():
        low, median, high = np.percentile(tokens / np.array(of_order), [25, 50, 75])
        figures[f"{order}_tokens_per_s"] = float(median)
        figures[f"{order}_spread_tokens_per_s"] = float(high - low)
    return {**figures, "sorted_over_arrival": figures["sorted_tokens_per_s"] / figures["arrival_tokens_per_s"]}


def _pass_over(process: SpeedProcess, lengths: Sequence[int], vocabulary: int) -> float:
    """Seconds for all texts, each batch padded to its longest."""
    total = 0.0
    for start in range(0, len(lengths), BATCH):
        batch = lengths[start : start + BATCH]
        shape = {"batch_size": len(batch), "sequence_length": max(batch), "vocabulary": vocabulary, "seed": 0}
        # Without a time to fill it is a single pass.
        total += sum(process.ask("measure", **shape, warmup=0, minimum_time_s=0.0)["seconds"])
    return total
