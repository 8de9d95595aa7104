"""The best epoch of a run: the model is measured after each, and training stops when it no longer improves."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence


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
