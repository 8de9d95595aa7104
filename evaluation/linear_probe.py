"""What a model's sentence vectors hold without any fine-tuning: a linear classifier on top of them.

Axes: N sentences, B of a batch, L positions, D width.
"""

import os
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm.auto import tqdm
from transformers import AutoModel, PreTrainedModel, PreTrainedTokenizerBase

from distilrubert.evaluation.loading import load_to_measure
from distilrubert.evaluation.metrics import compute_metrics
from distilrubert.evaluation.quiet import quiet_libraries
from distilrubert.evaluation.task import TaskDefinition
from distilrubert.evaluation.task_data import TaskRows

REGULARISATIONS = (0.001, 0.01, 0.1, 1.0)  # scikit-learn's C, chosen on the validation part
BATCH_SIZE = 64


def probe(model_folder: str | os.PathLike[str], task: TaskDefinition, rows: TaskRows) -> dict[str, Any]:
    """Score a logistic regression on frozen, mean-pooled vectors of the last layer. There is no randomness in it.

    A pair of sentences is described by the product of its two vectors and the size of their difference, as SentEval
    (Conneau and Kiela, 2018) does it. Features are standardised by the training part.

    Args:
        model_folder: a checkpoint of any architecture that transformers knows, with its tokenizer.
        task: one that classifies sentences or pairs.
        rows: its rows.

    Returns:
        ``test``, the task's metrics, and ``regularisation``, the C with the best main metric on the validation part.

    Raises:
        UserError: if the folder holds no model that can be loaded.
    """
    with quiet_libraries():
        model, tokenizer = load_to_measure(AutoModel, model_folder, "an encoder")
    parts = {name: getattr(rows, name) for name in ("train", "validation", "test")}
    features = {name: _features(model, tokenizer, part, task.max_length) for name, part in parts.items()}
    labels = {name: part["label"][:] for name, part in parts.items()}

    def score(classifier: Pipeline, part: str) -> dict[str, float]:
        return compute_metrics(task.metrics, classifier.predict(features[part]).tolist(), labels[part])

    fitted = {strength: _fit(features["train"], labels["train"], strength) for strength in REGULARISATIONS}
    best = max(REGULARISATIONS, key=lambda strength: score(fitted[strength], "validation")[task.main_metric])
    return {"test": score(fitted[best], "test"), "regularisation": best}


def _fit(features_ND: NDArray[np.float32], labels: Sequence[int], strength: float) -> Pipeline:
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=300, tol=1e-3))
    with warnings.catch_warnings():
        # The last steps towards the optimum change no prediction that matters.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return classifier.fit(features_ND, labels)


def _features(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Dataset, max_length: int
) -> NDArray[np.float32]:
    longest = min(max_length, model.config.max_position_embeddings)
    first_ND = mean_vectors(model, tokenizer, rows["text"][:], longest)
    if "text_pair" not in rows.column_names:
        return first_ND
    second_ND = mean_vectors(model, tokenizer, rows["text_pair"][:], longest)
    return np.concatenate([first_ND * second_ND, np.abs(first_ND - second_ND)], axis=1)


@torch.inference_mode()
def mean_vectors(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int
) -> NDArray[np.float32]:
    """Mean of each text's last hidden states over its tokens, special ones included, as sentence-transformers pools.

    Args:
        model: an encoder in evaluation mode.
        tokenizer: its own.
        texts: N of them.
        max_length: tokens after which a text is cut.

    Returns:
        (N, D).
    """
    ids = tokenizer(list(texts), truncation=True, max_length=max_length)["input_ids"]
    order = np.argsort([len(sequence) for sequence in ids], kind="stable")
    vectors_ND = np.empty((len(texts), model.config.hidden_size), dtype=np.float32)
    for start in tqdm(range(0, len(order), BATCH_SIZE), desc="vectors", unit="batch", leave=False, disable=None):
        chosen = order[start : start + BATCH_SIZE]
        batch = tokenizer.pad({"input_ids": [ids[index] for index in chosen]}, return_tensors="pt").to(model.device)
        hidden_BLD = model(**batch).last_hidden_state
        real_BL1 = batch["attention_mask"].unsqueeze(-1)
        vectors_ND[chosen] = ((hidden_BLD * real_BL1).sum(1) / real_BL1.sum(1)).cpu().numpy()
    return vectors_ND
