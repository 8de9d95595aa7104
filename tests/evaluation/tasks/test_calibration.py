"""The temperature of a classifier, by hand and on models of each family of heads."""

from types import SimpleNamespace

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

from distilrubert.evaluation.tasks import calibration
from distilrubert.evaluation.tasks.calibration import (
    RANGE,
    calibrate,
    calibration_error,
    decisions_of,
    divide_logits,
    fit_temperature,
)

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


@pytest.mark.parametrize(
    ("validation", "folded", "is_at_limit"),
    [
        (drawn(2.0), 2.0, False),
        # A hundred rows are as sure as they should be; one that is wrong and very sure raises the temperature.
        ((np.array([[3.0, 0.0]] * 100 + [[60.0, 0.0]]), np.array([0] * 95 + [1] * 6)), 1.0, False),
        # Sure in both directions and mostly wrong: the temperature would be larger still.
        ((np.array([[9.0, 0.0]] * 4), np.array([1, 1, 1, 0])), RANGE[1], True),
    ],
)
def test_only_a_temperature_that_makes_the_error_of_the_validation_part_smaller_is_folded(
    validation: tuple[np.ndarray, np.ndarray], folded: float, is_at_limit: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    divided = []
    monkeypatch.setattr(calibration, "PyTorchModel", lambda model, task: model)
    monkeypatch.setattr(calibration, "logits_of", lambda model, features, *_: features["logits"] / np.prod(divided))
    monkeypatch.setattr(calibration, "divide_logits", lambda model, temperature: divided.append(temperature))
    logits_NC, classes_N = validation
    part = {"logits": logits_NC, "labels": classes_N}
    kind = SimpleNamespace(export_task="text-classification", labelled=True)
    learner = SimpleNamespace(
        model=torch.nn.Identity(),
        tokenizer=None,
        task=SimpleNamespace(task_kind=kind),
        features={"validation": part, "test": part},
    )
    found = calibrate(learner)
    assert found["temperature"] == pytest.approx(folded, rel=0.05)
    assert found["is_at_limit"] == is_at_limit
    assert divided == ([found["temperature"]] if folded != 1.0 else [])
    assert found["calibration_error"] <= found["calibration_error_before"]


def test_the_error_is_the_gap_of_each_bin_weighted_by_its_rows() -> None:
    # Four decisions at .8, of which two are right, and one at 1 that is right.
    logits_NC = np.log([[0.8, 0.2]] * 4 + [[1.0, 1e-30]])
    assert calibration_error(logits_NC, np.array([0, 0, 1, 1, 0])) == pytest.approx(4 / 5 * 0.3)


def test_the_decisions_of_words_are_those_with_a_tag() -> None:
    logits = np.arange(12.0).reshape(2, 3, 2)
    found_NC, classes_N = decisions_of(logits, [[-100, 1, 0], [0, -100]])
    assert found_NC.tolist() == [[2.0, 3.0], [4.0, 5.0], [6.0, 7.0]]
    assert classes_N.tolist() == [1, 0, 0]


def test_each_of_several_classes_is_a_decision() -> None:
    """The probability of a class is the logistic function of its logit, and of a class that is not given the rest."""
    logits_NC, classes_N = decisions_of(np.array([[np.log(3), -np.log(4)]]), [[1.0, 1.0]])
    np.testing.assert_allclose(softmax(logits_NC, axis=1), [[0.25, 0.75], [0.8, 0.2]])
    # Right with .75, and wrong with .8.
    assert calibration_error(logits_NC, classes_N) == pytest.approx((0.25 + 0.8) / 2)


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
