"""What a card is made from: the files of a run directory, as they are."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import try_to_load_from_cache

from distilrubert.common.configuration import stated_settings
from distilrubert.common.errors import UserError
from distilrubert.common.measurements import Measurements
from distilrubert.common.persistence import read_json
from distilrubert.model_card.card_settings import CardSettings
from distilrubert.model_card.hub_rules import is_repo_id

REPORTS = ("pretraining", "training", "parity", "speed", "quality")


@dataclasses.dataclass(frozen=True)
class CardInput:
    """Everything that a card may state; what was not measured is None and is left out of the card.

    Attributes:
        name: the model's name, as in the recipe.
        settings: what only a person can say.
        recipe: the resolved recipe, as plain values.
        config: the student's ``config.json``.
        files: size in bytes of each file of the model repository, by its path in it.
        repo_id: where the model goes on the Hub; None while that is open.
        manifest: ``corpus/manifest.json``.
        teacher_config: the teacher's ``config.json``, where it is at hand.
        pretraining: the report on a teacher that the recipe trains itself.
        training, parity, speed, quality: the other reports.
    """

    name: str
    settings: CardSettings
    recipe: Mapping[str, Any]
    config: Mapping[str, Any]
    files: Mapping[str, int]
    repo_id: str | None = None
    manifest: Mapping[str, Any] | None = None
    teacher_config: Mapping[str, Any] | None = None
    pretraining: Measurements | None = None
    training: Measurements | None = None
    parity: Measurements | None = None
    speed: Measurements | None = None
    quality: Measurements | None = None

    @property
    def distillation(self) -> Mapping[str, Any]:
        """The settings that the student was distilled with; those of the recipe where no report tells them."""
        settings: Mapping[str, Any] = (
            self.training.details["settings"] if self.training else self.recipe["distillation"]
        )
        return settings

    @property
    def teacher_id(self) -> str | None:
        """The teacher's id on the Hub; None where it is a folder or was trained by the recipe."""
        name = self.recipe["teacher"].get("model")
        return name if name and is_hub_id(name) else None

    @property
    def teacher_name(self) -> str:
        """What the card calls the teacher. Never a path of the machine that made the card."""
        source = self.recipe["teacher"].get("model")
        own = "a BERT trained on the same corpus"
        return self.settings.teacher_name or self.teacher_id or (Path(source).name if source else own)


def is_hub_id(name: str) -> bool:
    """Whether `name` can be a repository's id on the Hub and is no folder here."""
    return is_repo_id(name) and not Path(name).is_dir()


def read_card_input(run_folder: Path, settings: CardSettings | None = None, hub: Path | None = None) -> CardInput:
    """Gather a run directory's files.

    Args:
        run_folder: a run directory with at least ``recipe.yaml``.
        settings: what the card says beyond the reports; the recipe's ``card`` section where it is left out.
        hub: folder of the model repository, with at least ``config.json``; the run's ``hub/`` where it is left out.

    Raises:
        UserError: if the recipe or the model is not there or a file is not of its form.
    """
    recipe = _read_recipe(run_folder / "recipe.yaml")
    hub = hub or run_folder / "hub"
    return CardInput(
        name=recipe["name"],
        settings=settings or stated_settings(CardSettings, recipe["card"], run_folder / "recipe.yaml", "card"),
        recipe=recipe,
        config=read_json(hub / "config.json"),
        files={path.relative_to(hub).as_posix(): path.stat().st_size for path in _published(hub)},
        repo_id=(recipe.get("publish") or {}).get("repo_id"),
        manifest=_read_if_there(run_folder / "corpus" / "manifest.json"),
        teacher_config=_teacher_config(run_folder, recipe["teacher"]),
        **{name: _report(run_folder / "reports" / f"{name}.json") for name in _reports_of(recipe)},
    )


def _read_recipe(path: Path) -> dict[str, Any]:
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read as the recipe of a run: {error}") from error
    needed = ("name", "teacher", "student", "distillation", "card")
    if not isinstance(recipe, dict) or any(key not in recipe for key in needed):
        raise UserError(f"{path}: is no resolved recipe: it needs the keys {', '.join(needed)}")
    return recipe


def _published(hub: Path) -> list[Path]:
    hidden = (path for path in hub.rglob("*") if path.is_file())
    return sorted(path for path in hidden if not any(part.startswith(".") for part in path.relative_to(hub).parts))


def _teacher_config(run_folder: Path, teacher: Mapping[str, Any]) -> Any:
    """The teacher's config.json from its folder or, without asking the Hub, from the cache of the download."""
    model = teacher.get("model")
    if model and is_hub_id(model):
        cached = try_to_load_from_cache(model, "config.json", revision=teacher.get("revision"))
        return read_json(cached) if isinstance(cached, str) else None
    return _read_if_there((Path(model) if model else run_folder / "teacher") / "config.json")


def _reports_of(recipe: Mapping[str, Any]) -> list[str]:
    """Those that say something of this recipe: one of a teacher that an earlier recipe trained may still be there."""
    return [name for name in REPORTS if name != "pretraining" or recipe["teacher"].get("pretrain")]


def _read_if_there(path: Path) -> Any:
    return read_json(path) if path.is_file() else None


def _report(path: Path) -> Measurements | None:
    return Measurements.load(path) if path.is_file() else None
