"""What is to be trained, on what, how and where."""

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from distilrubert.distill.batching import Masks
from distilrubert.distill.corpus import Corpus
from distilrubert.distill.paired_objective import AnyObjective
from distilrubert.distill.settings import OptimizationSettings
from distilrubert.distill.store import PairedText

# What no weight's shape tells, as BERT and as DistilBERT call it.
BESIDE_SHAPES = (
    "num_attention_heads", "hidden_act", "hidden_dropout_prob", "attention_probs_dropout_prob",
    "n_heads", "activation", "dropout", "attention_dropout",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Job:
    """Everything that a training run needs.

    Attributes:
        case: ``distillation`` or ``pretraining``: the name of the run in its report and trackers.
        section: where the settings stand in a recipe, for messages.
        objective: the module that holds the trained model and computes its losses.
        corpus: the tokenised text.
        masker: draws the tokens to be predicted.
        settings: optimisation and bookkeeping.
        folder: gets ``checkpoints/`` and ``trackers/``.
        seed: of everything that is drawn.
        origin: what else decides the result (the teacher, say), as plain values, and no paths: a project may be moved.
        leaves_weights_out: whether no loss reaches some of the weights, as without kl and mlm those of the head.
    """

    case: str
    section: str
    objective: AnyObjective
    corpus: Corpus
    masker: Masks[Any]
    settings: OptimizationSettings
    folder: Path
    seed: int
    origin: Mapping[str, Any]
    leaves_weights_out: bool = False

    @property
    def epoch_tokens(self) -> int:
        """Tokens that the trained model reads in an epoch, [CLS] and [SEP] included.

        Lengths of a text in two vocabularies are those of the longer side, which only batches go by.
        """
        text = self.corpus.train
        return int((text.student if isinstance(text, PairedText) else text).lengths.sum())

    def all_settings(self) -> dict[str, Any]:
        """The settings and the seed as plain values."""
        return {"seed": self.seed, **self.settings.model_dump(mode="json")}

    def identity(self) -> dict[str, Any]:
        """All that decides the trained weights but the first ones, as JSON holds it.

        A checkpoint of another identity is not resumed.
        """
        config = self.objective.student.config.to_dict()
        return {
            self.section: self.settings.trajectory(),
            "seed": self.seed,
            "corpus": _identity_of(self.corpus),
            "model": {name: list(parameter.shape) for name, parameter in self.objective.named_parameters()},
            "config": {key: config[key] for key in BESIDE_SHAPES if key in config},
            **self.origin,
        }


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The first entry in which two identities differ, in words; empty where they agree."""
    before, after = dict(_flat(old)), dict(_flat(new))
    for key in before | after:
        if before.get(key) != after.get(key):
            return f"{key} was {before.get(key)} and is {after.get(key)}"
    return ""


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _identity_of(corpus: Corpus) -> dict[str, Any]:
    digest = hashlib.sha256(np.ascontiguousarray(corpus.train.lengths).data)
    digest.update(np.ascontiguousarray(corpus.token_counts).data)
    return {"sequences": len(corpus.train), "tokens": int(corpus.train.lengths.sum()), "sha256": digest.hexdigest()}
