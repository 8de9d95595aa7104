"""The metrics of the tasks: `evaluate` metrics over scikit-learn, seqeval and SQuAD's definition.

``evaluate.load("accuracy")`` fetches a script from the Hub, so the metrics are defined here. All values lie between 0
and 1, correlations between -1 and 1, the coefficient of determination below 1. Higher is better for each.
"""

import collections
import dataclasses
import re
import statistics
import string
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import evaluate
from datasets import Features, Value
from datasets import Sequence as SequenceOf
from scipy import stats
from seqeval.metrics import f1_score as span_f1_score
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef, ndcg_score, r2_score

CLASSES = Features({"predictions": Value("int64"), "references": Value("int64")})
LABEL_SETS = Features(
    {"predictions": SequenceOf(Value("int64")), "references": SequenceOf(Value("int64"))}
)  # 0 or 1 for each class
SCORES = Features({"predictions": Value("float64"), "references": Value("float64")})
RANKED = Features({**SCORES, "queries": Value("int64")})  # rows with the same query are its candidates
TAGS = Features({"predictions": SequenceOf(Value("string")), "references": SequenceOf(Value("string"))})
ANSWERS = Features({"predictions": Value("string"), "references": SequenceOf(Value("string"))})


def exact_match(reference: Sequence[str], prediction: str) -> float:
    """1 if the prediction equals one of the reference answers after normalisation, else 0."""
    return float(_normalise(prediction) in [_normalise(answer) for answer in reference])


def answer_f1(reference: Sequence[str], prediction: str) -> float:
    """F1 of the words that the prediction shares with the nearest reference answer."""
    return max(_word_f1(_normalise(prediction), _normalise(answer)) for answer in reference)


def ndcg_by_query(
    references: Sequence[float], predictions: Sequence[float], queries: Sequence[int], cutoff: int = 10
) -> list[float]:
    """The normalised discounted cumulative gain of each query's candidates, ranked by their predicted scores.

    A query whose candidates are all equally good is left out: every order of them is right. Candidates that are
    predicted to be equal count with the mean of their gains.

    Source: Järvelin and Kekäläinen, "Cumulated Gain-based Evaluation of IR Techniques" (2002), as scikit-learn has it.

    Args:
        references: how good each candidate is, 0 or more.
        predictions: the score of each.
        queries: the query of each, by any number.
        cutoff: how many of the first ranks count.
    """
    candidates = collections.defaultdict[int, list[tuple[float, float]]](list)
    for query, reference, prediction in zip(queries, references, predictions, strict=True):
        candidates[query].append((reference, prediction))
    sides = (zip(*own, strict=True) for own in candidates.values() if len({good for good, _ in own}) > 1)
    return [float(ndcg_score([good], [predicted], k=cutoff)) for good, predicted in sides]


def _mean_ndcg(references: Sequence[float], predictions: Sequence[float], queries: Sequence[int]) -> float:
    """0 where no query has candidates that differ."""
    return statistics.fmean(ndcg_by_query(references, predictions, queries) or [0.0])


def _mean(score: Callable[[Sequence[str], str], float], references: Any, predictions: Any) -> float:
    return sum(map(score, references, predictions)) / len(references)


def _correlation(correlate: Callable[[Any, Any], Any], references: Any, predictions: Any) -> float:
    """A correlation, which is 0 where one side is constant."""
    is_constant = any(len(set(values)) < 2 for values in (references, predictions))
    return 0.0 if is_constant else float(correlate(references, predictions).statistic)


def _r2(references: Any, predictions: Any) -> float:
    """R², which is 0 of a single row."""
    return float(r2_score(references, predictions)) if len(references) > 1 else 0.0


@dataclasses.dataclass(frozen=True)
class MetricDefinition:
    """What a metric takes, in one form or in several, and how it is computed from references and predictions.

    One of :data:`RANKED` is computed from the queries, too.
    """

    features: Features | list[Features]
    score: Callable[..., float]


METRICS: dict[str, MetricDefinition] = {
    # Of several classes at once, the share of rows in which all are right.
    "accuracy": MetricDefinition([CLASSES, LABEL_SETS], accuracy_score),
    # Of the second class (index 1) of a task with two.
    "f1": MetricDefinition(CLASSES, partial(f1_score, zero_division=0)),
    "f1_micro": MetricDefinition(LABEL_SETS, partial(f1_score, average="micro", zero_division=0)),
    "f1_weighted": MetricDefinition([CLASSES, LABEL_SETS], partial(f1_score, average="weighted", zero_division=0)),
    "f1_macro": MetricDefinition([CLASSES, LABEL_SETS], partial(f1_score, average="macro", zero_division=0)),
    "matthews": MetricDefinition(CLASSES, matthews_corrcoef),
    "pearson": MetricDefinition(SCORES, partial(_correlation, stats.pearsonr)),
    "spearman": MetricDefinition(SCORES, partial(_correlation, stats.spearmanr)),
    "r2": MetricDefinition(SCORES, _r2),
    "ndcg_at_10": MetricDefinition(RANKED, _mean_ndcg),
    # Of whole spans of BIO tags (type and both borders right), micro-averaged, as CoNLL counts them.
    "span_f1": MetricDefinition(TAGS, partial(span_f1_score, zero_division=0)),
    "exact_match": MetricDefinition(ANSWERS, partial(_mean, exact_match)),
    "answer_f1": MetricDefinition(ANSWERS, partial(_mean, answer_f1)),
}


class TaskMetric(evaluate.Metric):  # type: ignore[misc]
    """One of :data:`METRICS`; its name is the configuration."""

    def _info(self) -> evaluate.MetricInfo:
        features = METRICS[self.config_name].features
        return evaluate.MetricInfo(description=self.config_name, citation="", inputs_description="", features=features)

    def _compute(
        self, predictions: Sequence[Any], references: Sequence[Any], **queries: Sequence[int]
    ) -> dict[str, float]:
        return {self.config_name: float(METRICS[self.config_name].score(references, predictions, **queries))}


def compute_metrics(
    names: Sequence[str], predictions: Sequence[Any], references: Sequence[Any], queries: Sequence[int] = ()
) -> dict[str, float]:
    """The named metrics of :data:`METRICS`, by name; those that rank need the query of each row."""
    scores: dict[str, float] = {}
    # `evaluate` makes a folder for each metric, by default in the user's cache.
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            metric = TaskMetric(name, keep_in_memory=True, cache_dir=folder)
            of_queries = {"queries": queries} if METRICS[name].features is RANKED else {}
            scores |= metric.compute(predictions=predictions, references=references, **of_queries)
    return scores


def _normalise(answer: str) -> list[str]:
    """Words of an answer as SQuAD compares them: no case, no ASCII punctuation, no English articles.

    Source: the evaluation script of Rajpurkar et al., "SQuAD: 100,000+ Questions for Machine Comprehension
    of Text" (2016), which XQuAD uses for every language.
    """
    answer = "".join(character for character in answer.lower() if character not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", answer).split()


def _word_f1(prediction: Sequence[str], reference: Sequence[str]) -> float:
    shared = (collections.Counter(prediction) & collections.Counter(reference)).total()
    return 2 * shared / (len(prediction) + len(reference)) if shared else 0.0
