"""The kinds of task, as a card and the Hub speak of models for them."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class TaskKindText:
    """What is said of the models of one kind.

    Attributes:
        what: what such a model is.
        pipeline: the Hub's name of the task, and that of the pipeline.
        suffix: the end of the names of its classes in transformers.
        options: more arguments of its pipeline.
        is_of_pairs: whether it reads two texts.
        gives_score: whether its answer is a number, not a class.
        is_of_several: whether a text can have several classes.
    """

    what: str
    pipeline: str = "text-classification"
    suffix: str = "SequenceClassification"
    options: str = ", truncation=True"
    is_of_pairs: bool = False
    gives_score: bool = False
    is_of_several: bool = False


TASK_KINDS = {
    "sentence-classification": TaskKindText("a classifier of texts"),
    "sentence-pair-classification": TaskKindText("a classifier of pairs of texts", is_of_pairs=True),
    "multi-label-classification": TaskKindText(
        "a classifier of texts that can have several classes",
        options=", truncation=True, top_k=None",
        is_of_several=True,
    ),
    "sentence-regression": TaskKindText("a model for scores of texts", gives_score=True),
    "sentence-pair-regression": TaskKindText(
        "a model for scores of pairs of texts", is_of_pairs=True, gives_score=True
    ),
    "token-classification": TaskKindText(
        "a tagger of words", "token-classification", "TokenClassification", ', aggregation_strategy="first"'
    ),
    "question-answering": TaskKindText(
        "a reader that answers questions", "question-answering", "QuestionAnswering", ""
    ),
}
"""By the names of evaluation/tasks/kinds; a test compares them."""
