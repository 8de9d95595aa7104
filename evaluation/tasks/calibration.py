"""Probabilities that say how often a classifier is right: a temperature, folded into its last layer.

A fine-tuned model is mostly too sure of itself. Dividing its logits by one number, which is chosen on the validation
part, changes no decision and mends most of that (Guo et al., "On Calibration of Modern Neural Networks", 2017).

A decision is the class of a text, the tag of a word, or whether a text is of a class where it can be of several.
Numbers and answers have no such probability.

Axes: N decisions, C classes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from torch import nn
from transformers import PreTrainedModel

from distilrubert.common.training.padding import IGNORED
from distilrubert.evaluation.tasks.exported import BATCH_SIZE
from distilrubert.evaluation.tasks.finetuning import Learner
from distilrubert.evaluation.tasks.task_loss import logits_of
from distilrubert.modeling.runtimes import PyTorchModel

BINS = 15
# A validation part without a mistake would ask for 0, and one without a hit for infinity.
RANGE = (0.5, 5.0)

Logits = NDArray[np.floating[Any]]
Classes = NDArray[np.int64]


def calibrate(learner: Learner) -> dict[str, Any]:
    """Fold the temperature of a model with classes, chosen on its validation part, into its last layer.

    A temperature that makes the expected calibration error of that part larger is not folded.

    Args:
        learner: with a trained model, which is changed in place and moved to the CPU.

    Returns:
        ``temperature``, which the logits are divided by, 1 where none is folded; ``fitted_temperature``, and
        ``is_at_limit``, whether it is one of :data:`RANGE`, beyond which a better one may be; of the test part
        ``calibration_error_before`` and ``calibration_error``, see :func:`calibration_error`, and ``reliability``, see
        :func:`reliability`.
    """
    model = PyTorchModel(learner.model.eval().cpu(), learner.task.task_kind.export_task)

    def outputs(part: str) -> tuple[Logits, Classes]:
        features = learner.features[part]
        logits = logits_of(model, features, learner.tokenizer, BATCH_SIZE)
        assert isinstance(logits, np.ndarray)
        return decisions_of(logits, features["labels"][:])

    logits_NC, classes_N = outputs("validation")
    fitted = fit_temperature(logits_NC, classes_N)
    is_better = calibration_error(logits_NC / fitted, classes_N) < calibration_error(logits_NC, classes_N)
    temperature = fitted if is_better else 1.0
    before = calibration_error(*outputs("test"))
    if is_better:
        divide_logits(learner.model, temperature)
    after = outputs("test")
    return {
        "temperature": temperature,
        "fitted_temperature": fitted,
        "is_at_limit": bool(np.isclose(fitted, RANGE, rtol=1e-3).any()),
        "calibration_error_before": before,
        "calibration_error": calibration_error(*after),
        "reliability": reliability(*after),
    }


def decisions_of(logits: Logits, labels: Sequence[Any]) -> tuple[Logits, Classes]:
    """The logits of the classes of each decision, and the true class.

    Args:
        logits: (rows, C) of texts, (rows, L, C) of words.
        labels: of each row its class, 0 or 1 for each of several classes, or the class of each token, -100 for those
            that begin no word.
    """
    if logits.ndim == 3:
        own = [np.array(row) for row in labels]
        chosen = [logits[index, : len(row)][row != IGNORED] for index, row in enumerate(own)]
        return np.concatenate(chosen), np.concatenate([row[row != IGNORED] for row in own])
    if np.ndim(labels[0]) == 0:
        return logits, np.array(labels)
    # Not of a class, or of it: softmax(0, z) is the logistic function of z.
    return np.stack([np.zeros_like(logits), logits], axis=-1).reshape(-1, 2), np.array(labels, dtype=np.int64).ravel()


def fit_temperature(logits_NC: Logits, classes_N: Classes) -> float:
    """The divisor of the logits, within :data:`RANGE`, by which the true classes are most likely."""
    rows = np.arange(len(classes_N))

    def cross_entropy(log_temperature: float) -> float:
        log_probabilities_NC = log_softmax(logits_NC / np.exp(log_temperature), axis=1)
        return float(-log_probabilities_NC[rows, classes_N].mean())

    found = minimize_scalar(cross_entropy, bounds=np.log(RANGE), method="bounded")
    return float(np.exp(found.x))


def calibration_error(logits_NC: Logits, classes_N: Classes) -> float:
    """The expected calibration error: how far probabilities of decisions are from the share that is right.

    The mean over :data:`BINS` bins of equally probable decisions, weighted by their rows.
    """
    bins = reliability(logits_NC, classes_N)
    return sum(each["rows"] * abs(each["right"] - each["probability"]) for each in bins) / len(classes_N)


def reliability(logits_NC: Logits, classes_N: Classes) -> list[dict[str, float]]:
    """How sure decisions are, and how many of them are right, by :data:`BINS` bins of equally wide probabilities.

    Returns:
        for each bin that has rows the mean ``probability`` of their decisions, the share that is ``right``,
        and ``rows``, their number.
    """
    probabilities_NC = softmax(logits_NC, axis=1)
    right_N, sure_N = probabilities_NC.argmax(axis=1) == classes_N, probabilities_NC.max(axis=1)
    bins_N = np.minimum((sure_N * BINS).astype(int), BINS - 1)
    return [
        {"probability": float(sure_N[own].mean()), "right": float(right_N[own].mean()), "rows": int(own.sum())}
        for own in (bins_N == index for index in np.unique(bins_N))
    ]


@torch.no_grad()
def divide_logits(model: PreTrainedModel, temperature: float) -> None:
    """Divide what a classifier puts out by a number, in its weights."""
    encoder = set(model.base_model.modules())
    last = [module for module in model.modules() if isinstance(module, nn.Linear) and module not in encoder][-1]
    assert last.out_features == model.config.num_labels, f"{last} is not the last layer of the head"
    for parameter in last.parameters():
        parameter.div_(temperature)
