"""What a card is made from: the files of a model repository."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distilrubert.common.configuration import stated_settings
from distilrubert.common.measurements import Measurements
from distilrubert.common.persistence import read_json
from distilrubert.model_card.card_facts import CardFacts
from distilrubert.model_card.card_settings import CardSettings

REPORTS = ("pretraining", "training", "parity", "speed", "quality")
FACTS = "reports/card.json"


@dataclasses.dataclass(frozen=True)
class CardInput:
    """Everything that a card may state. What was not measured is None and is left out of the card.

    Attributes:
        facts: what no report states.
        config: the student's ``config.json``.
        files: size in bytes of each file of the model repository, by its path in it.
        pretraining: the report on a teacher that the recipe trains itself.
        training, parity, speed, quality: the other reports.
    """

    facts: CardFacts
    config: Mapping[str, Any]
    files: Mapping[str, int]
    pretraining: Measurements | None = None
    training: Measurements | None = None
    parity: Measurements | None = None
    speed: Measurements | None = None
    quality: Measurements | None = None

    @property
    def settings(self) -> CardSettings:
        """What only a person can say about the model."""
        return self.facts.settings


def read_card_input(hub: Path) -> CardInput:
    """Gather the files of a model repository.

    Args:
        hub: a folder with at least ``config.json`` and ``reports/card.json``.

    Raises:
        UserError: if one of these is missing or a file is not of its form.
    """
    facts = stated_settings(CardFacts, read_json(hub / FACTS), hub / FACTS, "")
    return CardInput(facts, read_json(hub / "config.json"), file_sizes(hub), **read_reports(hub))


def read_reports(hub: Path) -> dict[str, Measurements]:
    """The reports in a model repository by name.

    Raises:
        UserError: if one is not of its form.
    """
    paths = {name: hub / "reports" / f"{name}.json" for name in REPORTS}
    return {name: Measurements.load(path) for name, path in paths.items() if path.is_file()}


def file_sizes(hub: Path) -> dict[str, int]:
    """Size in bytes of each file of a model repository by its path; hidden files are left out."""
    paths = {path.relative_to(hub): path for path in sorted(hub.rglob("*")) if path.is_file()}
    return {
        relative.as_posix(): path.stat().st_size
        for relative, path in paths.items()
        if not any(part.startswith(".") for part in relative.parts)
    }
