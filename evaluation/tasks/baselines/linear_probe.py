"""A linear classifier on a model's frozen vectors.

Axes: N sentences or words, B of a batch, L positions, D width.
"""

import dataclasses
import itertools
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from transformers import AutoModel, PreTrainedModel, PreTrainedTokenizerBase

from distilrubert.common.bars import tracked
from distilrubert.common.errors import UserError
from distilrubert.common.quiet_datasets import quiet_datasets
from distilrubert.evaluation.tasks.baselines.linear_model import labels_of, linear_model
from distilrubert.evaluation.tasks.kinds.task_kind import TaskKind
from distilrubert.evaluation.tasks.kinds.token_classification import TOKEN_CLASSIFICATION, scored_positions, tags_of
from distilrubert.evaluation.tasks.loading import load_encoder, longest_input, measuring_device
from distilrubert.evaluation.tasks.metrics import compute_metrics
from distilrubert.evaluation.tasks.row_results import score_test
from distilrubert.evaluation.tasks.task import TaskDefinition
from distilrubert.evaluation.tasks.task_data import TaskRows
from distilrubert.modeling.checkpoints import quiet_transformers

REGULARISATIONS = (0.001, 0.01, 0.1, 1.0)  # scikit-learn's C, chosen on the validation part
BATCH_SIZE = 64


def probe(model_folder: str | os.PathLike[str], task: TaskDefinition, rows: TaskRows) -> dict[str, Any]:
    """Score a linear model on frozen vectors of the last layer, for a task with classes. There is no randomness.

    The features of a sentence are the mean over its tokens; those of a pair the product of its two vectors and the
    absolute difference, as in SentEval (Conneau and Kiela, 2018); those of a word its first token. Features are
    standardised with the training part.

    Returns:
        ``test``, the task's metrics and row results (:func:`.row_results.score_test`), and ``regularisation``, the C
        with the best main metric on the validation part.

    Raises:
        UserError: if the folder holds no model that can be loaded, or the words to train on are of one class.
    """
    with quiet_transformers(), quiet_datasets():
        model, tokenizer, _ = load_encoder(AutoModel, model_folder, "an encoder")
        model.to(measuring_device())
        describe = _words if task.task_kind is TOKEN_CLASSIFICATION else _sentences
        train, validation, test = (
            describe(model, tokenizer, task, part) for part in (rows.train, rows.validation, rows.test)
        )
    is_of_one = task.task_kind.problem_type == "single_label_classification" or task.task_kind is TOKEN_CLASSIFICATION
    if is_of_one and len(set(train.labels_N)) < 2:
        raise UserError(f"task {task.name}: all words within max_length {task.max_length} are of one class to train on")
    fitted = {strength: _fit(task.task_kind, train, strength) for strength in REGULARISATIONS}

    def score(strength: float) -> float:
        return compute_metrics([task.main_metric], *validation.answers(fitted[strength]))[task.main_metric]

    best = max(REGULARISATIONS, key=score)
    return {"test": score_test(task, rows.test, *test.answers(fitted[best])), "regularisation": best}


@dataclasses.dataclass(frozen=True)
class _Part:
    """A part of the rows: N vectors, their labels, and a function from N predictions to answers row by row."""

    vectors_ND: NDArray[np.float32]
    labels_N: Sequence[Any]
    decode: Callable[[Sequence[Any]], tuple[list[Any], list[Any]]]

    def answers(self, classifier: Pipeline) -> tuple[list[Any], list[Any]]:
        """Predictions and references, row by row, as metrics take them."""
        return self.decode(classifier.predict(self.vectors_ND).tolist())


def _fit(kind: TaskKind, part: _Part, strength: float) -> Pipeline:
    classifier = make_pipeline(StandardScaler(), linear_model(kind, strength))
    with warnings.catch_warnings():
        # The last steps towards the optimum hardly change predictions.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return classifier.fit(part.vectors_ND, part.labels_N)


def _sentences(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: TaskDefinition, rows: Dataset
) -> _Part:
    longest, labels = longest_input(model, tokenizer, task.max_length), labels_of(rows).tolist()
    vectors_ND = mean_vectors(model, tokenizer, rows["text"][:], longest)
    if "text_pair" in rows.column_names:
        second_ND = mean_vectors(model, tokenizer, rows["text_pair"][:], longest)
        vectors_ND = np.concatenate([vectors_ND * second_ND, np.abs(vectors_ND - second_ND)], axis=1)
    return _Part(vectors_ND, labels, lambda predictions: (list(predictions), labels))


def _words(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: TaskDefinition, rows: Dataset) -> _Part:
    features = task.task_kind.encode(rows, tokenizer, longest_input(model, tokenizer, task.max_length))
    scored = scored_positions(features)
    labels_N = [labels[place] for labels, own in zip(features["labels"][:], scored, strict=True) for place in own]

    def decode(predictions: Sequence[int]) -> tuple[list[Any], list[Any]]:
        remaining = iter(predictions)
        return tags_of(rows, features, [list(itertools.islice(remaining, len(own))) for own in scored], task.classes)

    vectors: dict[int, NDArray[np.float32]] = {}
    for chosen, hidden_BLD, _ in _hidden_states(model, tokenizer, features["input_ids"][:]):
        for index, hidden_LD in zip(chosen, hidden_BLD.cpu().numpy(), strict=True):
            vectors[index] = hidden_LD[scored[index]]
    return _Part(np.concatenate([vectors[index] for index in range(len(features))]), labels_N, decode)


def mean_vectors(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int
) -> NDArray[np.float32]:
    """Mean of each text's last hidden states over its tokens, special ones included, as sentence-transformers pools.

    Texts are cut to `max_length` tokens. Returns (N, D).
    """
    ids = tokenizer(list(texts), truncation=True, max_length=max_length)["input_ids"]
    vectors_ND = np.empty((len(texts), model.config.hidden_size), dtype=np.float32)
    for chosen, hidden_BLD, real_BL in _hidden_states(model, tokenizer, ids):
        real_BL1 = real_BL.unsqueeze(-1)
        vectors_ND[chosen] = ((hidden_BLD * real_BL1).sum(1) / real_BL1.sum(1)).cpu().numpy()
    return vectors_ND


@torch.inference_mode()
def _hidden_states(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, ids: Sequence[Sequence[int]]
) -> Iterator[tuple[NDArray[np.intp], Tensor, Tensor]]:
    """Batches of sequences that are alike in length: their indices, last hidden states (B, L, D) and masks (B, L)."""
    order = np.argsort([len(sequence) for sequence in ids], kind="stable")
    for start in tracked(range(0, len(order), BATCH_SIZE), "vectors", unit="batch"):
        chosen = order[start : start + BATCH_SIZE]
        batch = tokenizer.pad({"input_ids": [ids[index] for index in chosen]}, return_tensors="pt").to(model.device)
        yield chosen, model(**batch).last_hidden_state, batch["attention_mask"]
