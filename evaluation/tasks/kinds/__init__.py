"""The kinds of task, listed once. A new kind is one module that makes a :class:`TaskKind`, and one entry here."""

from distilrubert.evaluation.tasks.kinds.question_answering import QUESTION_ANSWERING
from distilrubert.evaluation.tasks.kinds.sentence_classification import (
    SENTENCE_CLASSIFICATION,
    SENTENCE_PAIR_CLASSIFICATION,
)
from distilrubert.evaluation.tasks.kinds.task_kind import TaskKind
from distilrubert.evaluation.tasks.kinds.token_classification import TOKEN_CLASSIFICATION

KINDS: dict[str, TaskKind] = {
    "sentence-classification": SENTENCE_CLASSIFICATION,
    "sentence-pair-classification": SENTENCE_PAIR_CLASSIFICATION,
    "token-classification": TOKEN_CLASSIFICATION,
    "question-answering": QUESTION_ANSWERING,
}
