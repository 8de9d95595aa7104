import itertools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from transformers import BertConfig, DistilBertConfig, DistilBertForMaskedLM, DistilBertModel

from distilrubert.common.errors import UserError
from distilrubert.modeling.architecture import PRESETS, StudentArchitecture, spread_layers, student_config

# The teacher of the cards: DeepPavlov/rubert-base-cased-conversational.
RUBERT = BertConfig(vocab_size=119_547, pad_token_id=0)
WIDE = BertConfig(vocab_size=1_000, hidden_size=96, num_hidden_layers=8, num_attention_heads=6, intermediate_size=400)


def size_of(config: DistilBertConfig) -> int:
    """Parameters with the head."""
    with torch.device("meta"):
        model = DistilBertForMaskedLM(config)
    # Parameters, not their names: a meta device has no storage for transformers to tie by.
    model.tie_weights()
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("preset", "encoder", "with_head"),
    [
        ("base", 134_734_080, 135_445_755),
        ("small", 106_382_592, 107_094_267),
        ("tiny", 10_293_888, 10_394_898),
        # Head: 264 x 264 + 264 transform, 2 x 264 LayerNorm, 5,031 biases.
        ("tiny-5k", 3_564_264, 3_564_264 + 264 * 264 + 3 * 264 + 5_031),
        ("slim", 56_750_208, 57_018_363),
        ("narrow", 115_847_424, 116_559_099),
        ("tiny-256", 9_920_512, 10_017_338),
    ],
)
def test_parameters_of_the_family(preset: Any, encoder: int, with_head: int) -> None:
    config = student_config(StudentArchitecture(preset=preset), RUBERT)
    with torch.device("meta"):
        assert DistilBertModel(config).num_parameters() == encoder
    assert size_of(config) == with_head


def test_a_base_student_of_a_trimmed_vocabulary_has_55_percent_of_the_bytes() -> None:
    """With as many pieces as a real vocabulary keeps of the reference corpus; test_trimming.py counts them."""
    whole = student_config(StudentArchitecture(preset="base"), RUBERT)
    trimmed = student_config(
        StudentArchitecture.model_validate({"preset": "base", "vocabulary": {"trim": {"minimum_count": 5}}}),
        BertConfig(vocab_size=39_285, pad_token_id=0),
    )
    # An embedding and a bias for each piece are all that is gone.
    assert size_of(whole) - size_of(trimmed) == (119_547 - 39_285) * (768 + 1)
    assert size_of(trimmed) == 73_724_277
    assert size_of(trimmed) / size_of(whole) < 0.55


@pytest.mark.parametrize(
    ("preset", "layers", "dim", "heads", "hidden_dim", "vocabulary", "start"),
    [
        ("base", 6, 768, 12, 3072, 119_547, (0, 2, 4, 7, 9, 11)),
        ("small", 2, 768, 12, 3072, 119_547, (0, 11)),
        ("tiny", 3, 264, 12, 792, 30_522, (0, 6, 11)),
        ("tiny-5k", 3, 264, 12, 792, 5_031, (0, 6, 11)),
        ("slim", 6, 384, 6, 1536, 119_547, (0, 2, 4, 7, 9, 11)),
        ("narrow", 6, 768, 12, 1024, 119_547, (0, 2, 4, 7, 9, 11)),
        ("tiny-256", 3, 256, 4, 768, 30_522, (0, 6, 11)),
    ],
)
def test_shapes_of_the_family(
    preset: Any, layers: int, dim: int, heads: int, hidden_dim: int, vocabulary: int, start: tuple[int, ...]
) -> None:
    shape = StudentArchitecture(preset=preset).resolve(RUBERT)
    assert (shape.layers, shape.dim, shape.heads, shape.hidden_dim) == (layers, dim, heads, hidden_dim)
    assert (shape.vocabulary_size, shape.initialise_from) == (vocabulary, start)


def test_every_preset_can_be_named_in_a_recipe() -> None:
    for name in PRESETS:
        assert StudentArchitecture.model_validate({"preset": name}).preset == name
    with pytest.raises(ValidationError, match="preset"):
        StudentArchitecture.model_validate({"preset": "large"})


def test_the_config_follows_the_family_and_the_teacher() -> None:
    teacher = BertConfig(vocab_size=50, max_position_embeddings=128, hidden_act="gelu_new", hidden_dropout_prob=0.3)
    config = student_config(StudentArchitecture(layers=2), teacher)
    assert (config.max_position_embeddings, config.activation) == (128, "gelu_new")
    assert (config.dropout, config.attention_dropout, config.initializer_range) == (0.1, 0.1, 0.02)
    assert config.sinusoidal_pos_embds is False
    assert config.tie_word_embeddings is True
    assert student_config(StudentArchitecture(), RUBERT).pad_token_id == 0


