"""The shape of a student: settings, presets and the layers it starts from."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from distilrubert.common.configuration import NameOrPath, Section
from distilrubert.common.errors import UserError
from distilrubert.modeling.families import family_of
from distilrubert.modeling.vocabulary_settings import TrainedVocabularySettings, VocabularySettings

if TYPE_CHECKING:  # a recipe is read without transformers, which takes seconds to import
    from transformers import PretrainedConfig, PreTrainedTokenizerFast

PresetName = Literal["base", "small", "tiny", "tiny-5k", "slim", "narrow", "tiny-256"]
Count = Annotated[int, Field(ge=1)]


# Sizes other than the teacher's. With the teacher of the cards (12 layers, 768 wide, 119,547 tokens) these are
# the configurations of the family.
PRESETS: Mapping[PresetName, Mapping[str, int]] = {
    "base": {"layers": 6},
    "small": {"layers": 2},
    "tiny": {"layers": 3, "dim": 264, "heads": 12, "hidden_dim": 792, "vocabulary_size": 30_522},
    "tiny-5k": {"layers": 3, "dim": 264, "heads": 12, "hidden_dim": 792, "vocabulary_size": 5_031},
    "slim": {"layers": 6, "dim": 384, "heads": 6, "hidden_dim": 1536},
    "narrow": {"layers": 6, "hidden_dim": 1024},
    "tiny-256": {"layers": 3, "dim": 256, "heads": 4, "hidden_dim": 768, "vocabulary_size": 30_522},
}
PRUNED_PRESETS = frozenset({"slim", "narrow", "tiny-256"})
"""Those whose student starts from the parts of its teacher that matter most on text."""


@dataclasses.dataclass(frozen=True)
class ResolvedArchitecture:
    """The shape of a student with everything decided.

    The sizes are as in :class:`StudentArchitecture`; `vocabulary_size` is in tokens; `initialise_from` has the teacher
    layer that each student layer starts from, counted from 0, and is None for random weights.
    """

    layers: int
    dim: int
    heads: int
    hidden_dim: int
    vocabulary_size: int
    initialise_from: tuple[int, ...] | None

    def sizes_beside(self, teacher: "PretrainedConfig") -> dict[str, tuple[int, int]]:
        """Each size of a layer, by its name: the student's and the teacher's."""
        return {
            "width (dim)": (self.dim, teacher.hidden_size),
            "heads": (self.heads, teacher.num_attention_heads),
            "hidden_dim": (self.hidden_dim, inner_width(teacher)),
            "width of a head": (self.dim // self.heads, teacher.hidden_size // teacher.num_attention_heads),
        }

    def is_smaller_than(self, teacher: "PretrainedConfig") -> bool:
        """Whether any size of a layer is."""
        return any(own < its for own, its in self.sizes_beside(teacher).values())


class PruningSettings(Section):
    """How the parts of the teacher that the student keeps are chosen."""

    sequences: Count = Field(
        512,
        description="Sequences of the training text, at even distances, on which the importance of each part is "
        "measured. They pass once forward and backward through the teacher.",
    )


class StudentArchitecture(Section):
    """What the student looks like. A size that is not given is the preset's, else the teacher's."""

    start_from: NameOrPath | None = Field(
        None,
        description="Hub id or folder of a finished student to continue from, with its shape, vocabulary and weights, "
        "in place of all that follows: for a second phase on longer texts or another corpus. For a task without a "
        "corpus, any checkpoint.",
    )
    preset: PresetName | None = Field(
        None,
        description="Student of the published family: base (6 layers) and small (2 layers) are as wide as the "
        "teacher and use its vocabulary; tiny and tiny-5k (3 layers, 264 wide) have smaller vocabularies. Pruned ones: "
        "slim (6 layers, 384 wide, 6 heads, 1,536 units), narrow (6 layers, 1,024 units), tiny-256 (tiny with 4 heads "
        "of 64).",
    )
    layers: Count | None = Field(None, description="Transformer layers; at most as many as the teacher has.")
    dim: Count | None = Field(None, description="Width of the hidden states.")
    heads: Count | None = Field(None, description="Attention heads of a layer; they divide the width.")
    hidden_dim: Count | None = Field(None, description="Width inside the feed-forward networks.")
    initialise_from: list[Annotated[int, Field(ge=0)]] | Literal["random"] | None = Field(
        None,
        description="For each student layer the teacher layer (counted from 0) that it starts from; by default "
        "evenly spread from the first to the last. random: nothing comes from the teacher, embeddings included.",
    )
    prune: PruningSettings | None = Field(
        None,
        description="Keep those heads, feed-forward units and dimensions of the teacher that change its predictions "
        "most, measured on the training text before distillation. null takes the preset's choice (slim, narrow and "
        "tiny-256 are pruned so); else those with the largest weights are kept, and evenly spread heads.",
    )
    vocabulary: VocabularySettings | None = Field(
        None,
        description="A smaller vocabulary; null takes that of the preset (tiny, tiny-256, tiny-5k: trained), else the "
        "teacher's.",
    )

    @model_validator(mode="after")
    def _finished_student_is_as_it_is(self) -> Self:
        others = [name for name in type(self).model_fields if name != "start_from" and getattr(self, name) is not None]
        if self.start_from and others:
            raise ValueError(
                f"start_from: shape, vocabulary and weights are those of {self.start_from}; leave out "
                f"{', '.join(others)}"
            )
        return self

    @model_validator(mode="after")
    def _nothing_is_pruned_of_random_weights(self) -> Self:
        if self.prune and self.initialise_from == "random":
            raise ValueError("prune: with initialise_from: random nothing comes from the teacher")
        return self

    def pruning(self) -> PruningSettings | None:
        """How the parts that are kept are chosen on text; None if they are not."""
        is_pruned = self.preset in PRUNED_PRESETS and self.initialise_from != "random"
        return self.prune or (PruningSettings() if is_pruned else None)

    def own_vocabulary(self) -> VocabularySettings | None:
        """The vocabulary to make for the student; None if it has the teacher's."""
        size = self._preset().get("vocabulary_size")
        if self.vocabulary or not size:
            return self.vocabulary
        return VocabularySettings(train=TrainedVocabularySettings(size=size))

    def resolve(self, teacher: "PretrainedConfig", vocabulary_size: int | None = None) -> ResolvedArchitecture:
        """Decide everything that is left open.

        Args:
            teacher: gives what is left open.
            vocabulary_size: tokens of the vocabulary that was made for the student; None before.

        Raises:
            UserError: if the settings contradict themselves or the teacher.
        """
        vocabulary = self.own_vocabulary()
        expected_size = vocabulary.train.size if vocabulary and vocabulary.train else teacher.vocab_size
        layers = self._size("layers", teacher.num_hidden_layers)
        dim = self._size("dim", teacher.hidden_size)
        heads = self._size("heads", teacher.num_attention_heads)
        if layers > teacher.num_hidden_layers:
            raise UserError(
                f"student.layers: {layers}; the teacher has {teacher.num_hidden_layers}, and no more are allowed"
            )
        if dim % heads:
            raise UserError(f"student.heads: {heads} heads do not divide the width {dim}")
        shape = ResolvedArchitecture(
            layers=layers,
            dim=dim,
            heads=heads,
            hidden_dim=self._size("hidden_dim", inner_width(teacher)),
            vocabulary_size=vocabulary_size or expected_size,
            initialise_from=self._starting_layers(layers, teacher),
        )
        sizes = shape.sizes_beside(teacher)
        larger = [f"{name} {size} (teacher: {limit})" for name, (size, limit) in sizes.items() if size > limit]
        if larger and shape.initialise_from is not None:
            raise UserError(
                f"student: {', '.join(larger)}: a student starts from a part of its teacher's weights, so no size may "
                "be larger"
            )
        if self.prune and not shape.is_smaller_than(teacher):
            raise UserError(
                "student.prune: each layer of the student is as large as one of the teacher; give a smaller dim, heads "
                "or hidden_dim, or leave it out"
            )
        own, its = sizes["width of a head"]
        if family_of(teacher).is_rotary and own != its and shape.initialise_from is not None:
            raise UserError(
                f"student.heads: {heads} of a width of {own}; a {family_of(teacher).title}'s are {its} wide, which its "
                f"rotary positions are made for: {dim // its} heads for this width"
            )
        return shape

    def describe_initialisation(self, teacher: "PretrainedConfig") -> dict[str, Any]:
        """For the training report: ``layers`` of the teacher that the student starts from, and ``teacher_layers``.

        Layers are counted from 0; None means random weights.
        """
        layers = self.resolve(teacher).initialise_from
        return {"layers": None if layers is None else list(layers), "teacher_layers": teacher.num_hidden_layers}

    def _preset(self) -> Mapping[str, int]:
        return PRESETS[self.preset] if self.preset else {}

    def _size(self, name: str, of_teacher: int) -> int:
        return getattr(self, name) or self._preset().get(name, of_teacher)

    def _starting_layers(self, layers: int, teacher: "PretrainedConfig") -> tuple[int, ...] | None:
        teacher_layers = teacher.num_hidden_layers
        kinds_of = family_of(teacher).layer_kinds
        own, its = kinds_of(teacher, layers), kinds_of(teacher, teacher_layers)
        if self.initialise_from == "random":
            return None
        if self.initialise_from is None:
            return spread_over_kinds(own, its)
        if len(self.initialise_from) != layers:
            raise UserError(
                f"student.initialise_from: {len(self.initialise_from)} entries for {layers} student layers; "
                "one for each is needed"
            )
        if beyond := [layer for layer in self.initialise_from if layer >= teacher_layers]:
            raise UserError(
                f"student.initialise_from: the teacher has no layer {beyond[0]}; 0 to {teacher_layers - 1} are allowed"
            )
        for layer, of_teacher in enumerate(self.initialise_from):
            if own[layer] != its[of_teacher]:
                raise UserError(
                    f"student.initialise_from: layer {layer} of the student is {own[layer]}, layer {of_teacher} of the "
                    f"teacher {its[of_teacher]}; each must start from one of its own kind, for example "
                    f"{list(spread_over_kinds(own, its))}"
                )
        return tuple(self.initialise_from)


