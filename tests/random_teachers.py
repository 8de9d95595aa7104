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
IDS = {"pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
CONFIGS: dict[str, Callable[..., PretrainedConfig]] = {
    "bert": lambda **other: BertConfig(**SIZES | other, type_vocab_size=2),
    "distilbert": lambda **other: DistilBertConfig(dim=36, n_layers=7, n_heads=3, hidden_dim=50, **other),
    "roberta": lambda **other: RobertaConfig(**SIZES, type_vocab_size=1, layer_norm_eps=1e-5, **other),
    "xlm-roberta": lambda **other: XLMRobertaConfig(**SIZES, type_vocab_size=1, layer_norm_eps=1e-5, **other),
    "camembert": lambda **other: CamembertConfig(**SIZES, type_vocab_size=1, layer_norm_eps=1e-5, **other),
    "modernbert": lambda **other: ModernBertConfig(
        **SIZES, **IDS, local_attention=6, global_rope_theta=500.0, local_rope_theta=20.0, **other
    ),
}


def make_teacher(
    model_type: str, tokenizer: PreTrainedTokenizerFast, *, with_head: bool = True, **config: Any
) -> Teacher:
    """A teacher of this type over the vocabulary, of which no weight is at its neutral value."""
    pad_id = {} if model_type == "modernbert" else {"pad_token_id": tokenizer.pad_token_id}
    sizes = {"vocab_size": len(tokenizer), "max_position_embeddings": 65, **pad_id}
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
