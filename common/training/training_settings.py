"""How a model is trained: the settings of the loop, for every section of a recipe that trains."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from distilrubert.common.configuration import Section
from distilrubert.common.errors import UserError

# Those of accelerate, which takes seconds to import.
TRACKERS = (
    "aim", "clearml", "comet_ml", "dvclive", "mlflow", "swanlab", "tensorboard", "trackio", "wandb",
)  # fmt: skip


class ProgressSettings(Section):
    """What is saved, logged and kept in memory while any model is trained."""

    checkpoint_every: int | None = Field(
        None, ge=1, description="Updates between checkpoints; null leaves it to checkpoint_minutes."
    )
    checkpoint_minutes: float | None = Field(
        15.0, gt=0, description="Minutes between checkpoints; null leaves it to checkpoint_every."
    )
    log_every: int = Field(20, ge=1, description="Updates between points of the curves and lines of the log.")
    trackers: list[str] = Field(
        [], description=f"Experiment trackers that receive the curves; any of {', '.join(TRACKERS)}."
    )
    num_workers: int | None = Field(
        None,
        ge=0,
        description="Processes that mask and pad batches ahead; 0: the training process does it; null: 2 with a GPU, "
        "0 on a CPU.",
    )
    gradient_checkpointing: bool = Field(
        False,
        description="Keep only the input of each layer for the backward pass and compute the rest again: a third of "
        "the memory for each token, for 10 to 20 % more time.",
    )

    @field_validator("trackers")
    @classmethod
    def _known_trackers(cls, names: list[str]) -> list[str]:
        for name in names:
            if name not in TRACKERS:
                raise ValueError(f"unknown tracker {name!r}; allowed are {', '.join(TRACKERS)}")
        return names


class BookkeepingSettings(ProgressSettings):
    """What is done besides training. None of it changes the weights, except for rounding."""

    keep_checkpoints: int = Field(
        2, ge=0, description="Newest checkpoints that are kept; 0: none is written, and a stopped run starts again."
    )
    validate_every: int = Field(500, ge=1, description="Updates between measurements of the losses on held-out text.")
    validation_tokens: int = Field(
        100_000, ge=1, description="Held-out text that is measured at most, in tokens; the same each time."
    )
    max_skipped_updates: int = Field(
        10,
        ge=0,
        description="Updates in a row that may be skipped because a loss or the gradient is infinite or NaN; one more "
        "ends the training.",
    )


DecayRate = Annotated[float, Field(ge=0, lt=1)]


class OptimizationSettings(BookkeepingSettings):
    """How a model is trained: data, optimiser, precision. The defaults are those of DistilBERT where it has one."""

    learning_rate: float = Field(5e-4, gt=0, description="Highest learning rate, reached at the end of the warm-up.")
    warmup: float = Field(0.05, ge=0, le=1, description="Share of all updates in which the learning rate rises from 0.")
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = Field(
        "linear", description="Learning rate after the warm-up: linear or cosine decay to 0, or constant."
    )
    weight_decay: float = Field(
        0.0, ge=0, description="Decoupled weight decay of matrices; biases and LayerNorms are never decayed."
    )
    betas: tuple[DecayRate, DecayRate] = Field((0.9, 0.98), description="Decay rates of AdamW's two moments.")
    epsilon: float = Field(1e-6, gt=0, description="Term that keeps AdamW's division stable.")
    max_grad_norm: float = Field(
        5.0,
        gt=0,
        description="Largest norm of the gradient over all trained weights; a larger gradient is clipped.",
    )
    epochs: int = Field(3, ge=1, description="Passes over the corpus.")
    max_steps: int | None = Field(None, ge=1, description="Updates after which training ends, if the epochs hold more.")
    batch_tokens: int = Field(4096, ge=8, description="Padded tokens of a batch at most, on one process.")
    batch_size: int | None = Field(
        None, ge=1, description="Examples of a batch at most, on one process; null leaves it to batch_tokens."
    )
    batches_per_update: int = Field(
        8,
        ge=1,
        description="Batches of an update over all processes; a multiple of their number. The rest is accumulated.",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto",
        description="Arithmetic of the matrix products; auto: bf16 where the GPU has it or this CPU is clearly faster "
        "in it, else fp32. fp16, with a scaled loss, is for GPUs without bf16 (T4, V100).",
    )
    dropout: bool = Field(True, description="Train with the model's own dropout; false saves time on a CPU.")
    tf32: bool = Field(
        True,
        description="On a GPU, products in fp32 keep 10 bits of their operands' mantissa, as TF32 does. It changes the "
        "rounding.",
    )
    compile: bool = Field(
        False,
        description="Compile the encoders of student and teacher, and the losses over the vocabulary, for batches of "
        "any shape (torch.compile). It changes the rounding.",
    )

    def check_processes(self, section: str, processes: int) -> None:
        """Raise a UserError, naming the section of the recipe, if an update cannot be divided among the processes."""
        check_batches(section, self.batches_per_update, processes)

    def check_length(self, section: str, max_length: int) -> None:
        """Raise a UserError, naming the section of the recipe, if a batch has no room for a sequence of this length."""
        if self.batch_tokens < max_length:
            raise UserError(
                f"{section}.batch_tokens: {self.batch_tokens} is less than corpus.max_length, {max_length}: one such "
                "sequence would not fit into a batch"
            )


def check_batches(section: str, batches: int, processes: int) -> None:
    """Raise a UserError, naming the section of the recipe, if an update of so many batches cannot be divided."""
    if batches % processes:
        raise UserError(
            f"{section}.batches_per_update: {batches} is no multiple of the number of processes, {processes}"
        )
