"""The sections of a recipe that train a masked language model: the student, and a teacher of its own."""

from typing import Self

from pydantic import Field, model_validator

from distilrubert.common.training.training_settings import OptimizationSettings
from distilrubert.distill.batches.masking_settings import MaskingSettings
from distilrubert.distill.losses import SENTENCE_LOSSES
from distilrubert.distill.objective_settings import ObjectiveSettings


class MaskedTrainingSettings(OptimizationSettings):
    """Optimisation on masked tokens."""

    masking: MaskingSettings = Field(MaskingSettings(), description="Which tokens are to be predicted.")


class DistillationSettings(ObjectiveSettings, MaskedTrainingSettings):
    """Losses and optimisation of the student."""

    freeze_embeddings: bool = Field(
        default=False,
        description="Leave the student's word embeddings, tied output matrix included, as they come from the teacher "
        "(as LightMBERT does): what it knows of tokens that are rare in the corpus is kept, and updates cost less.",
    )
    cache_teacher_vectors: bool = Field(
        default=False,
        description="Where sentence_cosine and similarity are the only losses: compute the teacher's vectors once, in "
        "fp32, and keep them beside the checkpoints (4 bytes times its width a sequence).",
    )

    @model_validator(mode="after")
    def _vectors_suffice(self) -> Self:
        others = [name for name, weight in self.weights if weight > 0 and name not in SENTENCE_LOSSES]
        if self.cache_teacher_vectors and others:
            raise ValueError(
                f"cache_teacher_vectors: {', '.join(others)} need more than vectors of sentences; allowed are "
                f"{', '.join(SENTENCE_LOSSES)}"
            )
        return self


class PretrainingSettings(MaskedTrainingSettings):
    """A teacher of the recipe's own: its size and how it is trained on the recipe's corpus."""

    layers: int = Field(12, ge=1, description="Transformer layers.")
    dim: int = Field(384, ge=1, description="Width of the hidden states.")
    heads: int = Field(6, ge=1, description="Attention heads of a layer; they divide dim.")
    hidden_dim: int = Field(1536, ge=1, description="Width inside the feed-forward networks.")
    vocabulary_size: int = Field(8000, ge=100, description="Most WordPiece tokens of the vocabulary trained for it.")
    max_positions: int = Field(512, ge=8, description="Longest sequence in tokens, [CLS] and [SEP] included.")
    weight_decay: float = Field(
        0.01, ge=0, description="Decoupled weight decay of matrices; biases and LayerNorms are never decayed."
    )
