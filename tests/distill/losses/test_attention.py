import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    ModernBertConfig,
    ModernBertModel,
    PretrainedConfig,
    PreTrainedModel,
)

from distilrubert.common.errors import UserError
from distilrubert.distill.losses.attention import AttentionTerm, RecordedAttention, attention_map, map_distance
from distilrubert.distill.losses.rows import Rows
from distilrubert.distill.losses.term import AttentionInput, Outputs, Setup
from distilrubert.distill.objective_settings import LayerMap, ObjectiveSettings

HEADS, LAYERS = 4, 3
IDS = torch.arange(12).view(2, 6)
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]])


def bert() -> BertModel:
    config = BertConfig(
        vocab_size=20, hidden_size=16, num_hidden_layers=LAYERS, num_attention_heads=HEADS, intermediate_size=20,
        initializer_range=0.5,
    )  # fmt: skip
    return BertModel(config, add_pooling_layer=False)


def distilbert() -> DistilBertModel:
    config = DistilBertConfig(
        vocab_size=20, dim=16, n_layers=LAYERS, n_heads=HEADS, hidden_dim=20, initializer_range=0.5,
    )  # fmt: skip
    return DistilBertModel(config)


def modernbert() -> ModernBertModel:
    """Layer 0 attends to everything, the others to a token on either side."""
    config = ModernBertConfig(
        vocab_size=20, hidden_size=16, num_hidden_layers=LAYERS, num_attention_heads=HEADS, intermediate_size=20,
        initializer_range=0.5, pad_token_id=0, local_attention=2,
    )  # fmt: skip
    return ModernBertModel(config)


def recorded_maps(model: PreTrainedModel) -> list[torch.Tensor]:
    with RecordedAttention() as recorded:
        model(input_ids=IDS, attention_mask=MASK)
    return [attention_map(layer) for layer in recorded.layers]


@pytest.mark.parametrize("build", [bert, distilbert, modernbert])
def test_maps_are_those_that_the_model_uses(build: type) -> None:
    torch.manual_seed(0)
    model = build().eval()
    maps = recorded_maps(model)
    model.set_attn_implementation("eager")
    expected = model(input_ids=IDS, attention_mask=MASK, output_attentions=True).attentions
    assert len(maps) == len(expected) == LAYERS
    for ours, theirs in zip(maps, expected, strict=True):
        # What a query that is padding sees is of no use to anybody, and versions differ in it.
        torch.testing.assert_close(ours[0], theirs[0], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(ours[1, :, :3], theirs[1, :, :3], rtol=1e-5, atol=1e-6)
        assert ours.std() > 0.05


@pytest.mark.parametrize("build", [bert, distilbert])
def test_maps_are_taken_before_dropout_and_padded_keys_have_none(build: type) -> None:
    torch.manual_seed(0)
    maps = recorded_maps(build().train())
    for map_BHQK in maps:
        torch.testing.assert_close(map_BHQK.sum(-1), torch.ones(2, HEADS, 6))
        assert map_BHQK[0].count_nonzero() == HEADS * 36
        assert map_BHQK[1, :, :, 3:].count_nonzero() == 0


def test_distance_by_hand() -> None:
    student = torch.tensor([[[[0.5, 0.5], [1.0, 0.0]]]], requires_grad=True)
    teacher = torch.tensor([[[[1.0, 0.0], [1e4, 0.0]]]])
    loss = map_distance(student, teacher, torch.tensor([[True, False]]))
    loss.backward()
    assert loss.item() == 0.5
    assert student.grad.tolist() == [[[[-1.0, 1.0], [0.0, 0.0]]]]


def test_a_sequence_of_padding_alone_counts_for_nothing() -> None:
    queries = torch.randn(1, HEADS, 3, 4, requires_grad=True)
    mask = torch.zeros(1, 3, dtype=torch.bool)
    maps = attention_map(AttentionInput(queries, queries, mask[:, None, None]))
    map_distance(maps, torch.zeros_like(maps), mask).backward()
    assert queries.grad.count_nonzero() == 0


def test_pairs_compare_with_the_mean_of_maps_and_rows_are_heads_times_queries() -> None:
    torch.manual_seed(0)
    student, teacher = distilbert().eval(), bert().eval()
    student_maps, teacher_maps = recorded_maps(student), recorded_maps(teacher)
    term = attention_term(student.config, teacher.config, [[1, 2], [], [3]])
    both = []
    for model in (student, teacher):
        with RecordedAttention() as recorded:
            model(input_ids=IDS, attention_mask=MASK)
        both.append(Outputs(torch.empty(0), (), tuple(recorded.layers)))
    mask = MASK.bool()
    expected = (
        map_distance(student_maps[0], (teacher_maps[0] + teacher_maps[1]) / 2, mask)
        + map_distance(student_maps[2], teacher_maps[2], mask)
    ) / 2
    rows = Rows.of({"attention_mask": mask, "labels": IDS})
    _, sums = term(*both, rows, {"attention": 1.0})
    torch.testing.assert_close(sums["attention"], expected)
    assert term.counts(rows) == {"attention": HEADS * 9}


def attention_term(student: PretrainedConfig, teacher: PretrainedConfig, layer_map: LayerMap) -> AttentionTerm:
    settings = ObjectiveSettings(layer_map=layer_map, embeddings_pair=layer_map != "all-mean")
    return AttentionTerm(["attention"], Setup(settings, student, teacher, None))


def test_what_does_not_fit_is_refused() -> None:
    student, teacher = (
        DistilBertConfig(dim=16, n_heads=4, n_layers=1),
        BertConfig(hidden_size=16, num_attention_heads=4),
    )
    with pytest.raises(UserError, match=r"distillation\.weights\.attention: .*4 heads and the teacher 2"):
        attention_term(student, BertConfig(hidden_size=16, num_attention_heads=2), [[1]])
    with pytest.raises(UserError, match=r"embeddings, layer 0 in distillation\.layer_map"):
        attention_term(student, teacher, [[0, 1]])
    with pytest.raises(UserError, match="pairs no layers"):
        attention_term(student, teacher, "all-mean")