def test_what_is_given_beats_the_preset_and_the_preset_the_teacher() -> None:
    own = StudentArchitecture(preset="tiny", layers=4, hidden_dim=100, initialise_from="random")
    shape = own.resolve(WIDE)
    assert (shape.layers, shape.dim, shape.heads, shape.hidden_dim) == (4, 264, 12, 100)
    base = StudentArchitecture(preset="base").resolve(WIDE)
    assert (base.layers, base.dim, base.heads, base.hidden_dim) == (6, 96, 6, 400)
    plain = StudentArchitecture().resolve(WIDE)
    assert (plain.layers, plain.dim, plain.vocabulary_size) == (8, 96, 1_000)
    assert plain.initialise_from == tuple(range(8))


def test_what_is_pruned_on_text() -> None:
    def sequences(**settings: Any) -> int | None:
        pruning = StudentArchitecture(**settings).pruning()
        return pruning and pruning.sequences

    assert sequences(preset="slim") == sequences(preset="narrow") == sequences(dim=48, prune={}) == 512
    assert sequences(preset="slim", prune={"sequences": 9}) == 9
    assert sequences(preset="tiny") is None
    assert sequences(dim=48, heads=3) is None
    assert sequences(preset="slim", initialise_from="random") is None


def test_layers_can_be_listed() -> None:
    assert StudentArchitecture(layers=3, initialise_from=[7, 0, 0]).resolve(WIDE).initialise_from == (7, 0, 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": 9}, r"student\.layers: 9; the teacher has 8"),
        ({"heads": 5}, r"student\.heads: 5 heads do not divide the width 96"),
        ({"dim": 100}, r"student\.heads: 6 heads do not divide the width 100"),
        ({"layers": 3, "initialise_from": [0, 1]}, r"student\.initialise_from: 2 entries for 3 student layers"),
        ({"dim": 192, "heads": 8}, r"student: width \(dim\) 192 \(teacher: 96\), heads 8 \(teacher: 6\), width of a"),
        ({"layers": 2, "initialise_from": [0, 8]}, r"student\.initialise_from: the teacher has no layer 8; 0 to 7"),
        ({"initialise_from": []}, r"student\.initialise_from: 0 entries for 8"),
        (
            {"preset": "slim"},
            r"student: width \(dim\) 384 \(teacher: 96\), hidden_dim 1536 \(teacher: 400\), w",
        ),
        ({"dim": 64, "heads": 8, "prune": {}}, r"student: heads 8 \(teacher: 6\)"),
        ({"dim": 64, "heads": 3, "prune": {}}, r"student\.heads: 3 heads do not divide the width 64"),
        ({"layers": 2, "prune": {}}, r"student\.prune: each layer of the student is as large as one of the teacher"),
    ],
)
def test_contradictions_name_the_field(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        StudentArchitecture(**settings).resolve(WIDE)


@pytest.mark.parametrize(
    "settings",
    [
        {"layers": 0}, {"dim": -1}, {"initialise_from": [-1]}, {"width": 5}, {"prune": {"sequences": 0}},
        {"prune": {}, "initialise_from": "random"},
    ],
)  # fmt: skip
def test_impossible_values_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(settings))):
        StudentArchitecture(**settings)


@pytest.mark.parametrize(
    ("layers", "teacher_layers", "expected"),
    [
        (6, 12, (0, 2, 4, 7, 9, 11)),
        (2, 12, (0, 11)),
        (1, 12, (0,)),
        (4, 12, (0, 4, 7, 11)),
        (3, 4, (0, 2, 3)),
        (12, 24, (0, 2, 4, 6, 8, 10, 13, 15, 17, 19, 21, 23)),
    ],
)
def test_spread_by_hand(layers: int, teacher_layers: int, expected: tuple[int, ...]) -> None:
    assert spread_layers(layers, teacher_layers) == expected


@given(st.integers(2, 48).flatmap(lambda total: st.tuples(st.integers(2, total), st.just(total))))
def test_spread_is_even_from_the_first_to_the_last(sizes: tuple[int, int]) -> None:
    layers, teacher_layers = sizes
    chosen = spread_layers(layers, teacher_layers)
    assert (chosen[0], chosen[-1], len(chosen)) == (0, teacher_layers - 1, layers)
    steps = [later - earlier for earlier, later in itertools.pairwise(chosen)]
    assert min(steps) >= 1
    assert max(steps) - min(steps) <= 1
