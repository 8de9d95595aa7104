"""The settings of a student's own vocabulary."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from distilrubert.common.configuration import Section
from distilrubert.modeling.scripts import ScriptName

Count = Annotated[int, Field(ge=1)]


class TrimSettings(Section):
    """The teacher's vocabulary without the tokens that the corpus does not need."""

    minimum_count: Count = Field(
        1, description="How often the text must need a token for it to stay; single characters always stay."
    )
    keep_scripts: list[ScriptName] = Field(
        [],
        description="Scripts of Unicode, for example Cyrillic and Latin: all their tokens stay. Common is "
        "what belongs to no script: digits, punctuation, emoji.",
    )
    keep_letters: list[ScriptName] | None = Field(
        None,
        description="Of the single letters, only those of these scripts stay whatever the text needs; null: all stay. "
        "A multilingual vocabulary has thousands. Single characters that are no letters stay in any case.",
    )


class TrainedVocabularySettings(Section):
    """A WordPiece vocabulary trained on the corpus."""

    size: int = Field(ge=100, description="Tokens, special ones included; fewer where the corpus gives fewer.")
    character_coverage: float = Field(
        0.9999,
        gt=0,
        le=1,
        description="Share of the text's characters that get a token; a word with one of the other, rare characters "
        "is [UNK]. 1 keeps all: ideographs and emoji then take much of a small vocabulary.",
    )
    sample: float = Field(
        1.0, gt=0, le=1, description="Share of the texts whose words are counted, chosen by a hash of text and seed."
    )


class VocabularySettings(Section):
    """The student's vocabulary if it is not the teacher's: a part of that, or a new one."""

    trim: TrimSettings | None = Field(None, description="Keep of the teacher's vocabulary what the corpus needs.")
    train: TrainedVocabularySettings | None = Field(
        None, description="Train a new vocabulary; distillation then works across two vocabularies."
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.trim is None) == (self.train is None):
            raise ValueError("give either trim or train")
        return self