def inner_width(config: "PretrainedConfig") -> int:
    """The width inside the feed-forward networks of a model."""
    return int(getattr(config, family_of(config).inner_width))


def spread_layers(layers: int, teacher_layers: int) -> tuple[int, ...]:
    """Teacher layers, evenly spread from the first to the last: layer k is (k·(L-1))/(K-1), rounded.

    For 6 of 12 this gives 0, 2, 4, 7, 9, 11, as for DistilBERT; for all layers, each one; for a single layer the
    first, which was trained on the embeddings.

    Args:
        layers: K, number of student layers, at most `teacher_layers`.
        teacher_layers: L.
    """
    if layers == 1:
        return (0,)
    steps = layers - 1
    return tuple((2 * k * (teacher_layers - 1) + steps) // (2 * steps) for k in range(layers))


def spread_over_kinds(own: Sequence[str], its: Sequence[str]) -> tuple[int, ...]:
    """Teacher layers as near to :func:`spread_layers` as can be, ascending, each of the kind of the student's layer.

    Args:
        own: kinds of the student's layers.
        its: kinds of the teacher's; they begin with those of the student's.
    """
    # The best choice for the student's layers so far that ends in each of the teacher's: its distance and its layers.
    best: dict[int, tuple[int, tuple[int, ...]]] = {-1: (0, ())}
    for ideal, kind in zip(spread_layers(len(own), len(its)), own, strict=True):
        best = {
            layer: (distance + (layer - ideal) ** 2, (*chosen, layer))
            for layer, found in enumerate(its)
            if found == kind and any(end < layer for end in best)
            for distance, chosen in [min(choice for end, choice in best.items() if end < layer)]
        }
    return min(best.values())[1]


def student_config(
    architecture: StudentArchitecture,
    teacher: "PretrainedConfig",
    tokenizer: "PreTrainedTokenizerFast | None" = None,
    vocabulary_size: int | None = None,
) -> "PretrainedConfig":
    """The config.json of a student.

    Args:
        architecture: the shape.
        teacher: gives what `architecture` leaves open, the number of positions and the activation.
        tokenizer: gives the ids of special tokens; None takes those of the teacher's config.
        vocabulary_size: tokens of the vocabulary that was made for the student, if any.

    Raises:
        UserError: if `architecture` contradicts itself or the teacher.
    """
    shape = architecture.resolve(teacher, vocabulary_size)
    return family_of(teacher).student_config(teacher, shape, _special_ids(tokenizer) if tokenizer else {})


def _special_ids(tokenizer: "PreTrainedTokenizerFast") -> dict[str, int]:
    """The ids of special tokens under their names in a config.json."""
    ids = {
        "pad_token_id": tokenizer.pad_token_id,
        "cls_token_id": tokenizer.cls_token_id,
        "sep_token_id": tokenizer.sep_token_id,
        "bos_token_id": tokenizer.cls_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id,
        "eos_token_id": tokenizer.sep_token_id if tokenizer.eos_token_id is None else tokenizer.eos_token_id,
    }
    return {name: number for name, number in ids.items() if number is not None}
