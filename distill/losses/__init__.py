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
        vocabularies: whether student and teacher may have ``one`` vocabulary, or ``two``.
        term: module and class of its :class:`~distilrubert.distill.losses.term.Term`.
        options: further arguments of the class.
        group: losses of one group are computed together, by one term.
        needs_teacher: whether it compares with a teacher.
    """

    weight: str
    title: str
    meaning: str
    vocabularies: tuple[Vocabularies, ...]
    term: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    group: str | None = None
    needs_teacher: bool = True


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
    ),
    "attention": Loss(
        "Squared distance of attention maps, summed over keys, 0 to 2.",
        "Squared distance of attention maps",
        "Squared distance between {attention_maps}",
        ("one",),
        "attention.AttentionTerm",
    ),
    "hidden": Loss(
        "Squared distance of hidden states, summed over dimensions.",
        "Squared distance of hidden states",
        "Squared distance between {hidden_states}",
        ("one", "two"),
        "states.StateTerm",
        {"distance": "squared", "projected": True},
    ),
    "first_piece": Loss(
        "Two vocabularies: divergence over the student's tokens, each with all that the teacher predicts of what "
        "begins with it; nats times temperature².",
        "KL over the student's tokens",
        "KL divergence at temperature {temperature:g} over the student's vocabulary, each token with all that the "
        "teacher predicts of what begins with it",
        ("two",),
        "first_piece.FirstPieceTerm",
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

else:
    LossWeights = create_model(
        "LossWeights",
        __base__=Section,
        __module__=__name__,
        __doc__="The weight of each loss, as its mean over rows, in the total. One without a weight is not computed.",
        **{name: (float, Field(default=0.0, ge=0, description=loss.weight)) for name, loss in LOSSES.items()},
    )
