"""What a card states that no other report does, without a path of the machine that made it.

It is published as ``reports/card.json``. With the other reports it is all that a card is made of, so that anybody can
render the card again and compare.
"""

import hashlib
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import Field

from distilrubert.common.checked_settings import read_yaml, stated_settings
from distilrubert.common.configuration import Section
from distilrubert.common.errors import UserError
from distilrubert.common.hub_address import COMMIT, hub_endpoint, repository_url
from distilrubert.common.persistence import read_json
from distilrubert.model_card.card_settings import CardSettings
from distilrubert.model_card.hub_rules import is_repo_id

OWN_TEACHER = "a BERT trained on the same corpus"


class TeacherFacts(Section):
    """The teacher as the card names it."""

    name: str = Field(description="Its name for a reader.")
    id: str | None = Field(description="Its id on the Hub; None if it was a folder or was trained by the recipe.")
    url: str | None = Field(description="Its page on the Hub that it was loaded from.")
    commit: str | None = Field(description="Its commit on the Hub, if the run has resolved it.")
    is_pretrained_here: bool = Field(description="Whether the recipe trained it.")
    is_fine_tuned: bool = Field(False, description="Whether it came fine-tuned on the task, as the recipe named it.")


class CorpusFacts(Section):
    """Size and origin of the corpus."""

    origins: list[str] = Field(description="Names of the files, or ids of the data sets with their commits.")
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
    space: str | None = Field(None, description="Web address of its demo page; None if it has none.")
    hub: str = Field(description="Web address of that Hub.")
    teacher: TeacherFacts = Field(description="The teacher.")
    start: str | None = Field(
        None, description="Id on the Hub of what a student for a task starts from, if not the teacher."
    )
    max_length: int | None = Field(description="Tokens of the longest sequence of the distillation, if it is known.")
    corpus: CorpusFacts | None = Field(description="The corpus, if its manifest is there.")
    settings: CardSettings = Field(description="The recipe's card section.")


def renderer_version() -> str:
    """The version of the package and, for clones of the repository, a hash of the code and templates of a card."""
    digest = hashlib.sha256()
    common = Path(__file__).parents[1] / "common"
    for path in [*sorted(Path(__file__).parent.iterdir()), common / "derived.py", common / "formats.py"]:
        if path.suffix in (".py", ".jinja", ".bib"):
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return f"{metadata.version('distilrubert')}+{digest.hexdigest()[:12]}"


def facts_of(run_folder: Path, endpoint: str | None = None) -> CardFacts:
    """The facts of a run, from its resolved recipe and, if it is there, the manifest of its corpus.

    The model goes to the Hub at `endpoint`; None takes HF_ENDPOINT, or the public Hub.

    Raises:
        UserError: if the recipe is missing or not valid.
    """
    path, manifest = run_folder / "recipe.yaml", run_folder / "corpus" / "manifest.json"
    recipe = _read_recipe(path)
    settings = stated_settings(CardSettings, recipe["card"], path, "card")
    corpus = _corpus(read_json(manifest)) if manifest.is_file() else None
    named = (recipe.get("task") or {}).get("teacher")
    return CardFacts(
        version=renderer_version(),
        name=recipe["name"],
        repo_id=(recipe.get("publish") or {}).get("repo_id"),
        space=_space(recipe.get("publish") or {}, endpoint),
        hub=hub_endpoint(endpoint),
        teacher=_teacher(recipe["teacher"], settings, named),
        start=_start(recipe, named),
        max_length=corpus.max_length if corpus else (recipe.get("corpus") or {}).get("max_length"),
        corpus=corpus,
        settings=settings,
    )


def _space(publish: Mapping[str, Any], endpoint: str | None) -> str | None:
    """The page that is published beside the model."""
    has_page = publish.get("space") and publish.get("repo_id")
    return repository_url(publish["repo_id"], endpoint=endpoint, repo_type="space") if has_page else None


def _read_recipe(path: Path) -> dict[str, Any]:
    recipe = read_yaml(path, "recipe of a run")
    needed = ("name", "teacher", "card")
    if any(key not in recipe for key in needed):
        raise UserError(f"{path}: is no resolved recipe: the keys {', '.join(needed)} are needed")
    return recipe


def _teacher(teacher: Mapping[str, Any], settings: CardSettings, fine_tuned: str | None) -> TeacherFacts:
    """The recipe's teacher, or the one that it names for the task."""
    model = fine_tuned or teacher.get("model")
    repository = _repository(model)
    revision = "" if fine_tuned else str(teacher.get("revision"))
    return TeacherFacts(
        commit=revision if repository and COMMIT.fullmatch(revision) else None,
        name=settings.teacher_name or repository or (Path(model).name if model else OWN_TEACHER),
        id=repository,
        url=repository and repository_url(repository),
        is_pretrained_here=bool(teacher.get("pretrain")) and not fine_tuned,
        is_fine_tuned=bool(fine_tuned),
    )


def _start(recipe: Mapping[str, Any], fine_tuned: str | None) -> str | None:
    """What gave a student for a task its first weights, where that is on the Hub and not its teacher."""
    if not recipe.get("task"):
        return None
    start = (recipe.get("student") or {}).get("start_from")
    return _repository(start or (recipe["teacher"].get("model") if fine_tuned else None))


def _repository(model: str | None) -> str | None:
    return model if model and is_repo_id(model) and not Path(model).is_dir() else None


def _origin(origin: Mapping[str, Any]) -> str:
    """The name of a file, or the id of a data set with its commit, where that is known."""
    if not (dataset := origin.get("dataset")):
        return Path(origin["path"]).name
    revision = str(origin.get("revision"))
    return f"{dataset}@{revision[:12]}" if COMMIT.fullmatch(revision) else str(dataset)


def _corpus(manifest: Mapping[str, Any]) -> CorpusFacts:
    counted = CorpusFacts.model_fields.keys() - {"origins", "max_length"}
    return CorpusFacts(
        origins=[_origin(origin) for source in manifest["sources"] for origin in source["origins"]],
        max_length=manifest["settings"]["max_length"],
        **{name: manifest["total"][name] for name in counted},
    )
