"""What a card states that no other report does, without a path of the machine that made it.

It is published as ``reports/card.json``. With the other reports it is all that a card is made of, so that anybody can
render the card again and compare.
"""

import hashlib
import re
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from huggingface_hub import constants
from pydantic import Field

from distilrubert.common.configuration import Section, stated_settings
from distilrubert.model_card.card_settings import CardSettings
from distilrubert.model_card.hub_rules import is_repo_id

OWN_TEACHER = "a BERT trained on the same corpus"


class TeacherFacts(Section):
    """The teacher as the card names it."""

    name: str = Field(description="Its name for a reader.")
    id: str | None = Field(description="Its id on the Hub; None if it was a folder or was trained by the recipe.")
    commit: str | None = Field(description="Its commit on the Hub, if the run has resolved it.")
    is_pretrained_here: bool = Field(description="Whether the recipe trained it.")


class CorpusFacts(Section):
    """Size and origin of the corpus."""

    origins: list[str] = Field(description="Names of the files, or ids of the data sets.")
    max_length: int = Field(description="Tokens of the longest sequence.")
    texts: int = Field(description="Texts that were read.")
    duplicates: int = Field(description="Texts that were left out because an equal one was there.")
    train_sequences: int = Field(description="Sequences to train on.")
    train_tokens: int = Field(description="Their tokens.")
    validation_sequences: int = Field(description="Sequences that were held out.")


class CardFacts(Section):
    """The content of ``reports/card.json``."""

    version: str = Field(description="What rendered the card, see :func:`renderer_version`.")
    name: str = Field(description="The model's name, as in the recipe.")
    repo_id: str | None = Field(description="Where the model goes on the Hub; None if that is open.")
    hub: str = Field(description="Web address of that Hub.")
    teacher: TeacherFacts = Field(description="The teacher.")
    max_length: int | None = Field(description="Tokens of the longest sequence of the distillation, if it is known.")
    corpus: CorpusFacts | None = Field(description="The corpus, if its manifest is there.")
    settings: CardSettings = Field(description="The recipe's card section.")


def renderer_version() -> str:
    """The version of the package and, for clones of the repository, a hash of the code and templates of this room."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.iterdir()):
        if path.suffix in (".py", ".jinja", ".bib"):
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return f"{metadata.version('distilrubert')}+{digest.hexdigest()[:12]}"


def facts_of(
    recipe: Mapping[str, Any],
    manifest: Mapping[str, Any] | None,
    settings: CardSettings | None,
    hub: str | None,
    recipe_path: Path,
) -> CardFacts:
    """The facts of a run.

    Args:
        recipe: the resolved recipe, as plain values.
        manifest: ``corpus/manifest.json``.
        settings: the card's settings; None takes the recipe's ``card`` section.
        hub: address of the Hub; None takes that of HF_ENDPOINT, or the public one.
        recipe_path: for messages.

    Raises:
        UserError: if the recipe's ``card`` section is not valid.
    """
    settings = settings or stated_settings(CardSettings, recipe["card"], recipe_path, "card")
    corpus = _corpus(manifest) if manifest else None
    return CardFacts(
        version=renderer_version(),
        name=recipe["name"],
        repo_id=(recipe.get("publish") or {}).get("repo_id"),
        hub=(hub or constants.ENDPOINT).rstrip("/"),
        teacher=_teacher(recipe["teacher"], settings),
        max_length=corpus.max_length if corpus else (recipe.get("corpus") or {}).get("max_length"),
        corpus=corpus,
        settings=settings,
    )


def _teacher(teacher: Mapping[str, Any], settings: CardSettings) -> TeacherFacts:
    model = teacher.get("model")
    repository = model if model and is_hub_id(model) else None
    revision = str(teacher.get("revision"))
    return TeacherFacts(
        commit=revision if repository and re.fullmatch(r"[0-9a-f]{40}", revision) else None,
        name=settings.teacher_name or repository or (Path(model).name if model else OWN_TEACHER),
        id=repository,
        is_pretrained_here=bool(teacher.get("pretrain")),
    )


def is_hub_id(name: str) -> bool:
    """Whether `name` can be a repository's id on the Hub and is not a folder here."""
    return is_repo_id(name) and not Path(name).is_dir()


def _corpus(manifest: Mapping[str, Any]) -> CorpusFacts:
    counted = CorpusFacts.model_fields.keys() - {"origins", "max_length"}
    return CorpusFacts(
        origins=[
            str(origin.get("dataset") or Path(origin["path"]).name)
            for source in manifest["sources"]
            for origin in source["origins"]
        ],
        max_length=manifest["settings"]["max_length"],
        **{name: manifest["total"][name] for name in counted},
    )
