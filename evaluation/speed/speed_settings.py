"""The section of a recipe that says how speed is measured."""

from typing import Literal

from pydantic import Field, field_validator

from distilrubert.common.configuration import Section

STARTS = 5
"""Starts of each case by default, and at least as many for results that the documentation shows."""


MEASURED_TEXTS = 256
"""Texts that are taken of a file of them: a second or two of a large model, one at a time."""


class SpeedSettings(Section):
    """How speed is measured."""

    sequence_length: int = Field(
        default=512,
        ge=1,
        description="Tokens of each sequence, or of a text at most; no more than the shortest model has positions.",
    )
    texts: int | None = Field(
        default=None,
        ge=1,
        description="Real texts to measure on, tokenizer included: of the task's test part, else of the held-out text; "
        "null: random sequences of `sequence_length` tokens, without a tokenizer.",
    )
    batch_sizes: list[int] = Field(
        default=[1, 16],
        min_length=1,
        description="Sequences in a pass: the smallest gives the latency, the largest the throughput.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="auto: the CPU, and PyTorch also on the GPU where there is one."
    )
    threads: int | None = Field(
        default=None,
        ge=1,
        description="Threads on the CPU; null: as many as there are physical cores, which PyTorch takes by itself.",
    )
    starts: int = Field(
        default=STARTS,
        ge=1,
        description="How often the process of each case begins anew. The place of its memory changes the times of "
        f"small models by a tenth or two. With fewer than {STARTS} the reported spread says little; each row names "
        "its number of starts.",
    )
    rounds: int = Field(default=1, ge=1, description="Turns of each case at each batch size, after each start.")
    warmup: int = Field(
        default=2,
        ge=0,
        description="Passes at the beginning of each turn that do not count; one alone if it takes longer than "
        "minimum_time_s.",
    )
    minimum_time_s: float = Field(
        default=0.5, ge=0, description="A turn is as many passes as fill this time, at least one; seconds."
    )
    seed: int = Field(default=0, ge=0, description="Of the random token ids.")

    @field_validator("batch_sizes")
    @classmethod
    def _are_positive(cls, sizes: list[int]) -> list[int]:
        if min(sizes) < 1:
            raise ValueError("a batch has at least one sequence")
        return sorted(set(sizes))
