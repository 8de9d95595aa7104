"""RoBERTa and its children, XLM-R and CamemBERT: students are of the same class with fewer layers.

A DistilBERT could not be exact: its LayerNorm has another epsilon, and its positions begin at 0.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from distilrubert.modeling.families.bert import ENCODER, ENCODER_ONLY, LAYER
from distilrubert.modeling.families.family import ConfigFile, Family, Weights, same_class_config

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from distilrubert.modeling.architecture import ResolvedArchitecture


def _first_position(config: ConfigFile) -> int:
    """Rows of the positions up to the padding token's id belong to no token."""
    return int(config.get("pad_token_id", 1)) + 1


def _refusal(config: ConfigFile) -> str | None:
    found = config.get("pad_token_id", 1)
    return None if isinstance(found, int) else f"pad_token_id {found!r}"


def _move_positions(weights: Weights, teacher: "PretrainedConfig", student: "PretrainedConfig") -> Weights:
    """Where the student's vocabulary pads with another id, its positions begin at another row."""
    table_PD = weights["positions.weight"]
    before, after = _first_position(teacher.to_dict()), _first_position(student.to_dict())
    if before == after:
        return weights
    rows_PD = table_PD.new_zeros(after + len(table_PD) - before, table_PD.shape[1])
    rows_PD[after:] = table_PD[before:]
    return weights | {"positions.weight": rows_PD}


def _student_config(
    teacher: "PretrainedConfig", shape: "ResolvedArchitecture", special_ids: Mapping[str, int]
) -> "PretrainedConfig":
    config = same_class_config(teacher, shape, special_ids)
    config.max_position_embeddings += _first_position(config.to_dict()) - _first_position(teacher.to_dict())
    return config


ROBERTA = Family(
    title="RoBERTa",
    model_types=("roberta", "xlm-roberta", "camembert"),
    encoder=ENCODER,
    layers="encoder.layer",
    layer=LAYER,
    head={"lm_head.dense": "transform", "lm_head.layer_norm": "transform_norm", "lm_head.decoder": "decoder"},
    head_activation=lambda config: "gelu",
    student_config=_student_config,
    required=ENCODER_ONLY,
    activation="hidden_act",
    decides=("hidden_act", "layer_norm_eps", "num_attention_heads", "pad_token_id"),
    renamed={r"^lm_head\.decoder\.bias$": "lm_head.bias"},
    carry=_move_positions,
    refusal=_refusal,
    first_position=_first_position,
)
