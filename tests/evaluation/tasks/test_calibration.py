"""The temperature of a classifier, by hand and on models of each family of heads."""

import numpy as np
import pytest
import torch
from scipy.special import softmax
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

from distilrubert.evaluation.tasks.calibration import RANGE, calibration_error, divide_logits, fit_temperature

SIZES = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
    "vocab_size": 40, "max_position_embeddings": 32, "num_labels": 3,
}  # fmt: skip
IDS = {"pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}


def drawn(temperature: float, rows: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Logits of a model that is too sure by that factor, and classes that are drawn from what is true."""
    generator = np.random.default_rng(0)
    logits_NC = generator.normal(0, 1.5, (rows, 4))
    chances_NC = softmax(logits_NC, axis=1)
    classes_N = (chances_NC.cumsum(axis=1) < generator.random((rows, 1))).sum(axis=1)
    return logits_NC * temperature, classes_N


@pytest.mark.parametrize("temperature", [0.7, 1.0, 2.0])
def test_the_temperature_of_a_model_that_is_too_sure_is_found(temperature: float) -> None:
    logits_NC, classes_N = drawn(temperature)
    assert fit_temperature(logits_NC, classes_N) == pytest.approx(temperature, rel=0.05)
    assert calibration_error(logits_NC / temperature, classes_N) < 0.01
    assert (calibration_error(logits_NC, classes_N) > 0.03) == (temperature != 1.0)


def test_a_part_without_a_mistake_or_without_a_hit_stays_within_the_range() -> None:
    logits_NC = np.array([[2.0, 0.0], [0.0, 1.0]])
    assert fit_temperature(logits_NC, np.array([0, 1])) == pytest.approx(RANGE[0], rel=1e-2)
    assert fit_temperature(logits_NC, np.array([1, 0])) == pytest.approx(RANGE[1], rel=1e-2)


def test_the_error_is_the_gap_of_each_bin_weighted_by_its_rows() -> None:
    # Four decisions at .8, of which two are right, and one at 1 that is right.
    logits_NC = np.log([[0.8, 0.2]] * 4 + [[1.0, 1e-30]])
    assert calibration_error(logits_NC, np.array([0, 0, 1, 1, 0])) == pytest.approx(4 / 5 * 0.3)


@pytest.mark.parametrize(
    "model",
    [
        BertForSequenceClassification(BertConfig(**SIZES)),
        XLMRobertaForSequenceClassification(XLMRobertaConfig(**SIZES, pad_token_id=0)),
        ModernBertForSequenceClassification(ModernBertConfig(**SIZES, **IDS, reference_compile=False)),
        DistilBertForSequenceClassification(
            DistilBertConfig(dim=32, n_layers=2, n_heads=4, hidden_dim=48, vocab_size=40, num_labels=3)
        ),
    ],
    ids=lambda model: model.config.model_type,
)
def test_it_is_folded_into_the_last_layer(model: torch.nn.Module) -> None:
    model.eval()
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape) * 0.3
    batch = {"input_ids": torch.randint(4, 40, (5, 9)), "attention_mask": torch.ones(5, 9, dtype=torch.long)}
    with torch.no_grad():
        before_NC = model(**batch).logits
        divide_logits(model, 1.7)
        torch.testing.assert_close(model(**batch).logits, before_NC / 1.7)
