"""The masking section of a recipe: which tokens are to be predicted."""

from typing import Self

from pydantic import Field, model_validator

from distilrubert.common.configuration import Section


class MaskingSettings(Section):
    """Masked-language modelling as in BERT; rare tokens can be preferred, as in XLM and DistilBERT.

    A student that sees rare tokens masked more often learns to expect them. Its teacher and its users mask evenly, and
    there it predicts worse, with and without a teacher (docs/results.md).
    """

    probability: float = Field(
        0.15, gt=0, lt=1, description="Share of an example's tokens, [CLS] and [SEP] counted, that are to be predicted."
    )
    replace: float = Field(0.8, ge=0, le=1, description="Share of them that the model sees as [MASK].")
    keep: float = Field(0.1, ge=0, le=1, description="Share that it sees unchanged; the rest become random tokens.")
    smoothing: float = Field(
        0.0,
        ge=0,
        description="A token is drawn with weight count^-smoothing: 0 evenly as in BERT, 0.7 as in DistilBERT.",
    )

    @model_validator(mode="after")
    def _shares(self) -> Self:
        if self.replace + self.keep > 1:
            raise ValueError(f"replace {self.replace} and keep {self.keep} are more than 1 together")
        return self
