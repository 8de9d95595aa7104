"""BERT, and DistilBERT, which its students are."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from distilrubert.modeling.families.family import ConfigFile, Family, Weights

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from distilrubert.modeling.architecture import ResolvedArchitecture

DISTILBERT_LAYER_NORM_EPS = 1e-12
"""It is written into the code of DistilBERT."""

EMBEDDINGS = {
    "embeddings.word_embeddings": "words",
    "embeddings.position_embeddings": "positions",
    "embeddings.LayerNorm": "embeddings_norm",
}
ENCODER = EMBEDDINGS | {"embeddings.token_type_embeddings": "token_types"}
LAYER = {
    "attention.self.query": "query",
    "attention.self.key": "key",
    "attention.self.value": "value",
    "attention.output.dense": "attention_output",
    "attention.output.LayerNorm": "attention_norm",
    "intermediate.dense": "inner",
    "output.dense": "outer",
    "output.LayerNorm": "feed_forward_norm",
}
"""Those of RoBERTa, too."""
ENCODER_ONLY = {
    "position_embedding_type": ("absolute",),
    "is_decoder": (False,),
    "add_cross_attention": (False,),
    "tie_word_embeddings": (True,),
}


def _distilbert_config(
    teacher: "PretrainedConfig", shape: "ResolvedArchitecture", special_ids: Mapping[str, int]
) -> "PretrainedConfig":
    """Learned positions, tied embeddings, dropout 0.1, as in the published family."""
    from transformers import DistilBertConfig

    return DistilBertConfig(
        vocab_size=shape.vocabulary_size,
        max_position_embeddings=teacher.max_position_embeddings,
        sinusoidal_pos_embds=False,
        n_layers=shape.layers,
        n_heads=shape.heads,
        dim=shape.dim,
        hidden_dim=shape.hidden_dim,
        dropout=0.1,
        attention_dropout=0.1,
        activation=teacher.activation if teacher.model_type == "distilbert" else teacher.hidden_act,
        initializer_range=0.02,
        pad_token_id=special_ids.get("pad_token_id", teacher.pad_token_id),
        tie_word_embeddings=True,
    )


def _fold_token_type(weights: Weights, teacher: "PretrainedConfig", student: "PretrainedConfig") -> Weights:
    """A single text is of type 0, whose vector is added at every position."""
    return weights | {"positions.weight": weights["positions.weight"] + weights["token_types.weight"][0]}


def _other_epsilon(config: ConfigFile) -> str | None:
    eps = config.get("layer_norm_eps", DISTILBERT_LAYER_NORM_EPS)
    # Some checkpoints have the nearest number of 32 bits.
    if math.isclose(eps, DISTILBERT_LAYER_NORM_EPS, rel_tol=1e-6):
        return None
    return (
        f"layer_norm_eps is {eps:g}; DistilBERT's is fixed at 1e-12, so a student starts with outputs a little off its "
        "teacher's"
    )


DISTILBERT = Family(
    title="DistilBERT",
    model_types=("distilbert",),
    encoder=EMBEDDINGS,
    layers="transformer.layer",
    layer={
        "attention.q_lin": "query",
        "attention.k_lin": "key",
        "attention.v_lin": "value",
        "attention.out_lin": "attention_output",
        "sa_layer_norm": "attention_norm",
        "ffn.lin1": "inner",
        "ffn.lin2": "outer",
        "output_layer_norm": "feed_forward_norm",
    },
    head={"vocab_transform": "transform", "vocab_layer_norm": "transform_norm", "vocab_projector": "decoder"},
    head_activation=lambda config: str(config.activation),
    student_config=_distilbert_config,
    required={"tie_word_embeddings": (True,)},
    activation="activation",
    inner_width="hidden_dim",
    decides=("activation", "n_heads"),
)

BERT = Family(
    title="BERT",
    model_types=("bert",),
    encoder=ENCODER,
    layers="encoder.layer",
    layer=LAYER,
    head={
        "cls.predictions.transform.dense": "transform",
        "cls.predictions.transform.LayerNorm": "transform_norm",
        "cls.predictions.decoder": "decoder",
    },
    head_activation=lambda config: str(config.hidden_act),
    student_config=_distilbert_config,
    required=ENCODER_ONLY,
    activation="hidden_act",
    decides=("hidden_act", "layer_norm_eps", "num_attention_heads"),
    student=DISTILBERT,
    renamed={r"^cls\.predictions\.decoder\.bias$": "cls.predictions.bias"},
    remark=_other_epsilon,
    carry=_fold_token_type,
)
