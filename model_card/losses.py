"""What a card says of each loss: an entry for each."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from distilrubert.model_card.formatting import words
from distilrubert.model_card.inputs import CardInput


@dataclasses.dataclass(frozen=True)
class Loss:
    """A loss in words.

    Attributes:
        title: above its curve.
        meaning: in the table of losses; ``{temperature}``, ``{positions}``, ``{hidden_states}`` and
            ``{attention_maps}`` stand for what the recipe says, the last two for what is compared with what.
    """

    title: str
    meaning: str


LOSSES = {
    "kl": Loss(
        "KL to the teacher",
        "KL divergence from the teacher's to the student's predictions at temperature {temperature:g}, over "
        "{positions} positions",
    ),
    "mlm": Loss("Masked-token loss", "Masked-language-modelling cross-entropy of the student at the masked positions"),
    "cosine": Loss("Cosine distance of hidden states", "Cosine distance between {hidden_states}"),
    "hidden": Loss("Squared distance of hidden states", "Squared distance between {hidden_states}"),
    "attention": Loss("Squared distance of attention maps", "Squared distance between {attention_maps}"),
    "first_piece": Loss(
        "KL over the student's pieces",
        "KL divergence at temperature {temperature:g} over the student's vocabulary, each piece with all that the "
        "teacher predicts of what begins with it",
    ),
    "match": Loss(
        "KL over the common pieces",
        "KL divergence at temperature {temperature:g} over the pieces of both vocabularies, where both texts have the "
        "same piece",
    ),
    "reduce_map": Loss(
        "KL over the teacher's pieces",
        "KL divergence at temperature {temperature:g} over the teacher's whole vocabulary, each piece predicted "
        "through those of the student that spell it",
    ),
    "reduce": Loss(
        "Squared distance of spans",
        "Squared distance between the teacher's state of a token and the mean state of the pieces that face it",
    ),
    "reduce_cosine": Loss(
        "Cosine distance of spans",
        "Cosine distance between the teacher's state of a token and the mean state of the pieces that face it",
    ),
}
TITLES = {"loss": "Total loss", **{name: loss.title for name, loss in LOSSES.items()}}
"""What stands above each curve of the training report."""


def loss_meanings(
    settings: Mapping[str, Any], teacher: int | None = None, student: int | None = None
) -> Mapping[str, str]:
    """Each loss in words, as the settings of a distillation have it.

    Args:
        settings: the recipe's section.
        teacher: layers of the teacher, where they are known.
        student: those of the student.
    """
    layer_map = settings.get("layer_map", "block-mean")
    said = {
        "temperature": settings["temperature"],
        "positions": "the masked" if settings.get("kl_positions") == "masked" else "all",
        "hidden_states": _compared("hidden state", layer_map, teacher, student),
        "attention_maps": _compared("attention map", layer_map, teacher, student),
    }
    return {name: loss.meaning.format(**said) for name, loss in LOSSES.items()}


def _compared(state: str, layer_map: str, teacher: int | None, student: int | None) -> str:
    """What is compared with what by the layer map."""
    if layer_map == "all-mean":
        return f"the mean of all {state}s of the student and that of the teacher's"
    return f"each {state} of the student and {_target(f'{state}s', layer_map, teacher, student)}"


def _target(states: str, layer_map: str, teacher: int | None, student: int | None) -> str:
    """What a layer of the student learns from by the layer map, in the words of the reference card."""
    if layer_map == "last-of-block":
        return f"the last of its block of consecutive {states} of the teacher"
    if layer_map != "block-mean":
        return f"the mean of those {states} of the teacher that the recipe lists for it"
    if teacher is None or student is None:
        return f"the mean of consecutive {states} of the teacher"
    if teacher == student:
        return "the teacher's at the same depth"
    sizes = sorted({(k + 1) * teacher // student - k * teacher // student for k in range(student)})
    return f"the mean of {' or '.join(map(words, sizes))} consecutive {states} of the teacher"


def teacher_layers(run: CardInput) -> int | None:
    """From the teacher's config; while that is not at hand, from the recipe that trains it."""
    if run.teacher_config:
        return int(run.teacher_config["num_hidden_layers"])
    return (run.recipe["teacher"].get("pretrain") or {}).get("layers")
