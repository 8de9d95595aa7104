"""The description of a training run, and how its best epoch is chosen."""

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from distilrubert.common.recorded_inputs import recorded
from distilrubert.common.training.batching import Collator, Examples, number_of_windows
from distilrubert.common.training.loss_module import LossModule
from distilrubert.common.training.training_settings import BookkeepingSettings, OptimizationSettings

# In the encoders of every family of models.
DROPOUTS = (
    "hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout", "embedding_dropout",
    "mlp_dropout",
)  # fmt: skip
# Settings that change a model's outputs and no weight's shape, in every family of models.
DECISIVE_CONFIG = (
    *DROPOUTS, "num_attention_heads", "n_heads", "hidden_act", "activation", "hidden_activation",
    "global_attn_every_n_layers", "local_attention",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class EpochEvaluation:
    """How the best epoch is chosen. Training then ends with the weights of that epoch.

    Attributes:
        measure: returns the metrics of the model as it is; the main process calls it after each epoch, with the model
            in evaluation mode on its device.
        metric: the metric that decides; higher is better, and of equal epochs the first is the best.
        patience: training stops after this many epochs without a better value.
    """

    measure: Callable[[], dict[str, float]]
    metric: str
    patience: int

    def best(self, evaluations: Sequence[Mapping[str, float]]) -> int:
        """The index of the best epoch."""
        return max(range(len(evaluations)), key=lambda epoch: evaluations[epoch][self.metric])

    def is_over(self, evaluations: Sequence[Mapping[str, float]]) -> bool:
        """Whether training is to stop after these epochs."""
        return bool(evaluations) and len(evaluations) - 1 - self.best(evaluations) >= self.patience


@dataclasses.dataclass(frozen=True)
class TrainingRun:
    """Everything that a training run needs.

    Attributes:
        case: ``distillation`` or ``pretraining``: the name of the run in its report, log and trackers.
        section: the recipe's section with the settings, for messages.
        objective: the module that holds the trained model and computes its losses.
        examples: what is trained on.
        validation: held-out examples for the losses; may be empty.
        collator: makes batches of examples.
        settings: optimisation and bookkeeping.
        folder: gets ``checkpoints/``, ``trackers/`` and, with an evaluation, ``best-<step>.safetensors``.
        seed: of order, masks and dropout.
        origin: what else decides the result (corpus, teacher), as plain values without paths: a project may be moved.
        epoch_tokens: tokens that the trained model reads in an epoch, [CLS] and [SEP] included.
        project: the trackers' name for the runs of this recipe.
        evaluation: measures the model after each epoch; training then ends with the weights of the best one.
        log_level: of the lines that tell of the run's progress.
        find_unused_parameters: whether some weights get no gradient, as those of the head without kl and mlm.
    """

    case: str
    section: str
    objective: LossModule
    examples: Examples[Any]
    validation: Examples[Any]
    collator: Collator[Any]
    settings: OptimizationSettings
    folder: Path
    seed: int
    origin: Mapping[str, Any]
    epoch_tokens: int
    project: str = "distilrubert"
    evaluation: EpochEvaluation | None = None
    log_level: int = logging.INFO
    find_unused_parameters: bool = False

    def all_settings(self) -> dict[str, Any]:
        """The settings and the seed as plain values."""
        return {"seed": self.seed, **self.settings.model_dump(mode="json")}

    def identity(self) -> dict[str, Any]:
        """All that decides the trained weights, except the initial weights, as JSON values.

        A checkpoint of another identity is not resumed.
        """
        config = self.objective.model.config.to_dict()
        windows = number_of_windows(len(self.examples))
        return {
            self.section: recorded(self.settings, exclude=BookkeepingSettings.model_fields),
            "seed": self.seed,
            "model": {name: list(parameter.shape) for name, parameter in self.objective.named_parameters()},
            "config": {key: config[key] for key in DECISIVE_CONFIG if key in config},
            # A corpus of one window is planned as before there were windows.
            **({"windows": windows} if windows > 1 else {}),
            **self.origin,
        }
