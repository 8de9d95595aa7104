import copy

import pytest
import torch

from distilrubert.conversion.smoothing import Smoothed, output_errors, smooth


@pytest.fixture(scope="module")
def batches(tiny_student, sentences) -> list[dict[str, torch.Tensor]]:
    return [dict(tiny_student.tokenizer(text, return_tensors="pt")) for text in sentences[:12]]


@pytest.fixture(scope="module")
def skewed(tiny_student) -> torch.nn.Module:
    """The student with one channel of every LayerNorm thirty times the others, as in real BERTs."""
    model = copy.deepcopy(tiny_student.model)
    with torch.no_grad():
        for layer in model.distilbert.transformer.layer:
            layer.sa_layer_norm.weight[5] *= 30
    return model.distilbert


@torch.no_grad()
def hidden_of(model, batches) -> torch.Tensor:
    return torch.cat([model(**batch).last_hidden_state[0] for batch in batches])


def test_a_smoothed_model_computes_the_same_and_the_original_is_untouched(skewed, batches):
    before = {name: tensor.clone() for name, tensor in skewed.state_dict().items()}
    torch.testing.assert_close(
        hidden_of(smooth(skewed, batches), batches), hidden_of(skewed, batches), atol=2e-4, rtol=1e-4
    )
    assert all(torch.equal(tensor, before[name]) for name, tensor in skewed.state_dict().items())


def test_query_key_and_value_are_divided_once(skewed, batches):
    attention = smooth(skewed, batches).transformer.layer[0].attention
    assert torch.equal(attention.q_lin.inverse_I, attention.k_lin.inverse_I)
    assert torch.equal(attention.q_lin.inverse_I, attention.v_lin.inverse_I)
    assert not isinstance(attention.out_lin, Smoothed)  # it reads means, of which no channel stands out


def test_a_head_and_the_embeddings_tied_to_it_stay_as_they_are(tiny_student, batches):
    model = smooth(tiny_student.model, batches)
    assert not isinstance(model.vocab_projector, Smoothed)
    assert torch.equal(model.distilbert.embeddings.word_embeddings.weight, tiny_student.model.vocab_projector.weight)
    assert isinstance(model.distilbert.transformer.layer[1].ffn.lin2, Smoothed)


def test_smoothing_takes_error_away_where_a_channel_stands_out(skewed, batches):
    plain = output_errors(skewed, batches)
    smoothed = output_errors(smooth(skewed, batches), batches)
    assert smoothed["transformer.layer.1.ffn.lin1.linear"] < 0.6 * plain["transformer.layer.1.ffn.lin1"]


def test_the_error_of_a_map_is_that_of_rounding_it():
    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(2, 1)
            self.base_model = self
            self.linear.weight = torch.nn.Parameter(torch.tensor([[63.0, 0.5]]))

        def forward(self, input_NI):
            return self.linear(input_NI)

    # Steps of 1 for weights and inputs: 0.5 becomes 0, and everything else is whole.
    input_NI = torch.tensor([[255.0, 2.0], [0.0, 2.0]])
    exact, rounded = [63 * 255 + 1.0, 1.0], [63 * 255.0, 0.0]
    difference = sum((a - b) ** 2 for a, b in zip(exact, rounded, strict=True)) ** 0.5
    expected = difference / sum(a**2 for a in exact) ** 0.5
    assert output_errors(Encoder(), [{"input_NI": input_NI}]) == {"linear": pytest.approx(expected)}
