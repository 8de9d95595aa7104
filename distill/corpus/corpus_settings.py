"""The corpus section of a recipe: where the text comes from and how it becomes sequences of tokens."""

from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from distilrubert.common.configuration import RecipePath, Section, is_url
from distilrubert.common.errors import UserError

Documents = Literal["lines", "blank-line"]


class CorpusSource(Section):
    """Texts from files, or from one split of a data set on the Hub.

    The weight says how often each text occurs in the training split: `floor(weight)` times, and once more with the
    probability `weight - floor(weight)`, which a hash of text and seed decides. Exact duplicates are dropped before:
    the first source that has a text keeps it, and the weight of this source counts. The validation split has a text
    at most once; a weight below 1 leaves out the same share of its texts.
    """

    path: RecipePath | None = Field(
        None,
        description="Files by name or glob (** for any depth): .txt .jsonl .csv, also .gz or .zst, or .parquet; or a "
        "folder, with all such files below it. Also a URL that fsspec opens: s3://, gs://, hf://.",
    )
    dataset: str | None = Field(None, description="Hub id of a data set, instead of a path.")
    config: str | None = Field(None, description="Name of the data set's configuration, where it has several.")
    revision: str | None = Field(None, description="Branch, tag or commit of the data set.")
    split: str = Field("train", description="Split of the data set.")
    streaming: bool = Field(False, description="Read the data set over the network instead of downloading it first.")
    column: str = Field("text", description="Column (CSV, Parquet, data set) or key (JSON lines) that holds the text.")
    documents: Documents = Field(
        "lines", description="What one text of a .txt file is: a line, or the lines between two blank lines."
    )
    weight: float = Field(
        1.0, gt=0, le=100, description="How many times each text is taken into the training part; may be a fraction."
    )

    @model_validator(mode="after")
    def _no_credentials(self) -> Self:
        if self.path and is_url(self.path) and urlsplit(self.path).password:
            # Pydantic's message would show the value.
            raise UserError("corpus.sources: a URL with a password in it; credentials come from the environment")
        return self

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.path is None) == (self.dataset is None):
            raise ValueError("a source is either a path or a dataset: give exactly one of the two")
        foreign = ("documents",) if self.dataset else ("config", "revision", "split", "streaming")
        # By value, not by being set: a source written out with all its defaults can be read in again.
        if mistaken := [name for name in foreign if getattr(self, name) != type(self).model_fields[name].default]:
            raise ValueError(f"{', '.join(mistaken)}: not for a {'dataset' if self.dataset else 'path'}")
        return self


class CorpusSettings(Section):
    """The text to distil on, and how it becomes sequences of tokens."""

    sources: list[CorpusSource] = Field(
        [], description="Where the text comes from; only a recipe with a section task can do without."
    )
    validation: float = Field(
        0.01, ge=0, lt=1, description="Share of the texts that is held out, chosen by a hash of text and seed."
    )
    sentences: bool = Field(
        False,
        description="Split texts into sentences, each a text of its own: at line ends, and where a capital letter "
        "follows the end of one. For encoders of sentences.",
    )
    max_length: int = Field(
        128,
        ge=8,
        multiple_of=8,
        description="Most tokens of a sequence, [CLS] and [SEP] included; longer texts are split between words.",
    )
    minimum_length: int = Field(
        3, ge=3, description="Fewest tokens of a sequence, [CLS] and [SEP] included; shorter ones are dropped."
    )
    processes: int | None = Field(
        None, ge=1, description="Processes that tokenise; null takes as many as there are cores."
    )
