"""Students of the recipes for other families, by the published configurations of their teachers: nothing is loaded."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForMaskedLM, ModernBertConfig, PretrainedConfig, XLMRobertaConfig

from distilrubert.distill.losses.objective import check_layers
from distilrubert.modeling.architecture import student_config
from distilrubert.modeling.families import family_of
from distilrubert.pipeline.recipe import load_recipe

RECIPES = Path(__file__).parents[2] / "recipes"
XLM_R = XLMRobertaConfig(
    vocab_size=250_002, hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072,
    max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5, pad_token_id=1, bos_token_id=0, eos_token_id=2,
)  # fmt: skip
RUMODERNBERT = ModernBertConfig(
    vocab_size=50_368, hidden_size=768, num_hidden_layers=22, num_attention_heads=12, intermediate_size=1152,
    max_position_embeddings=8192, global_attn_every_n_layers=3, local_attention=128,
)  # fmt: skip


def size_of(config: PretrainedConfig) -> int:
    with torch.device("meta"):
        model: Any = AutoModelForMaskedLM.from_config(config)
    model.tie_weights()
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "teacher", "whole", "student", "start", "longest"),
    [
        ("xlm-roberta-ru", XLM_R, 278_295_186, 235_767_954, (0, 2, 4, 7, 9, 11), 512),
        ("rumodernbert", RUMODERNBERT, 149_655_232, 69_414_592, (0, 4, 8, 12, 17, 20), 8192),
    ],
)
def test_the_student_of_a_recipe(
    name: str, teacher: PretrainedConfig, whole: int, student: int, start: tuple[int, ...], longest: int,
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.setenv("DISTILRUBERT_CORPUS", str(tmp_path))
    recipe = load_recipe(RECIPES / f"{name}.yaml")
    family_of(teacher).complete(teacher)
    assert size_of(teacher) == whole
    config = student_config(recipe.student, teacher)
    assert type(config) is type(teacher)
    # With the whole vocabulary: each piece that is trimmed is 769 numbers less.
    assert size_of(config) == student
    assert recipe.student.resolve(teacher).initialise_from == start
    assert family_of(config).longest_input(config.to_dict()) == longest >= recipe.corpus.max_length
    check_layers(recipe.distillation, config, teacher)
