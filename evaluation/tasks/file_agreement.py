"""How a file of a fine-tuned model agrees with the model, in logits and in decisions, and how it scores.

A decision is what a user gets: the class of a text, or whether it is of a class where it can be of several, the tag of
a word, the answer to a question. Scores are equal decisions where they differ by at most a tenth of their standard
deviation. Decisions are compared on rows that were neither trained on nor calibrated on.

A model is close to many a decision: int8 changes some whose probabilities are nearly equal, which says little of the
file. So clear decisions are bounded, whose most probable class is ahead of the next one by :data:`CLEAR`. Numbers and
answers are all clear.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilrubert.common.errors import UserError
from distilrubert.common.measurements import Row
from distilrubert.evaluation.tasks.exported import BATCH_SIZE
from distilrubert.evaluation.tasks.finetuning import Learner
from distilrubert.evaluation.tasks.kinds.task_kind import Logits, in_row_order
from distilrubert.evaluation.tasks.kinds.token_classification import scored_positions
from distilrubert.evaluation.tasks.row_results import score_test
from distilrubert.evaluation.tasks.task_loss import RunFile, logits_of
from distilrubert.evaluation.tasks.task_runs import summary_of
from distilrubert.modeling.runtimes import PyTorchModel

UNSEEN = ("validation", "test")
CLEAR = 0.1


@dataclasses.dataclass(frozen=True)
class AgreementBound:
    """How far a file may be from its model.

    Attributes:
        equal_decisions: least share of equal ones among the clear decisions; one may always differ, as a small task has
            few.
        of_all: the same of all decisions, as a model may have few that are clear; never more than `equal_decisions`.
        maximal_difference: largest absolute difference of a logit; None leaves it unbounded.
    """

    equal_decisions: float
    of_all: float
    maximal_difference: float | None = None

    def check(self, row: Row, path: str) -> None:
        """Refuse the file at `path`, of which :meth:`FileComparison.measure` made the row.

        Raises:
            UserError: naming the file, what was found and what is allowed.
        """
        difference = row.values["maximal_difference"]
        complaint = f"{path}: differs too much from the fine-tuned model"
        # A NaN is never within the bound.
        if self.maximal_difference is not None and not difference <= self.maximal_difference:
            raise UserError(f"{complaint}: a logit by {difference:.3g}, at most {self.maximal_difference:g} is allowed")
        of_all = min(self.of_all, self.equal_decisions)
        for kind, least in (("clear_decisions", self.equal_decisions), ("decisions", of_all)):
            compared, different = row.values[kind], row.values[f"different_{kind}"]
            if different > 1 and (share := 1 - different / compared) < least:
                what = kind.replace("_", " ")
                raise UserError(f"{complaint}: {share:.4f} of its {what} are equal, at least {least:g} is needed")


BOUNDS = {
    "fp32": AgreementBound(0.999, 0.999, maximal_difference=1e-3),
    "fp16": AgreementBound(0.99, 0.99, maximal_difference=0.05),
    "bf16": AgreementBound(0.99, 0.98),
    "int8": AgreementBound(0.99, 0.97),
}
"""By the number format of a file, or of the arithmetic where that is bf16. Logits are of the order of 1.

Measured on three layers of a real BERT, 384 wide, fine-tuned on 2,700 posts of RuSentiment: ONNX fp32 differs by 3.5e-6
at most; of 3,267 decisions 99.4 % are equal in ONNX int8, 99.8 % in OpenVINO int8. Of six layers of
multilingual-e5-small, which learnt from all twelve, 98.7 and 98.5 % of 3,167 are equal; on 400 of the posts all of the
335 clear ones are, in both files.
"""


class FileComparison:
    """Compares files with the model that they were made of: in PyTorch fp32 on the CPU."""

    def __init__(self, learner: Learner) -> None:
        """Take a trained model, which is moved to the CPU."""
        self._learner, self._task = learner, learner.task
        self._truth = self._outputs(PyTorchModel(learner.model.eval().cpu(), self._task.task_kind.export_task))
        self._clear = [bool(lead >= CLEAR) for part in UNSEEN for lead in self._leads(part)]

    def measure(self, case: str, run: RunFile) -> Row:
        """Run a file on the rows that it has not seen.

        Returns:
            ``decisions``, the number compared; ``different_decisions``, of these; ``clear_decisions`` and
            ``different_clear_decisions``, those of them that are clear to the model; ``maximal_difference`` and
            ``mean_difference``, absolute, of the logits; ``tasks``, the scores on the test part as in the report of
            :func:`~distilrubert.evaluation.tasks.quality.measure_quality`.
        """
        outputs = self._outputs(run)
        equal = [each for part in UNSEEN for each in self._equal(part, outputs[part])]
        clear = [same for same, is_clear in zip(equal, self._clear, strict=True) if is_clear]
        differences = np.concatenate([self._differences(part, outputs[part]) for part in UNSEEN])
        test = score_test(self._task, self._learner.rows.test, *self._learner.decoded("test", outputs["test"]))
        return Row(
            case,
            {
                "decisions": len(equal),
                "different_decisions": equal.count(False),
                "clear_decisions": len(clear),
                "different_clear_decisions": clear.count(False),
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

    def _leads(self, part: str) -> Iterator[float]:
        """By how much each decision of the model is ahead, in the order of the rows; 1 where nothing is behind it."""
        kind, logits, features = self._task.task_kind, self._truth[part], self._learner.features[part]
        if isinstance(logits, tuple):
            yield from np.ones(len(self._learner.decoded(part, logits)[0]))
        elif logits.ndim == 2:
            yield from kind.lead(logits)[in_row_order(features)].ravel()
        else:
            tags, places = getattr(self._learner.rows, part)["tags"][:], scored_positions(features)
            words = features["scored_words"][:]
            for own_tags, index in zip(tags, in_row_order(features), strict=True):
                # Words beyond the longest input have no probability.
                leads = np.ones(len(own_tags))
                leads[words[index]] = kind.lead(logits[index, places[index]])
                yield from leads

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
