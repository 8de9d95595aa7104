"""What a card is made from: the files of a model repository."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distilrubert.common.checked_settings import stated_settings
from distilrubert.common.derived import derive
from distilrubert.common.measurements import Measurements
from distilrubert.common.persistence import read_json
from distilrubert.common.sentence_files import read_prompts
from distilrubert.model_card.card_facts import CardFacts
from distilrubert.model_card.card_settings import MASK, CardSettings
from distilrubert.model_card.report_forms import FORMS, SIZES, config_form

REPORTS = tuple(FORMS)
FACTS = "reports/card.json"


@dataclasses.dataclass(frozen=True)
class CardInput:
    """Everything that a card may state. What was not measured is None and is left out of the card.

    Attributes:
        config: the student's ``config.json``.
        tokenizer: its ``tokenizer_config.json``; empty where there is none.
        files: size in bytes of each file of the model repository, by its path in it.
        prompts: of an encoder of sentences, what it puts before texts; None for other models.
        pretraining: the report on a teacher that the recipe trains itself.
    """

    facts: CardFacts
    config: Mapping[str, Any]
    files: Mapping[str, int]
    prompts: Mapping[str, str] | None = None
    tokenizer: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    pretraining: Measurements | None = None
    training: Measurements | None = None
    parity: Measurements | None = None
    speed: Measurements | None = None
    quality: Measurements | None = None
    suite: Measurements | None = None
    finetuning: Measurements | None = None

    @property
    def settings(self) -> CardSettings:
        """What only a person can say about the model."""
        return self.facts.settings

    @property
    def sizes(self) -> dict[str, int]:
        """``layers``, ``heads``, ``dim`` and ``hidden_dim``."""
        return {size: next(self.config[name] for name in names if name in self.config) for size, names in SIZES.items()}

    @property
    def has_head(self) -> bool:
        """Whether the model predicts masked tokens; else it is an encoder alone."""
        return self.finetuning is None and not str(self.architecture).endswith("Model")

    @property
    def architecture(self) -> str | None:
        """The class of transformers that the model loads with."""
        names = self.config.get("architectures") or [None]
        return str(names[0]) if names[0] else None

    @property
    def longest_input(self) -> int:
        """The largest number of tokens that the model takes: not all of a model's positions need to be of use."""
        positions = int(self.config["max_position_embeddings"])
        return min(positions, int(self.tokenizer.get("model_max_length", positions)))

    @property
    def example(self) -> str:
        """The sentence to fill in, with the mask token of the model's own tokenizer."""
        token = self.tokenizer.get("mask_token") or MASK
        return self.settings.example.replace(MASK, str(token["content"] if isinstance(token, Mapping) else token))


def read_card_input(hub: Path) -> CardInput:
    """Gather the files of a model repository.

    Raises:
        UserError: if ``config.json`` or ``reports/card.json`` is missing, or a file is not of its form.
    """
    facts = stated_settings(CardFacts, read_json(hub / FACTS), hub / FACTS, "")
    config = read_json(hub / "config.json")
    stated_settings(config_form(config), config, hub / "config.json", "")
    path = hub / "tokenizer_config.json"
    tokenizer = read_json(path) if path.is_file() else {}
    encoder = read_prompts(hub)
    return CardInput(
        facts, config, file_sizes(hub), encoder.by_name if encoder else None, tokenizer, **read_reports(hub)
    )


def read_reports(hub: Path) -> dict[str, Measurements]:
    """The reports in a model repository by name, with what follows from their raw values.

    Raises:
        UserError: naming the file, the field and what is wrong, if one is not of its form.
    """
    paths = {name: hub / "reports" / f"{name}.json" for name in REPORTS}
    reports = {name: Measurements.load(path) for name, path in paths.items() if path.is_file()}
    for name, report in reports.items():
        stated_settings(FORMS[name], report.to_dict(), paths[name], "")
    return {name: derive(report) for name, report in reports.items()}


def read_facts(hub: Path) -> dict[str, Any]:
    """What the file of facts says, which the card was written from; empty where it says nothing."""
    facts = read_json(hub / FACTS) if (hub / FACTS).is_file() else None
    return facts if isinstance(facts, dict) else {}


def losses_of(training: Measurements | None) -> dict[str, dict[str, Any]]:
    """Weight, title and meaning of each loss with a weight above 0, by its name."""
    losses = training.details["losses"] if training else {}
    return {name: loss for name, loss in losses.items() if loss["weight"]}


def file_sizes(hub: Path) -> dict[str, int]:
    """Size in bytes of each file of a model repository by its path; hidden files are left out."""
    paths = {path.relative_to(hub): path for path in sorted(hub.rglob("*")) if path.is_file()}
    return {
        relative.as_posix(): path.stat().st_size
        for relative, path in paths.items()
        if not any(part.startswith(".") for part in relative.parts)
    }
