"""What a user may say about the files to make and how closely they must agree."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from distilrubert.common.configuration import Section
from distilrubert.common.formats import FORMATS, names_of


class Tolerance(Section):
    """How far a file may be from the model that it was made of; null leaves a metric unbounded.

    Each bound holds for single sentences, for sentences in padded batches and for texts of full length alike.
    """

    maximal_difference: float | None = Field(
        default=None, gt=0, description="Largest absolute difference of any component of any token's last hidden state."
    )
    token_cosine: float = Field(
        ge=-1,
        le=1,
        description="Least mean cosine between the vectors of a token. For all cosines the mean over all tokens is "
        "subtracted first.",
    )
    token_cosine_p1: float | None = Field(
        default=None,
        ge=-1,
        le=1,
        description="Least first percentile of these cosines: 99 of 100 tokens are at least as close.",
    )
    pooled_cosine: float = Field(
        ge=-1, le=1, description="Least mean cosine between the vectors of a text, which are means over its tokens."
    )
    vector_cosine_p1: float | None = Field(
        default=None,
        ge=-1,
        le=1,
        description="For encoders of sentences, in place of the other bounds on cosines: least first percentile of the "
        "cosines between the vectors of a text as they are, nothing subtracted.",
    )
    top1_agreement: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Least share of tokens for which the masked-language head has the same first prediction.",
    )


class Tolerances(Section):
    """One tolerance for each number format.

    The numbers were chosen from all files of a real 12-layer BERT, 384 wide, and of a 6-layer student that was cut from
    it, on 150 real texts and eight of full length (benchmarks/results/parity_tolerance-*.json). The descriptions state
    the worst values of these files, and the allowed error is about twice the worst one or more. The hidden states end
    in a LayerNorm, so their components are of the order of 1.
    """

    @field_validator("fp32", "bf16", "fp16", "int8", mode="before")
    @classmethod
    def _complete(cls, given: Any, info: ValidationInfo) -> Any:
        """What is not given is as by default."""
        if not isinstance(given, Mapping):
            return given
        assert info.field_name is not None
        return {**cls.model_fields[info.field_name].default.model_dump(), **given}

    fp32: Tolerance = Field(
        default=Tolerance(
            maximal_difference=1e-3,
            token_cosine=0.9999,
            token_cosine_p1=0.9999,
            pooled_cosine=0.9999,
            vector_cosine_p1=0.9999,
            top1_agreement=0.999,
        ),
        description="For safetensors and fp32 graphs. Only the order of summation differs. Measured: differences of at "
        "most 1e-5.",
    )
    bf16: Tolerance = Field(
        default=Tolerance(
            token_cosine=0.999,
            token_cosine_p1=0.998,
            pooled_cosine=0.998,
            vector_cosine_p1=0.998,
            top1_agreement=0.98,
        ),
        description="For files without int8 that are computed in bf16. Measured: token_cosine 0.9999, token_cosine_p1 "
        "0.9997, pooled_cosine 0.9992, top1_agreement 0.9946.",
    )
    fp16: Tolerance = Field(
        default=Tolerance(
            maximal_difference=0.05,
            token_cosine=0.999,
            token_cosine_p1=0.999,
            pooled_cosine=0.999,
            vector_cosine_p1=0.999,
            top1_agreement=0.99,
        ),
        description="For graphs whose weights are stored in 16 bits. Measured: differences of at most 0.0007.",
    )
    int8: Tolerance = Field(
        default=Tolerance(
            token_cosine=0.98, token_cosine_p1=0.95, pooled_cosine=0.88, vector_cosine_p1=0.99, top1_agreement=0.9
        ),
        description="For files with 8-bit weights and activations, in any arithmetic. A single component may be off by "
        "tenths, so only directions are bounded. Measured: token_cosine 0.9923, token_cosine_p1 0.9771, "
        "pooled_cosine 0.9399, top1_agreement 0.9546. The mean over a text of 512 tokens is close to the mean over all "
        "tokens, so little is left of it for pooled_cosine.",
    )


if TYPE_CHECKING:
    OnnxFile = str
    OnnxFileForAnyTask = str
    OpenvinoFile = str
else:
    OnnxFile = Literal[names_of("onnx")]
    OnnxFileForAnyTask = Literal[names_of("onnx", for_any_task=True)]
    OpenvinoFile = Literal[names_of("openvino")]


class FileChoice(Section):
    """Files to make: a list of formats for each runtime, by their names in it."""

    @property
    def cases(self) -> list[str]:
        """Keys of :data:`~distilrubert.common.formats.FORMATS`, each once, in their order."""
        return [case for case, entry in FORMATS.items() if entry.name in getattr(self, entry.runtime, ())]


class ExportedSettings(FileChoice):
    """As which files each fine-tuned student is scored, too: what the published formats cost in quality."""

    onnx: list[OnnxFileForAnyTask] = Field([], description="ONNX files, as in conversion.onnx.")
    openvino: list[OpenvinoFile] = Field([], description="OpenVINO files, as in conversion.openvino.")


class ConversionSettings(FileChoice):
    """Which files are made of a checkpoint. config.json, model.safetensors and the tokenizer always are."""

    onnx: list[OnnxFile] = Field(
        default=["fp32", "int8"],
        description="ONNX files: fp32 is onnx/model.onnx; int8 is onnx/model_quantized.onnx, which every CPU computes "
        "alike; masked-lm-int8 is the same with the masked-language head, onnx/masked_lm_quantized.onnx, for the page "
        "in a browser (publish.space); the others use what one kind of CPU has.",
    )
    openvino: list[OpenvinoFile] = Field(
        default=[],
        description="OpenVINO files: fp32 is openvino/openvino_model.xml, fp16 the same in half the bytes, int8 is "
        "openvino/openvino_model_qint8_quantized.xml, calibrated on text.",
    )
    task: Literal["feature-extraction", "fill-mask"] = Field(
        default="feature-extraction",
        description="What the ONNX and OpenVINO files return: feature-extraction the encoder's last hidden state, "
        "fill-mask the logits of the masked-language head, which are no vectors of sentences.",
    )
    embedding_bits: Literal[4, 8] = Field(
        default=8,
        description="Of the word embeddings in int8 files. 4 nearly halves their bytes, with a scale for each 64 "
        "numbers. Files with the masked-language head keep 8.",
    )
    calibration_sentences: int = Field(
        default=128, ge=1, description="Sentences on which the ranges of activations are measured for int8."
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
