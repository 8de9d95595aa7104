"""The losses of a recipe: which are minimised, and how student and teacher are compared."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from distilrubert.common.configuration import Section
from distilrubert.distill.losses import LossWeights, TaskLossWeights

LayerMap = Literal["block-mean", "last-of-block", "all-mean"] | list[list[int]]


class ComparisonSettings(Section):
    """What every objective has: the weights of its losses, a temperature, and which layers are compared.

    Attributes:
        section: of a recipe, for messages.
    """

    section: ClassVar[str]

    temperature: float = Field(
        default=2.0,
        ge=0.5,
        description="Temperature that softens both models' predictions in the KL divergence; 1 leaves them.",
    )
    weights: Section
    layer_map: LayerMap = Field(
        default="block-mean",
        description="Teacher layers that a student layer is compared with: block-mean (the mean of its share of "
        "consecutive layers), last-of-block (the last of them), all-mean (the mean of all states, the embeddings "
        "among them, with that of the student's), or for each student layer a list of layers to "
        "average, counted from 1 with 0 for the embeddings; an empty list leaves the student layer out.",
    )
    embeddings_pair: bool = Field(
        default=False, description="Compare the outputs of the embeddings too, as a further layer."
    )

    @model_validator(mode="after")
    def _has_one_pair_of_embeddings(self) -> Self:
        if self.embeddings_pair and self.layer_map == "all-mean":
            raise ValueError("embeddings_pair: layer_map all-mean has the embeddings among its states already")
        return self


class ObjectiveSettings(ComparisonSettings):
    """Which losses are minimised, and how student and teacher are compared."""

    section = "distillation"

    weights: LossWeights = Field(
        default_factory=lambda: LossWeights(kl=5.0, mlm=2.0, cosine=1.0),
        description="Weight of each loss; a loss that is not named, or has weight 0, is not computed.",
    )
    kl_positions: Literal["all", "masked"] = Field(
        default="masked",
        description="Tokens whose predictions are compared: masked, those chosen for MLM alone (less than half of the "
        "work, and the better student in docs/results-archive.md); or all real ones, most of which the student can "
        "see.",
    )
    match_rest: bool = Field(
        default=True,
        description="In the match loss, keep what a model predicts outside the common tokens as one class; false "
        "renormalises both models over the common tokens.",
    )
    vocabulary_chunk: int = Field(
        default=512,
        ge=1,
        description="Rows whose predictions are held at a time; each takes 4 bytes (bf16) or 8 (fp32) per token of the "
        "vocabulary.",
    )


class TaskObjectiveSettings(ComparisonSettings):
    """Which losses a student of a task minimises, and how it is compared with its teacher."""

    section = "task.distillation"

    weights: TaskLossWeights = Field(
        default_factory=lambda: TaskLossWeights(logits=1.0, labels=0.5),
        description="Weight of each loss; a loss that is not named, or has weight 0, is not computed.",
    )
