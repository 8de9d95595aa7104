"""How quality is measured: the sections of a recipe that this room reads."""

from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, Field

from distilrubert.common.configuration import Section

T = TypeVar("T")


def _all_different(values: list[T]) -> list[T]:
    if len(set(values)) < len(values):
        raise ValueError(f"each only once, found {values}")
    return values


LearningRate = Annotated[float, Field(gt=0)]
# What NumPy takes; a run that is done twice says nothing about the spread of runs.
Seeds = Annotated[list[Annotated[int, Field(ge=0, lt=2**32)]], Field(min_length=1), AfterValidator(_all_different)]


class FinetuningProtocol(Section):
    """How a model is fine-tuned."""

    learning_rates: Annotated[list[LearningRate], AfterValidator(_all_different)] = Field(
        [3e-5, 1e-4, 3e-4], min_length=1, description="Peak learning rates to choose from on the validation part."
    )
    head_learning_rate: LearningRate | None = Field(
        None,
        description="Peak learning rate of the task's head, of all weights that the checkpoint does not have; null: "
        "as the others.",
    )
    epochs: int = Field(8, ge=1, description="Passes over the training part, at most.")
    patience: int = Field(3, ge=1, description="Stop after this many epochs without a better validation score.")
    batch_size: int = Field(32, ge=1, description="Examples of a batch.")
    warmup: float = Field(0.1, ge=0, le=1, description="Share of all updates over which the learning rate rises.")
    weight_decay: float = Field(0.01, ge=0, description="AdamW's weight decay (none on biases and LayerNorms).")
    max_grad_norm: float = Field(1.0, gt=0, description="Largest norm of the gradient.")
    dropout: float | None = Field(
        None, ge=0, lt=1, description="Dropout probability in fine-tuning; null: what the model's config.json says."
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description="Arithmetic of the matrix products; auto: bf16 where the GPU has it or this CPU is clearly faster "
        "in it, else fp32.",
    )


class FinetuningSettings(FinetuningProtocol):
    """The fine-tuning protocol. Teacher and student go through the same one.

    AdamW with a linear warm-up and a linear decay to 0; after every epoch the main metric is taken on the
    validation part, and the best epoch is the one that is tested. The learning rate is the one with the best
    validation score in a run with the first seed; the other seeds use it.
    """

    train_limit: int | None = Field(
        None,
        ge=2,
        description="Use only this many labelled rows (a fixed random choice) for training and, where the task has "
        "no validation part of its own, validation together; null: all.",
    )


class IntrinsicSettings(Section):
    """How well a model predicts masked tokens of held-out text."""

    sequences: int = Field(1000, ge=1, description="Held-out sequences in which tokens are masked, at most.")
    probability: float = Field(0.15, gt=0, lt=1, description="Share of the tokens of a sequence that are masked.")
    sentences: int = Field(
        100, ge=0, description="Held-out sequences for the pseudo-perplexity, at most; each token is masked in turn."
    )
    batch_size: int = Field(32, ge=1, description="Sequences computed at once.")
    seed: int = Field(0, ge=0, description="Seed of the masks: every model sees the same.")


class QualitySettings(Section):
    """What :func:`~distilrubert.evaluation.tasks.quality.measure_quality` measures."""

    intrinsic: IntrinsicSettings = Field(
        default_factory=IntrinsicSettings, description="How the prediction of held-out text is measured."
    )
    finetuning: FinetuningSettings = Field(
        default_factory=FinetuningSettings, description="The fine-tuning protocol, the same for every model."
    )
    seeds: Seeds = Field([1, 2, 3], description="Seeds of the fine-tuning runs of each task.")
