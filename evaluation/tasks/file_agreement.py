"""How a file of a fine-tuned model agrees with the model, in logits and in decisions, and how it scores.

A decision is what a user gets: the class of a text, or whether it is of a class where it can be of several, the tag of
a word, the answer to a question. Scores are equal decisions where they differ by at most a tenth of their standard
deviation. Decisions are compared on rows that were neither trained on nor calibrated on.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilrubert.common.errors import UserError
from distilrubert.common.measurements import Row
from distilrubert.evaluation.tasks.exported import BATCH_SIZE
from distilrubert.evaluation.tasks.finetuning import Learner
from distilrubert.evaluation.tasks.kinds.task_kind import Logits
from distilrubert.evaluation.tasks.row_results import score_test
from distilrubert.evaluation.tasks.task_loss import RunFile, logits_of
from distilrubert.evaluation.tasks.task_runs import summary_of
from distilrubert.modeling.runtimes import PyTorchModel

UNSEEN = ("validation", "test")


@dataclasses.dataclass(frozen=True)
class AgreementBound:
    """How far a file may be from its model.

    Attributes:
        equal_decisions: least share of equal decisions; one decision may always differ, as a small task has few.
        maximal_difference: largest absolute difference of a logit; None leaves it unbounded.
    """

    equal_decisions: float
    maximal_difference: float | None = None

    def check(self, row: Row, path: str) -> None:
        """Refuse the file at `path`, of which :meth:`FileComparison.measure` made the row.

        Raises:
            UserError: naming the file, what was found and what is allowed.
        """
        difference, different = row.values["maximal_difference"], row.values["different_decisions"]
        complaint = f"{path}: differs too much from the fine-tuned model"
        # A NaN is never within the bound.
        if self.maximal_difference is not None and not difference <= self.maximal_difference:
            raise UserError(f"{complaint}: a logit by {difference:.3g}, at most {self.maximal_difference:g} is allowed")
        share = 1 - different / row.values["decisions"]
        if different > 1 and share < self.equal_decisions:
            raise UserError(
                f"{complaint}: {share:.4f} of its decisions are equal, at least {self.equal_decisions:g} is needed"
            )


BOUNDS = {
    "fp32": AgreementBound(0.999, maximal_difference=1e-3),
    "fp16": AgreementBound(0.99, maximal_difference=0.05),
    "bf16": AgreementBound(0.98),
    "int8": AgreementBound(0.97),
}
"""By the number format of a file, or of the arithmetic where that is bf16. Logits are of the order of 1.

Measured on three layers of a real BERT, 384 wide, fine-tuned on 2,700 posts of RuSentiment: ONNX fp32 differs by 3.5e-6
at most; of 3,267 decisions 99.4 % are equal in ONNX int8, 99.8 % in OpenVINO int8.
"""


class FileComparison:
    """Compares files with the model that they were made of: in PyTorch fp32 on the CPU."""

    def __init__(self, learner: Learner) -> None:
        """Take a trained model, which is moved to the CPU."""
        self._learner, self._task = learner, learner.task
        self._truth = self._outputs(PyTorchModel(learner.model.eval().cpu(), self._task.task_kind.export_task))

    def measure(self, case: str, run: RunFile) -> Row:
        """Run a file on the rows that it has not seen.

        Returns:
            ``decisions``, the number compared; ``different_decisions``, of these; ``maximal_difference`` and
            ``mean_difference``, absolute, of the logits; ``tasks``, the scores on the test part as in the report of
            :func:`~distilrubert.evaluation.tasks.quality.measure_quality`.
        """
        outputs = self._outputs(run)
        equal = [each for part in UNSEEN for each in self._equal(part, outputs[part])]
        differences = np.concatenate([self._differences(part, outputs[part]) for part in UNSEEN])
        test = score_test(self._task, *self._learner.decoded("test", outputs["test"]))
        return Row(
            case,
            {
                "decisions": len(equal),
                "different_decisions": equal.count(False),
                "maximal_difference": float(differences.max()),
                "mean_difference": float(differences.mean()),
                "tasks": {self._task.name: summary_of(self._task, [test])},
            },
        )

    def test_answers(self) -> tuple[list[Any], list[Any]]:
        """Predictions of the model and references of the test part, row by row."""
        return self._learner.decoded("test", self._truth["test"])

    def _outputs(self, run: RunFile) -> dict[str, Logits]:
        learner = self._learner
        return {part: logits_of(run, learner.features[part], learner.tokenizer, BATCH_SIZE) for part in UNSEEN}

    def _equal(self, part: str, logits: Logits) -> list[bool]:
        """Of each decision, whether the file makes that of the model."""
        both = (self._learner.decoded(part, each)[0] for each in (self._truth[part], logits))
        return self._task.task_kind.equal(*map(_each, both))

    def _differences(self, part: str, logits: Logits) -> NDArray[np.float32]:
        """The absolute difference of each logit, without those of padding."""
        both = [np.stack(each) if isinstance(each, tuple) else each[None] for each in (self._truth[part], logits)]
        differences: NDArray[np.float32] = np.abs(both[0] - both[1])
        if self._task.task_kind.export_task != "text-classification":
            lengths = np.array(self._learner.features[part]["length"][:])
            differences = differences[:, np.arange(differences.shape[2]) < lengths[:, None]]
        return differences.ravel()


def _each(predictions: Sequence[Any]) -> list[Any]:
    """Predictions one by one: those of each word, or of each of several classes, where a row has a list of them."""
    return [each for row in predictions for each in (row if isinstance(row, list) else [row])]
