"""The proof that a file computes what the checkpoint does, on real text.

Axes: B batch, L padded length, T tokens of a text, D width (of hidden states or, for fill-mask, of logits), V
vocabulary.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from distilrubert.common.bars import tracked
from distilrubert.common.derived import INPUT_FORMS, worst_of
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
# Logits of a large vocabulary take a megabyte for each token.
TOKENS_AT_ONCE = 32
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
    for returned in dict.fromkeys(case.format.task or task for case in cases):
        comparer = _Comparer(checkpoint, returned, texts, pooling)
        chosen = [case for case in cases if (case.format.task or task) == returned]
        rows |= {case.name: _row(comparer, folder, case) for case in chosen}
        tokens = comparer.tokens
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

    def worst(self, values: Mapping[str, Any]) -> float:
        """The worst value of a row over its inputs: an error in padded batches is not made up for by single texts."""
        return worst_of(self.metric, [values[form][self.metric] for form in INPUT_FORMS if form in values])

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


def bounds_of(tolerance: Tolerance, values: Mapping[str, Any]) -> list[Bound]:
    """The bounds of a tolerance on what a row of :func:`measure_parity` has: without a head it predicts nothing.

    An encoder of sentences is used for its vectors as they are, so these are bounded, in place of the tokens that they
    are made of and of what is left of them when the mean over all tokens is subtracted.
    """
    limits: dict[str, float | None] = tolerance.model_dump()
    measured = set(values[INPUT_FORMS[0]])
    if tolerance.vector_cosine_p1 is not None and "vector_cosine_p1" in measured:
        measured -= {"token_cosine", "token_cosine_p1", "pooled_cosine"}
    return [Bound(metric, limit) for metric, limit in limits.items() if limit is not None and metric in measured]


def _is_difference(metric: str) -> bool:
    return metric.endswith("_difference")


def _row(comparer: "_Comparer", folder: Path, case: FormatCase) -> Row:
    model = open_model(folder, case.format, comparer.task, hint=case.hint)

    def compare(kind: str, form: str, batch: int) -> dict[str, float]:
        title = f"{case.name}, {form}"
        found = _outputs(model, comparer.checkpoint, comparer.texts[kind], batch, title)
        return _summary([comparer.compare(output_TD, kind, index) for index, output_TD in found])

    compared = {"single": compare("sentences", "single", 1), "padded": compare("sentences", "padded", PADDED_BATCH)}
    if comparer.texts["full_length"]:
        compared["full_length"] = compare("full_length", "full_length", 1)
    facts = {
        "size_mib": case.format.size_mib(folder),
        "path": case.format.path,
        "sha256": case.format.digests(folder),
        "hint": case.hint,
    }
    return Row(case.name, {**compared, **facts})


class _Comparer:
    """Compares computations of texts with the truth.

    Of the truth only hidden states are kept: logits are made from them again, a few tokens at a time.
    """

    def __init__(
        self, checkpoint: Checkpoint, task: str, texts: Mapping[str, Sequence[str]], pooling: PoolingMode | None
    ) -> None:
        self.checkpoint = checkpoint
        self._pooling = pooling if task == "feature-extraction" else None
        self.task = task
        self.texts = texts
        self._head = mlm_head_of(checkpoint.model) if has_head(checkpoint.model) else None
        reference = PyTorchModel(checkpoint.model.base_model, "feature-extraction")
        self._hidden_TD = {
            kind: [hidden_TD for _, hidden_TD in _outputs(reference, checkpoint, chosen, 1, "checkpoint")]
            for kind, chosen in texts.items()
        }
        self._predictions_T: dict[str, list[NDArray[np.int64]]] = {kind: [] for kind in texts}
        total: Hidden | float = 0.0
        for kind, texts_TD in self._hidden_TD.items():
            for hidden_TD in texts_TD:
                predictions = []
                for part_TD in _parts(hidden_TD):
                    truth_TD = self._truth(part_TD)
                    total = total + truth_TD.sum(axis=0, dtype=np.float64)
                    predictions.append(self._predictions(truth_TD))
                self._predictions_T[kind].append(np.concatenate(predictions))
        self._mean_D = (np.asarray(total) / sum(map(sum, self.tokens.values()))).astype(np.float32)

    @property
    def tokens(self) -> dict[str, list[int]]:
        """Tokens of each text of a kind."""
        return {kind: list(map(len, texts_TD)) for kind, texts_TD in self._hidden_TD.items()}

    def compare(self, found_TD: Hidden, kind: str, index: int) -> dict[str, Any]:
        """One computation of the text at `index` of a kind."""
        hidden_TD = self._hidden_TD[kind][index]
        parts = [self._compare_tokens(*pair) for pair in zip(_parts(found_TD), _parts(hidden_TD), strict=True)]
        predictions_T = np.concatenate([self._predictions(part_TD) for part_TD in _parts(found_TD)])
        columns = {name: [part[name] for part in parts] for name in parts[0]}
        return {
            # numpy's maximum keeps a NaN, Python's may lose it.
            "maximal_difference": float(np.max(columns["maximal_difference"])),
            "mean_difference": float(np.sum(columns["difference"]) / found_TD.size),
            "token_cosines_T": np.concatenate(columns["cosines_T"]),
            "pooled_cosine": float(_cosine(np.sum(columns["sum_D"], axis=0), np.sum(columns["true_sum_D"], axis=0))),
            "agreements_T": predictions_T == self._predictions_T[kind][index],
            **self._vector_cosine(found_TD, hidden_TD),
        }

    def _compare_tokens(self, found_TD: Hidden, hidden_TD: Hidden) -> dict[str, Any]:
        """What is found for some tokens of a text, and the hidden states of the checkpoint for them."""
        truth_TD = self._truth(hidden_TD)
        difference_TD = np.abs(found_TD - truth_TD)
        centred_TD, centred_truth_TD = found_TD - self._mean_D, truth_TD - self._mean_D
        return {
            "maximal_difference": difference_TD.max(),
            "difference": difference_TD.sum(dtype=np.float64),
            "cosines_T": _cosine(centred_TD, centred_truth_TD),
            "sum_D": centred_TD.sum(axis=0, dtype=np.float64),
            "true_sum_D": centred_truth_TD.sum(axis=0, dtype=np.float64),
        }

    def _truth(self, hidden_TD: Hidden) -> Hidden:
        """What a file that computes as the checkpoint does returns for tokens with these hidden states."""
        return self._logits(hidden_TD) if self.task == "fill-mask" else hidden_TD

    @torch.inference_mode()
    def _logits(self, hidden_TD: Hidden) -> Hidden:
        assert self._head is not None
        logits_TV: Hidden = self._head.logits(torch.from_numpy(hidden_TD)).numpy()
        return logits_TV

    def _predictions(self, output_TD: Hidden) -> NDArray[np.int64]:
        """The first prediction of the masked-language head for each token; none where there is no head."""
        if self._head is None:
            return np.empty(0, dtype=np.int64)
        logits_TV = output_TD if self.task == "fill-mask" else self._logits(output_TD)
        predictions_T: NDArray[np.int64] = logits_TV.argmax(axis=-1)
        return predictions_T

    def _vector_cosine(self, hidden_TD: Hidden, truth_TD: Hidden) -> dict[str, float]:
        if self._pooling is None:
            return {}
        pooled = (states[0] if self._pooling == "cls" else states.mean(axis=0) for states in (hidden_TD, truth_TD))
        return {"vector_cosine": float(_cosine(*pooled))}


def _parts(output_TD: Hidden) -> list[Hidden]:
    """Views of at most :data:`TOKENS_AT_ONCE` tokens."""
    return [output_TD[start : start + TOKENS_AT_ONCE] for start in range(0, len(output_TD), TOKENS_AT_ONCE)]


def _outputs(
    model: OpenModel, checkpoint: Checkpoint, texts: Sequence[str], batch: int, title: str
) -> Iterator[tuple[int, Hidden]]:
    """The index of each text and the output for its tokens (T, D), without padding."""
    limit = checkpoint.tokenizer.model_max_length
    for start in tracked(range(0, len(texts), batch), title, unit="batch"):
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
