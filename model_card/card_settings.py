"""What a recipe says about the model card beyond what was measured."""

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from distilrubert.common.configuration import Section
from distilrubert.model_card.examples import KNOWN, examples_in
from distilrubert.model_card.hub_rules import is_language, is_license, is_repo_id

MASK = "[MASK]"
LEFT_OUT = f"Where it is left out, a greeting; there is one in {', '.join(KNOWN)}."


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _must(is_valid: Callable[[str], Any], message: str) -> AfterValidator:
    """A validator that refuses a text with this message."""

    def check(text: str) -> str:
        if not is_valid(text):
            raise ValueError(message)
        return text

    return AfterValidator(check)


LANGUAGE = _must(is_language, "a language is an ISO 639 code of two or three small letters, or multilingual or code")
LICENSE = _must(
    is_license,
    "a license is an identifier of huggingface.co/docs/hub/repositories-licenses "
    "such as apache-2.0, mit or cc-by-4.0, or other with license_name and license_link",
)
# It becomes the target of a Markdown link and a value of the front matter.
LICENSE_LINK = _must(
    re.compile(r"https?://[^\s<>()\[\]\"'\\]+|[\w.-]+(/[\w.-]+)*").fullmatch,
    "an https address or the path of a file in the repository is needed, without spaces, quotes or brackets",
)
DATASET = _must(is_repo_id, "a data set is named by its Hub id, for example user/name")
ONE_MASK = _must(lambda text: text.count(MASK) == 1, f"the example holds exactly one {MASK}")
Words = Annotated[str, Field(min_length=1)]


class CardSettings(Section):
    """What only a person can say about the model: licences, origin, purpose."""

    language: Annotated[list[Annotated[str, LANGUAGE]], BeforeValidator(_as_list)] = Field(
        min_length=1, description="ISO 639 code of the model's language, or a list of them."
    )
    license: Annotated[str, LICENSE] = Field(
        description="Licence of the published model: an identifier of the Hub's list, or other."
    )
    license_name: str | None = Field(None, description="Name of the licence where license is other.")
    license_link: Annotated[str, LICENSE_LINK] | None = Field(
        None, description="Address, or path in the repository, of the licence's text where license is other."
    )
    title: str | None = Field(None, description="Heading of the card; the recipe's name where it is left out.")
    tags: list[Words] = Field([], description="Tags for the Hub's search, besides those that follow from the files.")
    datasets: list[Annotated[str, DATASET]] = Field(
        [], description="Hub ids of the data sets that the corpus was made from."
    )
    method: Literal["distilbert", "distilrubert"] = Field(
        "distilbert",
        description="Paper on the method that the card cites first. distilbert: Sanh et al. 2019. distilrubert: "
        "Kolesnikova et al. 2022; for students of a RuBERT that are trained with the losses of that paper.",
    )
    authors: list[Words] = Field([], description="Who made this model, for the citation; each as 'Family, Given'.")
    teacher_name: str | None = Field(
        None, description="The teacher's name on the card, where it is not loaded from the Hub by its id."
    )
    teacher_license: str | None = Field(None, description="Licence of the teacher, in words.")
    corpus_description: str | None = Field(None, description="What the corpus is, a few sentences of Markdown.")
    corpus_license: str | None = Field(None, description="Licences of the corpus, in words.")
    limitations: str | None = Field(
        None, description="Limits and biases of this very model beyond the general ones, as Markdown."
    )
    example: Annotated[str, ONE_MASK] = Field(
        "",
        description=f"A sentence with one {MASK} for the usage section and the widget, in the model's language. "
        f"{LEFT_OUT}",
    )
    sentences: list[Words] = Field(
        [], min_length=1, description=f"Sentences that the usage section embeds, in the model's language. {LEFT_OUT}"
    )
    watts: float | None = Field(
        None,
        gt=0,
        description="Power that the training machine draws, W, for the energy estimate; left out: no estimate.",
    )

    @model_validator(mode="before")
    @classmethod
    def _examples_are_in_its_language(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        languages = _as_list(values.get("language"))
        well_formed = isinstance(languages, list) and all(isinstance(code, str) for code in languages)
        return {**(examples_in(languages) or {}), **values} if well_formed else values

    @model_validator(mode="after")
    def _has_examples(self) -> Self:
        if not self.example or not self.sentences:
            raise ValueError(
                f"there is no greeting in {', '.join(self.language)} for the usage section: give example, a sentence "
                f"with one {MASK}, and sentences"
            )
        return self

    @model_validator(mode="after")
    def _other_is_named(self) -> Self:
        if self.license == "other" and not (self.license_name and self.license_link):
            raise ValueError("license other needs license_name and license_link")
        if self.license != "other" and (self.license_name or self.license_link):
            raise ValueError("license_name and license_link go with license other only")
        return self
