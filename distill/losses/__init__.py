"""The losses of distillation: the one list of them, and their weights in a recipe.

A loss is a sum over rows. The objective divides it by a number of rows that may span several batches and processes.
To add a loss, write its term (a subclass of :class:`~distilrubert.distill.losses.term.Term`) and its entry in
:data:`LOSSES`. The weight in the recipe, the checks of recipes, the training report and the card follow from these.

A command starts with this module, so it imports neither torch nor transformers.
"""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, create_model

from distilrubert.common.configuration import Section

Vocabularies = Literal["one", "two"]


@dataclasses.dataclass(frozen=True)
class Loss:
    """One loss, as recipes, reports and cards name it.

    Attributes:
        weight: description of its weight in a recipe, with the unit of the loss.
        title: of its curve.
        meaning: what it compares, for the table on the card. ``{temperature}``, ``{positions}``, ``{hidden_states}``
            and ``{attention_maps}`` stand for what the settings say.
        vocabularies: whether student and teacher may have ``one`` vocabulary, or ``two``; empty for losses of tasks
            alone.
        term: module and class of its :class:`~distilrubert.distill.losses.term.Term`.
        options: further arguments of the class.
        group: losses of one group are computed together, by one term.
        needs_teacher: whether the teacher has to be run with each batch.
        of_tasks: whether it is for students of a task.
    """

    weight: str
    title: str
    meaning: str
    vocabularies: tuple[Vocabularies, ...]
    term: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    group: str | None = None
    needs_teacher: bool = True
    of_tasks: bool = False


LOSSES: dict[str, Loss] = {
    "kl": Loss(
        "Divergence from the teacher's predictions; nats times temperature².",
        "KL to the teacher",
        "KL divergence from the teacher's to the student's predictions at temperature {temperature:g}, over "
        "{positions} positions",
        ("one",),
        "predictions.VocabularyTerm",
        group="vocabulary",
    ),
    "mlm": Loss(
        "Cross-entropy of the masked tokens, nats.",
        "Masked-token loss",
        "Masked-language-modelling cross-entropy of the student at the masked positions",
        ("one", "two"),
        "predictions.VocabularyTerm",
        group="vocabulary",
        needs_teacher=False,
    ),
    "cosine": Loss(
        "Cosine distance of hidden states, 0 to 2.",
        "Cosine distance of hidden states",
        "Cosine distance between {hidden_states}",
        ("one", "two"),
        "states.StateTerm",
        {"distance": "cosine", "projected": False},
        of_tasks=True,
    ),
    "attention": Loss(
        "Squared distance of attention maps, summed over keys, 0 to 2.",
        "Squared distance of attention maps",
        "Squared distance between {attention_maps}",
        ("one",),
        "attention.AttentionTerm",
        of_tasks=True,
    ),
    "hidden": Loss(
        "Squared distance of hidden states, summed over dimensions.",
        "Squared distance of hidden states",
        "Squared distance between {hidden_states}",
        ("one", "two"),
        "states.StateTerm",
        {"distance": "squared", "projected": True},
        of_tasks=True,
    ),
    "first_token": Loss(
        "Two vocabularies: divergence over the student's tokens, each with all that the teacher predicts of what "
        "begins with it; nats times temperature².",
        "KL over the student's tokens",
        "KL divergence at temperature {temperature:g} over the student's vocabulary, each token with all that the "
        "teacher predicts of what begins with it",
        ("two",),
        "first_token.FirstTokenTerm",
    ),
    "match": Loss(
        "Two vocabularies: divergence over the tokens of both, where both texts have the same token; nats times "
        "temperature².",
        "KL over the common tokens",
        "KL divergence at temperature {temperature:g} over the tokens of both vocabularies, where both texts have the "
        "same token",
        ("two",),
        "match.MatchTerm",
    ),
    "reduce_map": Loss(
        "Two vocabularies: divergence over the teacher's whole vocabulary, each of its tokens predicted through those "
        "that spell it; nats times temperature².",
        "KL over the teacher's tokens",
        "KL divergence at temperature {temperature:g} over the teacher's whole vocabulary, each token predicted "
        "through those of the student that spell it",
        ("two",),
        "reduce_map.ReduceMapTerm",
    ),
    "reduce": Loss(
        "Two vocabularies: squared distance of the mean hidden states of a span of text, summed over dimensions.",
        "Squared distance of spans",
        "Squared distance between {hidden_states}",
        ("two",),
        "states.StateTerm",
        {"distance": "squared", "projected": True},
    ),
    "reduce_cosine": Loss(
        "Two vocabularies: cosine distance of the mean hidden states of a span of text, 0 to 2.",
        "Cosine distance of spans",
        "Cosine distance between {hidden_states}",
        ("two",),
        "states.StateTerm",
        {"distance": "cosine", "projected": True},
    ),
    "sentence_cosine": Loss(
        "Cosine distance of the vectors of sentences, 0 to 2.",
        "Cosine distance of sentences",
        "Cosine distance between the vectors of a sentence ({pooling} of the last hidden states)",
        ("one", "two"),
        "sentence_vectors.SentenceTerm",
        group="sentences",
    ),
    "similarity": Loss(
        "Squared error of the cosines of all pairs of sentences in a batch, each matrix centred.",
        "Squared error of similarities",
        "Squared error of the centred matrix of cosines between the sentences of a batch",
        ("one", "two"),
        "sentence_vectors.SentenceTerm",
        group="sentences",
    ),
    "logits": Loss(
        "Divergence from what the teacher says of each text or word, nats times temperature²; of a score the squared "
        "difference from the teacher's.",
        "Distance from the teacher",
        "KL divergence from the teacher's to the student's probabilities of the classes at temperature "
        "{temperature:g}, or the squared difference of their scores, over texts with and without labels",
        (),
        "task_term.TaskTerm",
        group="task",
        # Its logits come with the batch.
        needs_teacher=False,
        of_tasks=True,
    ),
    "labels": Loss(
        "Cross-entropy of the labels, nats; of a score its squared error.",
        "Loss of the labels",
        "Cross-entropy of the labels, or the squared error of the score, where there are labels",
        (),
        "task_term.TaskTerm",
        group="task",
        needs_teacher=False,
        of_tasks=True,
    ),
}
SENTENCE_LOSSES = tuple(name for name, loss in LOSSES.items() if loss.group == "sentences")


def losses_for(vocabularies: Vocabularies) -> list[str]:
    """The losses that can have a weight."""
    return [name for name, loss in LOSSES.items() if vocabularies in loss.vocabularies]


if TYPE_CHECKING:

    class LossWeights(Section):
        """The weight of each loss."""

        def __init__(self, **weights: float) -> None: ...
        def __getattr__(self, name: str) -> float: ...

    class TaskLossWeights(Section):
        """The weight of each loss of a student of a task."""

        def __init__(self, **weights: float) -> None: ...
        def __getattr__(self, name: str) -> float: ...

else:

    def _weights(name: str, losses: Mapping[str, Loss]) -> type[Section]:
        return create_model(
            name,
            __base__=Section,
            __module__=__name__,
            __doc__="The weight of each loss, as its mean over rows, in the total. One without a weight is not "
            "computed.",
            **{name: (float, Field(default=0.0, ge=0, description=loss.weight)) for name, loss in losses.items()},
        )

    LossWeights = _weights("LossWeights", {name: loss for name, loss in LOSSES.items() if loss.vocabularies})
    TaskLossWeights = _weights("TaskLossWeights", {name: loss for name, loss in LOSSES.items() if loss.of_tasks})
