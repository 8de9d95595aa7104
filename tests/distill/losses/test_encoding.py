from collections.abc import Iterator
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, DistilBertConfig, DistilBertForMaskedLM, PreTrainedModel

from distilrubert.distill.losses import encoding
from distilrubert.distill.losses.encoding import FrozenModel, encode, recompute_layers

BATCH = {
    "input_ids": torch.arange(14).view(2, 7),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0, 0]]),
}


def bert() -> BertForMaskedLM:
    config = BertConfig(
        vocab_size=20, hidden_size=16, num_hidden_layers=3, num_attention_heads=4, intermediate_size=20,
        initializer_range=0.3,
    )  # fmt: skip
    return BertForMaskedLM(config)


def distilbert() -> DistilBertForMaskedLM:
    config = DistilBertConfig(vocab_size=20, dim=16, n_layers=3, n_heads=4, hidden_dim=20, initializer_range=0.3)
    return DistilBertForMaskedLM(config)


@pytest.fixture(params=[bert, distilbert])
def model(request: pytest.FixtureRequest) -> Iterator[PreTrainedModel]:
    torch.manual_seed(0)
    return request.param().eval()


def count_calls(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """One entry for each call of the attention that is computed step by step."""
    calls: list[None] = []
    attend = encoding._attend

    def counted(*args: Any, **options: Any) -> torch.Tensor:
        calls.append(None)
        return attend(*args, **options)

    monkeypatch.setattr(encoding, "_attend", counted)
    return calls


def test_states_are_those_of_the_embeddings_and_every_block(model: PreTrainedModel) -> None:
    found = encode(model, BATCH, {"hidden_states"})
    expected = model(**BATCH, output_hidden_states=True).hidden_states
    assert len(found.hidden_states) == len(expected) == 4
    torch.testing.assert_close(found.hidden_states, expected)
    assert torch.equal(found.last_BLD, found.hidden_states[-1])
    assert encode(model, BATCH, set()).hidden_states == encode(model, BATCH, set()).attention == ()


def test_attention_step_by_step_is_the_fused_one(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> tuple[torch.Tensor, ...]:
        last_BLD = encode(model, BATCH, set()).last_BLD
        real = last_BLD[BATCH["attention_mask"].bool()]
        return real, *torch.autograd.grad(real.square().sum(), list(model.base_model.parameters()))

    calls = count_calls(monkeypatch)
    fused = run()
    assert not calls
    monkeypatch.setattr(encoding, "_is_plain_attention_faster", lambda ids_BL: True)
    torch.testing.assert_close(run(), fused, rtol=1e-4, atol=1e-4)
    assert len(calls) == 3


def test_attention_step_by_step_drops_out_and_takes_both_kinds_of_mask() -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, 7, 8)
    mask = BATCH["attention_mask"].bool()[:, None, None, :].expand(2, 1, 7, 7)
    added = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    torch.testing.assert_close(encoding._attend(query, key, value, mask), expected)
    torch.testing.assert_close(encoding._attend(query, key, value, added), expected)
    in_bf16 = [tensor.bfloat16() for tensor in (query, key, value)]
    torch.testing.assert_close(encoding._attend(*in_bf16, added).float(), expected, rtol=0.05, atol=0.05)
    dropped = encoding._attend(query, key, torch.eye(7).expand(2, 4, 7, 7), mask, dropout_p=0.5)
    assert 0.3 < (dropped[0] == 0).float().mean() < 0.7


def test_it_is_taken_where_it_is_faster(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = count_calls(monkeypatch)
    with torch.autocast("cpu", torch.bfloat16):
        encode(model, BATCH, set())
        assert len(calls) == 3
        with torch.no_grad():
            encode(model, BATCH, set())
        monkeypatch.setattr(encoding, "_PLAIN_ATTENTION_TOKENS", 6)
        encode(model, BATCH, set())
    assert len(calls) == 3


def test_a_frozen_model_is_converted_once_and_computes_what_autocast_does(model: PreTrainedModel) -> None:
    model.requires_grad_(False)
    frozen = FrozenModel(model)
    assert frozen.get()[0] is model
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        converted, head = frozen.get()
        hidden = encode(converted, BATCH, set()).last_BLD
        expected = encode(model, BATCH, set()).last_BLD
        logits = head.transform(hidden) @ head.weight_VD.T + head.bias_V
        torch.testing.assert_close(logits.float(), model(**BATCH).logits.float(), rtol=0.02, atol=0.02)
        assert frozen.get()[0] is converted
    assert torch.equal(hidden, expected)
    assert head.weight_VD.dtype == torch.bfloat16
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    # What is looked up or normalises stays exact, and is not stored twice.
    assert converted.get_input_embeddings().weight is model.get_input_embeddings().weight


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("training", [False, True])
def test_recomputed_blocks_have_the_same_gradients_and_keep_less(
    model: PreTrainedModel, precision: torch.dtype, training: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = count_calls(monkeypatch)

    def run() -> tuple[list[torch.Tensor], int]:
        torch.manual_seed(1)  # of the dropout
        kept = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        weights = list(
            model.base_model.encoder.parameters() if bert_like else model.base_model.transformer.parameters()
        )
        storages = {weight.untyped_storage().data_ptr() for weight in weights}
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                found = encode(model, BATCH, {"hidden_states", "attention"})
            loss = sum(state.float().square().sum() for state in found.hidden_states)
            loss = loss + sum(query.float().square().sum() for query, *_ in found.attention)
        size = sum(size for pointer, size in kept.items() if pointer not in storages)
        return list(torch.autograd.grad(loss, weights)), size

    bert_like = isinstance(model, BertForMaskedLM)
    model.train(training)
    expected, all_kept = run()
    step_by_step = len(calls)
    recompute_layers(model, training=training)
    gradients, kept = run()
    for gradient, usual in zip(gradients, expected, strict=True):
        assert torch.equal(gradient, usual)
    assert kept < all_kept / 2
    # The second forward pass of a block is made in the same way as the first.
    assert len(calls) == 3 * step_by_step
    assert any(module.training for module in model.modules() if isinstance(module, torch.nn.Dropout)) == training
