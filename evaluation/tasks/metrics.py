"""The metrics of the tasks, as classes of Hugging Face `evaluate` that need no network and leave no file.

``evaluate.load("accuracy")`` fetches a script from the Hub; these are built over scikit-learn and seqeval
(and SQuAD's own definition) instead. All values lie between 0 and 1, the correlation between -1 and 1;
higher is better for each.
"""

import collections
import re
import string
from collections.abc import Callable, Sequence
from typing import Any

import evaluate
from datasets import Features, Value
from datasets import Sequence as SequenceOf
from seqeval.metrics import f1_score as span_f1_score
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

CLASSES = Features({"predictions": Value("int64"), "references": Value("int64")})
TAGS = Features({"predictions": SequenceOf(Value("string")), "references": SequenceOf(Value("string"))})
ANSWERS = Features({"predictions": Value("string"), "references": SequenceOf(Value("string"))})


class OfflineMetric(evaluate.Metric):  # type: ignore[misc]
    """A metric that computes in memory, from what it is given."""

    features: Features
    description: str

    def __init__(self) -> None:
        super().__init__(keep_in_memory=True)

    def _build_data_dir(self) -> str:
        # The library would make a folder in the user's cache here, although nothing is ever written to it.
        return str(self._data_dir_root)

    def _info(self) -> evaluate.MetricInfo:
        kind = type(self)
        return evaluate.MetricInfo(
            description=kind.description, citation="", inputs_description="", features=kind.features
        )


class Accuracy(OfflineMetric):
    """Share of the rows whose class is right."""

    features = CLASSES
    description = "accuracy"

    def _compute(self, predictions: Sequence[int], references: Sequence[int]) -> dict[str, float]:
        return {"accuracy": float(accuracy_score(references, predictions))}


class F1(OfflineMetric):
    """F1 of the second class (index 1) of a task with two."""

    features = CLASSES
    description = "F1 of the second class"

    def _compute(self, predictions: Sequence[int], references: Sequence[int]) -> dict[str, float]:
        return {"f1": float(f1_score(references, predictions, pos_label=1, average="binary", zero_division=0))}


class F1Weighted(OfflineMetric):
    """Mean of the classes' F1, weighted by how many rows each has."""

    features = CLASSES
    description = "weighted F1"

    def _compute(self, predictions: Sequence[int], references: Sequence[int]) -> dict[str, float]:
        return {"f1_weighted": float(f1_score(references, predictions, average="weighted", zero_division=0))}


class F1Macro(OfflineMetric):
    """Plain mean of the classes' F1."""

    features = CLASSES
    description = "macro F1"

    def _compute(self, predictions: Sequence[int], references: Sequence[int]) -> dict[str, float]:
        return {"f1_macro": float(f1_score(references, predictions, average="macro", zero_division=0))}


class Matthews(OfflineMetric):
    """Matthews' correlation coefficient."""

    features = CLASSES
    description = "Matthews correlation"

    def _compute(self, predictions: Sequence[int], references: Sequence[int]) -> dict[str, float]:
        return {"matthews": float(matthews_corrcoef(references, predictions))}


class SpanF1(OfflineMetric):
    """F1 of whole spans of BIO tags (type and both borders right), micro-averaged, as CoNLL counts them."""

    features = TAGS
    description = "span F1"

    def _compute(self, predictions: list[list[str]], references: list[list[str]]) -> dict[str, float]:
        return {"span_f1": float(span_f1_score(list(references), list(predictions), zero_division=0))}


class ExactMatch(OfflineMetric):
    """Share of the questions whose answer equals one of the references, once both are normalised."""

    features = ANSWERS
    description = "exact match"

    def _compute(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
        return {"exact_match": _mean_of_best(_exact, predictions, references)}


class AnswerF1(OfflineMetric):
    """Mean over the questions of the F1 of words shared with the nearest reference."""

    features = ANSWERS
    description = "F1 of the answer's words"

    def _compute(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
        return {"answer_f1": _mean_of_best(_word_f1, predictions, references)}


METRICS: dict[str, type[OfflineMetric]] = {
    "accuracy": Accuracy,
    "f1": F1,
    "f1_weighted": F1Weighted,
    "f1_macro": F1Macro,
    "matthews": Matthews,
    "span_f1": SpanF1,
    "exact_match": ExactMatch,
    "answer_f1": AnswerF1,
}


def compute_metrics(names: Sequence[str], predictions: Sequence[Any], references: Sequence[Any]) -> dict[str, float]:
    """The named metrics of :data:`METRICS`, by name."""
    scores: dict[str, float] = {}
    for name in names:
        scores |= METRICS[name]().compute(predictions=predictions, references=references)
    return scores


def _normalise(answer: str) -> list[str]:
    """Words of an answer as SQuAD compares them: no case, no ASCII punctuation, no English articles.

    Source: the evaluation script of Rajpurkar et al., "SQuAD: 100,000+ Questions for Machine Comprehension
    of Text" (2016), which XQuAD uses for every language.
    """
    answer = "".join(character for character in answer.lower() if character not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", answer).split()


def _exact(prediction: str, reference: str) -> float:
    return float(_normalise(prediction) == _normalise(reference))


def _word_f1(prediction: str, reference: str) -> float:
    found, wanted = _normalise(prediction), _normalise(reference)
    shared = (collections.Counter(found) & collections.Counter(wanted)).total()
    return 2 * shared / (len(found) + len(wanted)) if shared else 0.0


def _mean_of_best(
    score: Callable[[str, str], float], predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> float:
    best = [
        max(score(prediction, answer) for answer in answers)
        for prediction, answers in zip(predictions, references, strict=True)
    ]
    return sum(best) / len(best)
