"""The architectures that are taken, a file each: the one list of them."""

import sys
from typing import TYPE_CHECKING

from distilrubert.common.errors import UserError
from distilrubert.modeling.families.bert import BERT, DISTILBERT
from distilrubert.modeling.families.family import ConfigFile, Family
from distilrubert.modeling.families.modernbert import MODERNBERT
from distilrubert.modeling.families.roberta import ROBERTA

if TYPE_CHECKING:
    from transformers import PretrainedConfig

FAMILIES: tuple[Family, ...] = (BERT, DISTILBERT, ROBERTA, MODERNBERT)
MODEL_TYPES: dict[str, Family] = {model_type: family for family in FAMILIES for model_type in family.model_types}

STUDENT_TYPES = tuple(name for name, family in MODEL_TYPES.items() if not family.student)
"""The model types of students."""


def family_of(config: "PretrainedConfig") -> Family:
    """The family of a model that was loaded or built here."""
    return MODEL_TYPES[config.model_type]


def longest_input(config: ConfigFile) -> int:
    """The largest number of tokens that a model takes, one of another family by its positions.

    Where a configuration states no positions (models of other families have relative ones) nothing limits it, and
    ``sys.maxsize`` is returned.
    """
    if config.get("max_position_embeddings") is None:
        return int(config.get("n_positions") or sys.maxsize)
    family = MODEL_TYPES.get(config.get("model_type", ""))
    return family.longest_input(config) if family else int(config["max_position_embeddings"])


def has_windows(config: "PretrainedConfig") -> bool:
    """Whether some layers attend to a window, so that a query's mask is its own; of another family none is known to."""
    family = MODEL_TYPES.get(config.model_type)
    return family is not None and family.has_windows


def takes_token_types(config: "PretrainedConfig") -> bool:
    """Whether a model tells the two texts of a pair apart; a BERT's tokenizer says so of any model."""
    return getattr(config, "type_vocab_size", 0) > 1


def check_config(config: ConfigFile, name: str) -> Family:
    """The family of a checkpoint, by its config.json.

    Raises:
        UserError: if there is none, or a setting cannot be followed.
    """
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in MODEL_TYPES:
        raise UserError(f"{name}: config.json says model_type {model_type!r}; taken are {', '.join(MODEL_TYPES)}")
    family = MODEL_TYPES[model_type]
    if "auto_map" in config:
        raise UserError(f"{name}: config.json asks for code of its own (auto_map); only transformers' own code is run")
    needs = f"a {family.students.title} student needs"
    for key, allowed in family.required.items():
        if config.get(key, allowed[0]) not in allowed:
            raise UserError(f"{name}: config.json says {key} {config[key]!r}; {needs} {allowed[0]!r}")
    activation = config.get(family.activation, "gelu")
    if not _is_activation(activation):
        raise UserError(
            f"{name}: config.json says {family.activation} {activation!r}; {needs} an activation of transformers"
        )
    if refusal := family.refusal(config):
        raise UserError(f"{name}: config.json says {refusal}; no student can follow that")
    return family


def _is_activation(name: object) -> bool:
    from transformers.activations import ACT2FN

    return name in ACT2FN
