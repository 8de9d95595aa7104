"""What a user may say about the files to make and how closely they must agree."""

from typing import Literal

from pydantic import Field

from distilrubert.modeling.configuration import Section


class Tolerance(Section):
    """How far a file may be from the model that it was made of; None leaves a figure unchecked."""

    maximal_difference: float | None = Field(
        default=None, gt=0, description="Largest absolute difference of any component of any token's last hidden state."
    )
    token_cosine: float = Field(
        ge=-1, le=1, description="Least mean cosine between the vectors of a token, over all tokens."
    )
    pooled_cosine: float = Field(
        ge=-1, le=1, description="Least mean cosine between mean-pooled vectors of a sentence, over all sentences."
    )


class Tolerances(Section):
    """One tolerance for each number format.

    The hidden states end in a LayerNorm, so their components are of the order of 1. In fp32 only the order of
    summation differs (about 1e-5 on a real 12-layer BERT). For int8 a single component may be off by tenths, so
    only directions are bounded: a real 12-layer BERT, 384 wide, keeps a mean token cosine of 0.981; with one scale
    for a whole weight matrix it falls to 0.87, and where the arithmetic saturates lower still, which 0.95 catches.
    """

    fp32: Tolerance = Field(
        default=Tolerance(maximal_difference=1e-3, token_cosine=0.9999, pooled_cosine=0.9999),
        description="For safetensors and fp32 graphs.",
    )
    int8: Tolerance = Field(
        default=Tolerance(token_cosine=0.95, pooled_cosine=0.95),
        description="For files with 8-bit weights and activations.",
    )


class ConversionSettings(Section):
    """Which files are made of a checkpoint. config.json, model.safetensors and the tokenizer always are."""

    onnx: list[Literal["fp32", "int8"]] = Field(
        default=["fp32", "int8"],
        description="ONNX files of the encoder: fp32 is onnx/model.onnx, int8 is onnx/model_quantized.onnx.",
    )
    tolerance: Tolerances = Field(
        default=Tolerances(),
        description="How closely each file must agree with the checkpoint; beyond it the stage fails.",
    )
