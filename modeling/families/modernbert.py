"""ModernBERT: students are ModernBERTs with fewer layers.

Every n-th layer attends to the whole text, the others to a window, with another rotary base. A student keeps n, so its
layer k must start from one of the same kind. Layer 0 has no norm before its attention, and stays the first.

transformers 4.57 writes ``global_attn_every_n_layers`` and two rotary bases, transformers 5 ``layer_types`` and
``rope_parameters``; a configuration here has both, so that either version reads what the other wrote.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from distilrubert.modeling.families.family import ConfigFile, Family, same_class_config

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from distilrubert.modeling.architecture import ResolvedArchitecture

GLOBAL, LOCAL = "full_attention", "sliding_attention"
DEFAULT_EVERY, DEFAULT_BASES = 3, {GLOBAL: 160_000.0, LOCAL: 10_000.0}
FIRST_KIND, GLOBAL_KIND, LOCAL_KIND = "first, without a norm", "global", "local"


def _types(every: int, layers: int) -> list[str]:
    return [LOCAL if layer % every else GLOBAL for layer in range(layers)]


def _every(config: ConfigFile) -> int:
    """Every how many layers one attends globally."""
    types = config.get("layer_types")
    if not types:
        return int(config.get("global_attn_every_n_layers") or DEFAULT_EVERY)
    return next((layer for layer, kind in enumerate(types) if layer and kind == GLOBAL), len(types))


def _base(config: ConfigFile, kind: str) -> float:
    """The rotary base of a kind of layers."""
    stated = (config.get("rope_parameters") or {}).get(kind) or {}
    if "rope_theta" in stated:
        return float(stated["rope_theta"])
    base = config.get("global_rope_theta") or DEFAULT_BASES[GLOBAL]
    if kind == LOCAL and "local_rope_theta" not in config:
        base = DEFAULT_BASES[LOCAL]
    # transformers 4.57 takes the other base where this one is null.
    return float((config.get("local_rope_theta") or base) if kind == LOCAL else base)


def _both_versions(config: ConfigFile, layers: int) -> dict[str, Any]:
    """The settings that the versions of transformers name differently, under both names."""
    every = _every(config)
    bases = {kind: _base(config, kind) for kind in (GLOBAL, LOCAL)}
    return {
        "global_attn_every_n_layers": every,
        "layer_types": _types(every, layers),
        "global_rope_theta": bases[GLOBAL],
        "local_rope_theta": bases[LOCAL],
        "rope_parameters": {kind: {"rope_type": "default", "rope_theta": base} for kind, base in bases.items()},
    }


def _refusal(config: ConfigFile) -> str | None:
    types = config.get("layer_types")
    if types and list(types) != _types(_every(config), len(types)):
        return "layer_types that are not global every n-th layer, beginning with the first"
    scalings = [config.get("rope_scaling"), *(config.get("rope_parameters") or {}).values()]
    kinds = {(entry or {}).get("rope_type", "default") for entry in scalings}
    if other := kinds - {"default"}:
        return f"rope_type {sorted(other)[0]!r}"
    return None


def _complete(config: "PretrainedConfig") -> None:
    for name, value in _both_versions(config.to_dict(), config.num_hidden_layers).items():
        setattr(config, name, value)
    # transformers 4.57 would compile parts of the model on a GPU.
    config.reference_compile = False


def _layer_kinds(config: "PretrainedConfig", layers: int) -> Sequence[str]:
    kinds = {GLOBAL: GLOBAL_KIND, LOCAL: LOCAL_KIND}
    return [FIRST_KIND, *(kinds[kind] for kind in _types(_every(config.to_dict()), layers)[1:])]


def _student_config(
    teacher: "PretrainedConfig", shape: "ResolvedArchitecture", special_ids: Mapping[str, int]
) -> "PretrainedConfig":
    config = same_class_config(teacher, shape, special_ids, **_both_versions(teacher.to_dict(), shape.layers))
    _complete(config)
    return config


MODERNBERT = Family(
    title="ModernBERT",
    model_types=("modernbert",),
    encoder={"embeddings.tok_embeddings": "words", "embeddings.norm": "embeddings_norm", "final_norm": "final_norm"},
    layers="layers",
    layer={
        "attn_norm": "attention_norm",
        "attn.Wqkv": "query key value",
        "attn.Wo": "attention_output",
        "mlp_norm": "feed_forward_norm",
        "mlp.Wi": "inner gate",
        "mlp.Wo": "outer",
    },
    head={"head.dense": "transform", "head.norm": "transform_norm", "decoder": "decoder"},
    head_activation=lambda config: str(config.classifier_activation),
    student_config=_student_config,
    required={"tie_word_embeddings": (True,)},
    activation="hidden_activation",
    decides=(
        "hidden_activation", "classifier_activation", "norm_eps", "num_attention_heads", "global_attn_every_n_layers",
        "local_attention", "global_rope_theta", "local_rope_theta",
    ),
    refusal=_refusal,
    complete=_complete,
    layer_kinds=_layer_kinds,
    is_rotary=True,
    has_windows=True,
    not_exported=("question-answering",),
)  # fmt: skip
