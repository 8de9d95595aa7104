"""TF-IDF of words and characters, and a linear model."""

from collections.abc import Sequence
from typing import Any

from datasets import Dataset
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer

from distilrubert.common.errors import UserError
from distilrubert.evaluation.tasks.baselines.linear_model import labels_of, linear_model
from distilrubert.evaluation.tasks.row_results import score_test
from distilrubert.evaluation.tasks.task import TaskDefinition
from distilrubert.evaluation.tasks.task_data import TaskRows

REGULARISATION = 3.0  # scikit-learn's C: the best of 1, 3 and 10 on the validation part of RuSentiment
WORD = r"(?u)\b\w+\b"  # also one letter: «я», «в», «и» are words
MANY_ROWS = 1000  # from here on, terms of a single text are left out: most features are such terms


def score_bag_of_words(task: TaskDefinition, rows: TaskRows) -> dict[str, Any]:
    """The task's metrics on the test part, after fitting on the training part. There is no randomness.

    Raises:
        UserError: if the training texts share no words and no characters, or are empty.
    """
    vectorizers = _fitted_vectorizers(task, rows.train)
    model = linear_model(task.task_kind, REGULARISATION)
    model.fit(_features(vectorizers, rows.train), labels_of(rows.train))
    predictions = model.predict(_features(vectorizers, rows.test)).tolist()
    return score_test(task, rows.test, predictions, labels_of(rows.test).tolist())


def _fitted_vectorizers(task: TaskDefinition, rows: Dataset) -> list[TfidfVectorizer]:
    texts = [text for column in ("text", "text_pair") if column in rows.column_names for text in rows[column]]
    rarest = 2 if len(rows) >= MANY_ROWS else 1
    of_words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=rarest, token_pattern=WORD)
    of_characters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True, min_df=rarest)
    # Emoji alone have characters and no words.
    able = [vectorizer for vectorizer in (of_words, of_characters) if _finds_terms(vectorizer, texts)]
    if not able:
        raise UserError(f"task {task.name}: the texts to train on have nothing in common, or nothing in them")
    return able


def _finds_terms(vectorizer: TfidfVectorizer, texts: Sequence[str]) -> bool:
    try:
        vectorizer.fit(texts)
    except ValueError:
        return False
    return True


def _features(vectorizers: Sequence[TfidfVectorizer], rows: Dataset) -> Any:
    """The vector of a sentence; for a pair the product and the absolute difference of its two vectors."""
    first, *others = (
        sparse.hstack([vectorizer.transform(rows[column][:]) for vectorizer in vectorizers]).tocsr()
        for column in ("text", "text_pair")
        if column in rows.column_names
    )
    if not others:
        return first
    (second,) = others
    return sparse.hstack([first.multiply(second), abs(first - second)]).tocsr()
