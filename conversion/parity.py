"""The proof that a file computes what the checkpoint does, on real text.

Axes: B batch, L padded length, T tokens of a text, D width (of hidden states or, for fill-mask, of logits).
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

from distilrubert.common.derived import WAYS, worst_of
from distilrubert.common.errors import UserError
from distilrubert.common.formats import FormatCase
from distilrubert.common.measurements import Environment, Measurements, Row
from distilrubert.common.sentence_files import PoolingMode
from distilrubert.conversion.conversion_settings import Tolerance, Tolerances
from distilrubert.conversion.export_source import full_length_texts
from distilrubert.modeling.checkpoints import Checkpoint
from distilrubert.modeling.heads import has_head, mlm_head_of
from distilrubert.modeling.runtimes import OpenModel, PyTorchModel, open_model

PADDED_BATCH = 32
Hidden = NDArray[np.floating[Any]]


def default_sentences() -> list[str]:
    """Sentences of various lengths, Russian and English, for those who have none of their own at hand."""
    return (resources.files("distilrubert.conversion") / "sentences.txt").read_text(encoding="utf-8").splitlines()


def measure_parity(
    checkpoint: Checkpoint,
    folder: Path,
    cases: Sequence[FormatCase],
    sentences: Sequence[str],
    task: str = "feature-extraction",
    pooling: PoolingMode | None = None,
) -> Measurements:
    """Compare each file with the checkpoint that it was made of.

    The truth is the checkpoint in PyTorch fp32, a text at a time. Each file computes the sentences one at a time
    (``single``), the sentences in padded batches of :data:`PADDED_BATCH` in the given order (``padded``), and texts of
    the model's full length that are joined from the sentences (``full_length``). Padded positions are never compared.
    Sentences that are longer than the model takes are cut.

    Cosines are taken after the mean vector over all tokens of the truth is subtracted from both vectors. All hidden
    states of a BERT have a large part in common, and so have all logits. A file that returned nothing but this part
    would otherwise have a high cosine.

    Args:
        checkpoint: in fp32.
        folder: holds the files.
        cases: the files to compare, and in which arithmetic.
        sentences: real text, of various lengths.
        task: what the files return that have no task of their own: hidden states, or logits for fill-mask.
        pooling: of an encoder of sentences, how its vectors are made.

    Returns:
        A row for each case. Under ``single``, ``padded`` and ``full_length`` it has maximal_difference and
        mean_difference (absolute, of components), token_cosine (mean), token_cosine_p1 (first percentile),
        minimal_token_cosine, pooled_cosine (mean), minimal_pooled_cosine, for an encoder of sentences vector_cosine_p1
        (of the vectors as they are, first percentile over the texts), and, where there is a head, top1_agreement
        (share of tokens with the same first prediction). Beside them it has size_mib and ``sha256`` by path of all
        files of the format; path and hint.
    """
    texts = {"sentences": sentences, "full_length": full_length_texts(checkpoint, sentences)}
    rows: dict[str, Row] = {}
    # One task after the other: logits of a large vocabulary take gigabytes.
    for returned in dict.fromkeys(case.format.task or task for case in cases):
        comparer = _Comparer(checkpoint, returned, texts, pooling)
        chosen = [case for case in cases if (case.format.task or task) == returned]
        rows |= {case.name: _row(comparer, folder, case) for case in chosen}
        tokens = comparer.tokens
        del comparer
    details = {
        "reference": "checkpoint in PyTorch fp32, a text at a time",
        "sentences": len(sentences),
        "tokens": sum(tokens["sentences"]),
        "longest": max(tokens["sentences"]),
        "full_length_texts": len(texts["full_length"]),
        "full_length_tokens": sum(tokens["full_length"]),
        "padded_batch": PADDED_BATCH,
        "centred": True,
        "task": task,
    }
    return Measurements(Environment.capture(), [rows[case.name] for case in cases], details=details)


def check_parity(measurements: Measurements, cases: Sequence[FormatCase], tolerances: Tolerances) -> None:
    """Refuse files that are further from the checkpoint than allowed.

    Raises:
        UserError: naming the file, the metric, what was found and what is allowed.
    """
    for case in cases:
        values = measurements[case.name].values
        setting = tolerance_name(case)
        for bound in bounds_of(getattr(tolerances, setting), values):
            worst = bound.worst(values)
            if not bound.holds(worst):
                raise UserError(
                    f"{case.format.path}: differs too much from the checkpoint: {bound.metric} "
                    f"{bound.complaint(worst)} (conversion.tolerance.{setting}.{bound.metric})"
                )


def tolerance_name(case: FormatCase) -> str:
    """The field of :class:`~distilrubert.conversion.conversion_settings.Tolerances` that a case must hold."""
    return "bf16" if case.hint == "bf16" and case.format.precision != "int8" else case.format.precision


@dataclasses.dataclass(frozen=True)
class Bound:
    """What a tolerance says about one metric.

    Attributes:
        metric: its name in the rows of :func:`measure_parity`.
        limit: the largest difference, or the least value of any other metric.
    """

    metric: str
    limit: float

    def worst(self, figures: Mapping[str, Any]) -> float:
        """The worst value of a row over the ways: an error in padded batches is not made up for by single texts."""
        return worst_of(self.metric, [figures[way][self.metric] for way in WAYS if way in figures])

    def holds(self, value: float) -> bool:
        """Whether a value is within the bound; a NaN never is."""
        return value <= self.limit if _is_difference(self.metric) else value >= self.limit

    def complaint(self, value: float) -> str:
        """What a message says of a value that is not within the bound."""
        if _is_difference(self.metric):
            return f"{value:.3g}, at most {self.limit:g} is allowed"
        return f"{value:.5f}, at least {self.limit:g} is needed"

    @property
    def sign(self) -> str:
        """As a table says it."""
        return f"{'≤' if _is_difference(self.metric) else '≥'} {self.limit:g}"


def bounds_of(tolerance: Tolerance, figures: Mapping[str, Any]) -> list[Bound]:
    """The bounds of a tolerance on what a row of :func:`measure_parity` has: without a head it predicts nothing."""
    limits: dict[str, float | None] = tolerance.model_dump()
    return [
        Bound(metric, limit) for metric, limit in limits.items() if limit is not None and metric in figures[WAYS[0]]
    ]


def _is_difference(metric: str) -> bool:
    return metric.endswith("_difference")


def _row(comparer: "_Comparer", folder: Path, case: FormatCase) -> Row:
    model = open_model(folder, case.format, comparer.task, hint=case.hint)

    def compare(kind: str, way: str, batch: int) -> dict[str, float]:
        title = f"{case.name}, {way}"
        found = _hidden_states(model, comparer.checkpoint, comparer.texts[kind], batch, title)
        return _summary([comparer.compare(hidden_TD, kind, index) for index, hidden_TD in found])

    ways = {"single": compare("sentences", "single", 1), "padded": compare("sentences", "padded", PADDED_BATCH)}
    if comparer.texts["full_length"]:
        ways["full_length"] = compare("full_length", "full_length", 1)
    facts = {
        "size_mib": case.format.size_mib(folder),
        "path": case.format.path,
        "sha256": case.format.digests(folder),
        "hint": case.hint,
    }
    return Row(case.name, {**ways, **facts})


class _Comparer:
    """Compares computations of texts with the truth."""

    def __init__(
        self, checkpoint: Checkpoint, task: str, texts: Mapping[str, Sequence[str]], pooling: PoolingMode | None
    ) -> None:
        self.checkpoint = checkpoint
        self._pooling = pooling if task == "feature-extraction" else None
        self.task = task
        self.texts = texts
        reference = PyTorchModel(checkpoint.model if task == "fill-mask" else checkpoint.model.base_model, task)
        self._truth_TD = {
            kind: [hidden_TD for _, hidden_TD in _hidden_states(reference, checkpoint, chosen, 1, "checkpoint")]
            for kind, chosen in texts.items()
        }
        self._mean_D = np.concatenate([*self._truth_TD["sentences"], *self._truth_TD["full_length"]]).mean(axis=0)
        self._predictions_T = {
            kind: list(map(self._predictions, texts_TD)) for kind, texts_TD in self._truth_TD.items()
        }

    @property
    def tokens(self) -> dict[str, list[int]]:
        """Tokens of each text of a kind."""
        return {kind: list(map(len, texts_TD)) for kind, texts_TD in self._truth_TD.items()}

    def compare(self, hidden_TD: Hidden, kind: str, index: int) -> dict[str, Any]:
        """One computation of the text at `index` of a kind."""
        truth_TD = self._truth_TD[kind][index]
        difference_TD = np.abs(hidden_TD - truth_TD)
        centred_TD, centred_truth_TD = hidden_TD - self._mean_D, truth_TD - self._mean_D
        return {
            "maximal_difference": float(difference_TD.max()),
            "mean_difference": float(difference_TD.mean()),
            "token_cosines_T": _cosine(centred_TD, centred_truth_TD),
            **self._vector_cosine(hidden_TD, truth_TD),
            "pooled_cosine": float(_cosine(centred_TD.mean(axis=0), centred_truth_TD.mean(axis=0))),
            "agreements_T": self._predictions(hidden_TD) == self._predictions_T[kind][index],
        }

    def _vector_cosine(self, hidden_TD: Hidden, truth_TD: Hidden) -> dict[str, float]:
        if self._pooling is None:
            return {}
        pooled = (states[0] if self._pooling == "cls" else states.mean(axis=0) for states in (hidden_TD, truth_TD))
        return {"vector_cosine": float(_cosine(*pooled))}

    @torch.inference_mode()
    def _predictions(self, hidden_TD: Hidden) -> NDArray[np.int64]:
        """The first prediction of the masked-language head for each token; none where there is no head."""
        if not has_head(self.checkpoint.model):
            return np.empty(0, dtype=np.int64)
        if self.task == "fill-mask":
            of_file_T: NDArray[np.int64] = np.argmax(hidden_TD, axis=-1)
            return of_file_T
        logits_TV = mlm_head_of(self.checkpoint.model).logits(torch.from_numpy(hidden_TD))
        predictions_T: NDArray[np.int64] = logits_TV.argmax(dim=-1).numpy()
        return predictions_T


def _hidden_states(
    model: OpenModel, checkpoint: Checkpoint, texts: Sequence[str], batch: int, title: str
) -> Iterator[tuple[int, Hidden]]:
    """The index of each text and the output for its tokens (T, D), without padding."""
    limit = checkpoint.tokenizer.model_max_length
    for start in tqdm(range(0, len(texts), batch), desc=title, unit="batches", disable=None, leave=False):
        chosen = list(texts[start : start + batch])
        inputs = checkpoint.tokenizer(chosen, padding=True, truncation=True, max_length=limit, return_tensors="np")
        (hidden_BLD,) = model(dict(inputs))
        for row, mask_L in enumerate(inputs["attention_mask"]):
            yield start + row, hidden_BLD[row, mask_L == 1]


def _summary(comparisons: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    columns = {name: [comparison[name] for comparison in comparisons] for name in comparisons[0]}
    token_cosines = np.concatenate(columns["token_cosines_T"])
    tokens = list(map(len, columns["token_cosines_T"]))
    agreements_T = np.concatenate(columns["agreements_T"])
    return {
        # numpy's maximum keeps a NaN, Python's may lose it.
        "maximal_difference": float(np.max(columns["maximal_difference"])),
        "mean_difference": float(np.average(columns["mean_difference"], weights=tokens)),
        "token_cosine": float(token_cosines.mean()),
        "token_cosine_p1": float(np.percentile(token_cosines, 1)),
        "minimal_token_cosine": float(token_cosines.min()),
        **({"vector_cosine_p1": float(np.percentile(vectors, 1))} if (vectors := columns.get("vector_cosine")) else {}),
        "pooled_cosine": float(np.mean(columns["pooled_cosine"])),
        "minimal_pooled_cosine": float(np.min(columns["pooled_cosine"])),
        **({"top1_agreement": float(agreements_T.mean())} if len(agreements_T) else {}),
    }


def _cosine(a_TD: Hidden, b_TD: Hidden) -> Hidden:
    """Cosine along the last axis; NaN where a vector is zero."""
    a, b = a_TD.astype(np.float64), b_TD.astype(np.float64)
    with np.errstate(invalid="ignore"):
        cosine: Hidden = (a * b).sum(axis=-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))
    return cosine
