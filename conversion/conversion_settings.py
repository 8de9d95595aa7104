"""What a user may say about the files to make and how closely they must agree."""

from typing import Literal

from pydantic import Field

from distilrubert.common.configuration import Section


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
    top1_agreement: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Least share of tokens for which the masked-language head has the same first guess.",
    )


class Tolerances(Section):
    """One tolerance for each number format.

    The hidden states end in a LayerNorm, so their components are of the order of 1. In fp32 only the order of
    summation differs (about 1e-5 on a real 12-layer BERT). For int8 a single component may be off by tenths, so
    only directions are bounded: a real 12-layer BERT, 384 wide, keeps a mean token cosine of 0.994; without smoothing
    0.981, with one scale for a whole weight matrix 0.87, and where the arithmetic saturates it falls lower still.
    """

    fp32: Tolerance = Field(
        default=Tolerance(maximal_difference=1e-3, token_cosine=0.9999, pooled_cosine=0.9999),
        description="For safetensors and fp32 graphs.",
    )
    fp16: Tolerance = Field(
        default=Tolerance(maximal_difference=0.05, token_cosine=0.999, pooled_cosine=0.999),
        description="For graphs whose weights are stored in 16 bits.",
    )
    int8: Tolerance = Field(
        default=Tolerance(token_cosine=0.97, pooled_cosine=0.97),
        description="For files with 8-bit weights and activations.",
    )


OnnxFile = Literal["fp32", "int8", "int8-avx2", "int8-avx512-vnni", "int8-arm64"]
OpenvinoFile = Literal["fp32", "fp16", "int8"]


class ConversionSettings(Section):
    """Which files are made of a checkpoint. config.json, model.safetensors and the tokenizer always are."""

    onnx: list[OnnxFile] = Field(
        default=["fp32", "int8"],
        description="ONNX files: fp32 is onnx/model.onnx; int8 is onnx/model_quantized.onnx, which every CPU computes "
        "alike; the others use what one kind of CPU has.",
    )
    openvino: list[OpenvinoFile] = Field(
        default=[],
        description="OpenVINO files: fp32 is openvino/openvino_model.xml, fp16 the same in half the bytes, int8 is "
        "openvino/openvino_model_qint8_quantized.xml, calibrated on the corpus.",
    )
    task: Literal["feature-extraction", "fill-mask"] = Field(
        default="feature-extraction",
        description="What the ONNX and OpenVINO files return: feature-extraction the encoder's last hidden state, "
        "fill-mask the logits of the masked-language head, from which nobody makes vectors of sentences.",
    )
    calibration_sentences: int = Field(
        default=128, ge=1, description="Sentences on which the ranges of activations are seen for int8."
    )
    largest_layer_error: float = Field(
        default=0.15,
        gt=0,
        description="A linear map whose output int8 changes by more than this, relative to its size, stays in fp32; "
        "on a real 12-layer BERT the worst has 0.07.",
    )
    tolerance: Tolerances = Field(
        default=Tolerances(),
        description="How closely each file must agree with the checkpoint; beyond it the stage fails.",
    )
