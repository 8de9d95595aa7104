"""The kinds of task, listed once. A new kind is one module that makes a :class:`TaskKind`, and one entry here."""

from distilrubert.evaluation.tasks.kinds.multi_label_classification import MULTI_LABEL_CLASSIFICATION
from distilrubert.evaluation.tasks.kinds.question_answering import QUESTION_ANSWERING
from distilrubert.evaluation.tasks.kinds.sentence_classification import (
    SENTENCE_CLASSIFICATION,
    SENTENCE_PAIR_CLASSIFICATION,
)
from distilrubert.evaluation.tasks.kinds.sentence_regression import SENTENCE_PAIR_REGRESSION, SENTENCE_REGRESSION
from distilrubert.evaluation.tasks.kinds.task_kind import TaskKind
from distilrubert.evaluation.tasks.kinds.token_classification import TOKEN_CLASSIFICATION

KINDS: dict[str, TaskKind] = {
    "sentence-classification": SENTENCE_CLASSIFICATION,
    "sentence-pair-classification": SENTENCE_PAIR_CLASSIFICATION,
    "multi-label-classification": MULTI_LABEL_CLASSIFICATION,
    "sentence-regression": SENTENCE_REGRESSION,
    "sentence-pair-regression": SENTENCE_PAIR_REGRESSION,
    "token-classification": TOKEN_CLASSIFICATION,
    "question-answering": QUESTION_ANSWERING,
}
