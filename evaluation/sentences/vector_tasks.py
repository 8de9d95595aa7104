"""How each kind of task is scored on the vectors of its sentences."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

from distilrubert.common.errors import UserError
from distilrubert.evaluation.sentences.frozen_vectors import SentenceEncoder
from distilrubert.evaluation.sentences.suites import VectorTask
from distilrubert.evaluation.sentences.vector_rows import FOLDS, NEIGHBOURS, Parts

Scores = dict[str, dict[str, float]]
"""Metrics by the way in which they were reached: the pooling, and the classifier where several are tried."""

# As Encodechka has them.
CLASSIFIERS: dict[str, Callable[[], Any]] = {
    "logistic-regression": lambda: LogisticRegression(max_iter=10_000),
    "nearest-neighbours": lambda: KNeighborsClassifier(n_neighbors=NEIGHBOURS, weights="distance"),
}


def score_vectors(task: VectorTask, parts: Parts, encoder: SentenceEncoder) -> Scores:
    """The metrics of a task, by how they were reached.

    Raises:
        UserError: if a model's prompts do not fit the kind of task.
    """
    return _KINDS[task.kind](task, parts, encoder)


def _correlate(task: VectorTask, parts: Parts, encoder: SentenceEncoder) -> Scores:
    """Spearman's correlation of the cosine with the given similarity."""
    from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator

    first, second, given = parts["test"].values()
    similarities = [float(value) for value in given]
    evaluator = EmbeddingSimilarityEvaluator(first, second, similarities, main_similarity="cosine", write_csv=False)
    found = encoder.encode([*first, *second])
    # Vectors that are all equal have no correlation at all.
    return {
        pooling: {"spearman": float(np.nan_to_num(evaluator(vectors)["spearman_cosine"]))}
        for pooling, vectors in found.items()
    }


def _classify_cosines(task: VectorTask, parts: Parts, encoder: SentenceEncoder) -> Scores:
    """Accuracy of a logistic regression on the cosine alone, in three folds."""
    first, second, labels = parts["test"].values()
    scores: Scores = {}
    for pooling, vectors in encoder.encode([*first, *second]).items():
        cosines_N1 = (vectors.encode(first) * vectors.encode(second)).sum(axis=1, keepdims=True)
        predicted = cross_val_predict(CLASSIFIERS["logistic-regression"](), cosines_N1, np.array(labels), cv=FOLDS)
        scores[pooling] = {"accuracy": float(accuracy_score(labels, predicted))}
    return scores


def _classify_vectors(task: VectorTask, parts: Parts, encoder: SentenceEncoder) -> Scores:
    """Accuracy, or the area under the ROC curve, of classifiers on the vectors."""
    train, test = parts["train"], parts["test"]
    scores: Scores = {}
    for pooling, vectors in encoder.encode([*train["text"], *test["text"]]).items():
        for name in task.classifiers:
            classifier = CLASSIFIERS[name]().fit(vectors.encode(train["text"]), train["label"])
            way = pooling if len(task.classifiers) == 1 else f"{pooling}, {name}"
            scores[way] = {task.metric: _score(task.metric, classifier, vectors.encode(test["text"]), test["label"])}
    return scores


def _score(metric: str, classifier: Any, vectors_ND: NDArray[np.float32], labels: Sequence[str]) -> float:
    if metric == "accuracy":
        return float(accuracy_score(labels, classifier.predict(vectors_ND)))
    positive = np.array(labels) == classifier.classes_[1]
    return float(roc_auc_score(positive, classifier.predict_proba(vectors_ND)[:, 1]))


def _retrieve(task: VectorTask, parts: Parts, encoder: SentenceEncoder) -> Scores:
    """Ranks of a query's passages among those of all rows; a row without a query only adds a passage."""
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
    from sentence_transformers.util import cos_sim

    if encoder.prompts.query and encoder.prompts.document is None:
        raise UserError(
            f"task {task.name}: queries have the prompt {encoder.prompts.query!r} and passages none; name both"
        )
    pairs = list(zip(*parts["test"].values(), strict=True))
    passages = {passage: passage for _, passage in pairs}
    relevant: dict[str, set[str]] = {}
    for query, passage in pairs:
        if query.strip():
            relevant.setdefault(query, set()).add(passage)
    evaluator = InformationRetrievalEvaluator(
        {query: query for query in relevant}, passages, relevant, score_functions={"cosine": cos_sim}, write_csv=False
    )
    queries, documents = encoder.encode(relevant), encoder.encode(passages, "document")
    scores: Scores = {}
    for pooling in queries:
        found = evaluator(queries[pooling], corpus_model=documents[pooling])
        scores[pooling] = {metric: float(found[f"cosine_{metric}"]) for metric in ("ndcg@10", "recall@10")}
    return scores


_KINDS: dict[str, Callable[[VectorTask, Parts, SentenceEncoder], Scores]] = {
    "sentence-similarity": _correlate,
    "similarity-classification": _classify_cosines,
    "vector-classification": _classify_vectors,
    "retrieval": _retrieve,
}
