"""Random teachers of every family, of odd shapes."""

from collections.abc import Callable
from typing import Any

import torch
from transformers import (
    BertConfig,
    CamembertConfig,
    DistilBertConfig,
    ModernBertConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
    XLMRobertaConfig,
)

from distilrubert.modeling.families import family_of
from distilrubert.modeling.student import new_model
from distilrubert.modeling.teacher import Teacher

SIZES = {"hidden_size": 36, "num_hidden_layers": 7, "num_attention_heads": 3, "intermediate_size": 50}
DISTILBERT_NAMES = dict(zip(SIZES, ("dim", "n_layers", "n_heads", "hidden_dim"), strict=True))
CONFIGS: dict[str, Callable[..., PretrainedConfig]] = {
    "bert": lambda **other: BertConfig(**SIZES | other, type_vocab_size=2),
    "distilbert": lambda **other: DistilBertConfig(
        **{DISTILBERT_NAMES.get(key, key): value for key, value in (SIZES | other).items()}
    ),
    "roberta": lambda **other: RobertaConfig(**SIZES | other, type_vocab_size=1, layer_norm_eps=1e-5),
    "xlm-roberta": lambda **other: XLMRobertaConfig(**SIZES | other, type_vocab_size=1, layer_norm_eps=1e-5),
    "camembert": lambda **other: CamembertConfig(**SIZES | other, type_vocab_size=1, layer_norm_eps=1e-5),
    "modernbert": lambda **other: ModernBertConfig(
        **SIZES | other, local_attention=6, global_rope_theta=500.0, local_rope_theta=20.0
    ),
}


def make_teacher(
    model_type: str, tokenizer: PreTrainedTokenizerFast, *, with_head: bool = True, **config: Any
) -> Teacher:
    """A teacher of this type over the vocabulary, of which no weight is at its neutral value."""
    ids = {"pad_token_id": tokenizer.pad_token_id}
    if model_type == "modernbert":
        # Its own defaults are beyond a small vocabulary.
        ids |= dict.fromkeys(("cls_token_id", "bos_token_id"), tokenizer.cls_token_id)
        ids |= dict.fromkeys(("sep_token_id", "eos_token_id"), tokenizer.sep_token_id)
    sizes = {"vocab_size": len(tokenizer), "max_position_embeddings": 65, **ids}
    made = CONFIGS[model_type](**sizes | config)
    family_of(made).complete(made)
    model = new_model(made, seed=0, with_head=with_head)
    generator = torch.Generator().manual_seed(5)
    norms = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.LayerNorm)}
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.3 * noise if id(parameter) in norms else 0.25 * noise)
    return Teacher(model.requires_grad_(False), tokenizer, model_type)
