"""The proof that a file computes what the checkpoint does, on real sentences.

Axes: B batch, L padded length, T tokens of a sentence, D width (of hidden states or, for fill-mask, of logits).
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from distilrubert.common.errors import UserError
from distilrubert.common.measurements import Environment, Measurements, Row
from distilrubert.common.persistence import sha256_of
from distilrubert.conversion.checkpoint import Checkpoint
from distilrubert.conversion.conversion_settings import Tolerance, Tolerances
from distilrubert.conversion.formats import Encoder, Format, Inputs, run_model
from distilrubert.modeling.heads import mlm_head_of

PADDED_BATCH = 32
WAYS = ("single", "padded")
Hidden = NDArray[np.floating[Any]]


@dataclasses.dataclass(frozen=True)
class _Comparison:
    """Two computations of one sentence."""

    maximal_difference: float
    mean_difference: float
    token_cosines_T: Hidden
    pooled_cosine: float
    agreements_T: NDArray[np.bool_]


def default_sentences() -> list[str]:
    """Sentences of various lengths, Russian and English, for those who have none of their own at hand."""
    return (resources.files("distilrubert.conversion") / "sentences.txt").read_text(encoding="utf-8").splitlines()


def measure_parity(
    checkpoint: Checkpoint,
    folder: Path,
    formats: Sequence[Format],
    sentences: Sequence[str],
    task: str = "feature-extraction",
) -> Measurements:
    """Compare each file with the checkpoint that it was made of.

    The truth is the checkpoint in PyTorch fp32, a sentence at a time. Each file computes the sentences one at a
    time (``single``) and in padded batches of :data:`PADDED_BATCH` in the given order (``padded``), so that what
    padding changes counts as well. Padded positions are never compared; long sentences are cut to the model's length.
    Cosines of logits are taken of what they differ by from their mean over all tokens: how frequent each piece is, all
    tokens have in common, and a file that knew nothing else would agree in that.

    Args:
        checkpoint: in fp32.
        folder: holds the files.
        formats: of the files to compare.
        sentences: real text, of various lengths.
        task: what the files return: hidden states, or logits for fill-mask.

    Returns:
        A row for each file: maximal_difference and mean_difference (absolute, of components), token_cosine and
        pooled_cosine (means) with their least values, top1_agreement (share of tokens with the same first guess of
        the masked-language head), over both ways and under each of them; size_mib, sha256.

    Raises:
        UserError: if there are no sentences.
    """
    if not sentences:
        raise UserError("conversion: no sentences to compare the files on; at least one is needed")
    model = checkpoint.model if task == "fill-mask" else checkpoint.model.base_model
    reference = run_model(model, task)
    truth_TD = [hidden_TD for _, hidden_TD in _hidden_states(reference, checkpoint, sentences, 1, "checkpoint")]
    comparer = _Comparer(checkpoint, task, truth_TD)
    rows = [_row(comparer, folder, entry, sentences) for entry in formats]
    details = {
        "reference": "checkpoint in PyTorch fp32, a sentence at a time",
        "sentences": len(sentences),
        "tokens": sum(len(hidden_TD) for hidden_TD in truth_TD),
        "longest": max(len(hidden_TD) for hidden_TD in truth_TD),
        "padded_batch": PADDED_BATCH,
        "task": task,
    }
    return Measurements(Environment.capture(), rows, details=details)


def check_parity(measurements: Measurements, formats: Sequence[Format], tolerances: Tolerances) -> None:
    """Refuse files that are further from the checkpoint than allowed.

    Raises:
        UserError: naming the file, the figure, what was found and what is allowed.
    """
    for entry in formats:
        figures = measurements[entry.case].figures
        setting = f"conversion.tolerance.{entry.precision}"
        for bound in bounds_of(getattr(tolerances, entry.precision)):
            worst = bound.worst(figures)
            if not bound.holds(worst):
                raise UserError(
                    f"{entry.path}: differs too much from the checkpoint: {bound.figure} {bound.complaint(worst)} "
                    f"({setting}.{bound.figure})"
                )


@dataclasses.dataclass(frozen=True)
class Bound:
    """What a tolerance says about one figure.

    Attributes:
        figure: its name in the rows of :func:`measure_parity`.
        limit: the largest difference, or the least of any other figure.
    """

    figure: str
    limit: float

    @property
    def _is_upper(self) -> bool:
        return self.figure == "maximal_difference"

    def worst(self, figures: Mapping[str, Any]) -> float:
        """The figure of a row in the way that is further off: padding gone wrong is not made up for by single ones."""
        values = [figures[way][self.figure] for way in WAYS]
        # numpy keeps a NaN.
        return float(np.max(values) if self._is_upper else np.min(values))

    def holds(self, value: float) -> bool:
        """Whether a value is within; a NaN never is."""
        return value <= self.limit if self._is_upper else value >= self.limit

    def complaint(self, value: float) -> str:
        """What a message says of a value that is not within."""
        if self._is_upper:
            return f"{value:.3g}, at most {self.limit:g} is allowed"
        return f"{value:.5f}, at least {self.limit:g} is needed"

    @property
    def sign(self) -> str:
        """As a table says it."""
        return f"{'≤' if self._is_upper else '≥'} {self.limit:g}"


def bounds_of(tolerance: Tolerance) -> list[Bound]:
    """The figures that a tolerance bounds."""
    limits: dict[str, float | None] = tolerance.model_dump()
    return [Bound(figure, limit) for figure, limit in limits.items() if limit is not None]


def _row(comparer: "_Comparer", folder: Path, entry: Format, sentences: Sequence[str]) -> Row:
    path = folder / entry.path
    encoder = entry.open(path, comparer.task)
    compared = {
        way: [
            comparer.compare(hidden_TD, index)
            for index, hidden_TD in _hidden_states(
                encoder, comparer.checkpoint, sentences, batch, f"{entry.case}, {way}"
            )
        ]
        for way, batch in zip(WAYS, (1, PADDED_BATCH), strict=True)
    }
    figures = {
        **_summary(compared["single"] + compared["padded"]),
        **{way: _summary(comparisons) for way, comparisons in compared.items()},
        "size_mib": entry.size_mib(folder),
        "path": entry.path,
        "sha256": sha256_of(path),
    }
    return Row(entry.case, figures)


class _Comparer:
    """Compares computations of sentences with the truth."""

    def __init__(self, checkpoint: Checkpoint, task: str, truth_TD: Sequence[Hidden]) -> None:
        self.checkpoint = checkpoint
        self.task = task
        self._truth_TD = truth_TD
        self._common_D = _mean_over_tokens(truth_TD) if task == "fill-mask" else np.float32(0)
        self._guesses_T = [self._first_guesses(hidden_TD) for hidden_TD in truth_TD]

    def compare(self, hidden_TD: Hidden, index: int) -> _Comparison:
        """One computation of the sentence at `index`."""
        truth_TD = self._truth_TD[index]
        difference_TD = np.abs(hidden_TD - truth_TD)
        own_TD, its_TD = hidden_TD - self._common_D, truth_TD - self._common_D
        return _Comparison(
            float(difference_TD.max()),
            float(difference_TD.mean()),
            _cosine(own_TD, its_TD),
            float(_cosine(own_TD.mean(axis=0), its_TD.mean(axis=0))),
            self._first_guesses(hidden_TD) == self._guesses_T[index],
        )

    @torch.inference_mode()
    def _first_guesses(self, hidden_TD: Hidden) -> NDArray[np.int64]:
        if self.task == "fill-mask":
            of_file_T: NDArray[np.int64] = np.argmax(hidden_TD, axis=-1)
            return of_file_T
        head = mlm_head_of(self.checkpoint.model)
        logits_TV = head.transform(torch.from_numpy(hidden_TD)) @ head.weight_VD.T + head.bias_V
        guesses_T: NDArray[np.int64] = logits_TV.argmax(dim=-1).numpy()
        return guesses_T


def _hidden_states(
    encoder: Encoder, checkpoint: Checkpoint, sentences: Sequence[str], batch: int, title: str
) -> Iterator[tuple[int, Hidden]]:
    """The index of each sentence and the last hidden state of its tokens (T, D), without padding."""
    for start in tqdm(range(0, len(sentences), batch), desc=title, unit="batches", disable=None, leave=False):
        chosen = list(sentences[start : start + batch])
        inputs: Inputs = dict(checkpoint.tokenizer(chosen, padding=True, truncation=True, return_tensors="np"))
        (hidden_BLD,) = encoder(inputs)
        for row, mask_L in enumerate(inputs["attention_mask"]):
            yield start + row, hidden_BLD[row, mask_L == 1]


def _mean_over_tokens(hidden_TD: Sequence[Hidden]) -> Hidden:
    total_D = np.sum([sentence_TD.sum(axis=0) for sentence_TD in hidden_TD], axis=0)
    mean_D: Hidden = total_D / sum(map(len, hidden_TD))
    return mean_D


def _summary(comparisons: Sequence[_Comparison]) -> dict[str, float]:
    token_cosines = np.concatenate([comparison.token_cosines_T for comparison in comparisons])
    pooled_cosines = np.array([comparison.pooled_cosine for comparison in comparisons])
    tokens = [len(comparison.token_cosines_T) for comparison in comparisons]
    means = [comparison.mean_difference for comparison in comparisons]
    return {
        # numpy's maximum keeps a NaN, Python's may lose it.
        "maximal_difference": float(np.max([comparison.maximal_difference for comparison in comparisons])),
        "mean_difference": float(np.average(means, weights=tokens)),
        "token_cosine": float(token_cosines.mean()),
        "minimal_token_cosine": float(token_cosines.min()),
        "pooled_cosine": float(pooled_cosines.mean()),
        "minimal_pooled_cosine": float(pooled_cosines.min()),
        "top1_agreement": float(np.concatenate([comparison.agreements_T for comparison in comparisons]).mean()),
    }


def _cosine(a_TD: Hidden, b_TD: Hidden) -> Hidden:
    """Cosine along the last axis; NaN where a vector is zero."""
    a, b = a_TD.astype(np.float64), b_TD.astype(np.float64)
    with np.errstate(invalid="ignore"):
        cosine: Hidden = (a * b).sum(axis=-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))
    return cosine
