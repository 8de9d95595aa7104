"""The section of a recipe that makes a student for a task."""

from pydantic import Field

from distilrubert.common.configuration import NameOrPath, RecipePath, Section
from distilrubert.common.training.training_settings import ProgressSettings
from distilrubert.distill.objective_settings import TaskObjectiveSettings
from distilrubert.evaluation.evaluation_settings import FinetuningProtocol, FinetuningSettings


class UpdateSettings(Section):
    """How an update is computed."""

    batches_per_update: int = Field(
        1,
        ge=1,
        description="Batches of an update over all processes, each of batch_size examples; a multiple of their number.",
    )
    compile: bool = Field(
        False, description="Compile the model, for batches of any shape (torch.compile). It changes the rounding."
    )


class TaskFinetuningSettings(FinetuningSettings, UpdateSettings):
    """How the teacher, and the student that it is compared with, are fine-tuned."""


class TaskDistillationSettings(TaskObjectiveSettings, FinetuningProtocol, UpdateSettings, ProgressSettings):
    """How the student of a task learns from its teacher; learning rate and epoch are chosen as in fine-tuning."""


class TaskSettings(Section):
    """A student for a task: a teacher that was fine-tuned on it teaches the student, also on text without labels.

    Without a corpus the student starts from layers of the recipe's teacher or from `student.start_from`, else from the
    general student that the other sections make first.
    """

    name: NameOrPath = Field(description="The task: the name of a shipped one, or the path of a YAML file.")
    teacher: NameOrPath | None = Field(
        None,
        description="Hub id or folder of a model that was fine-tuned on the task, with its labels in their order; "
        "null: the recipe's teacher is fine-tuned first, on the same labels as the student.",
    )
    unlabelled: list[RecipePath] = Field(
        [],
        description="Files with the task's columns of text, whose labels, if any, are not used: parquet, csv, jsonl or "
        "txt. The training rows beyond finetuning.train_limit are used so too.",
    )
    freeze_embeddings: bool = Field(
        False, description="Leave the word embeddings of teacher and student as they are: updates cost less."
    )
    finetuning: TaskFinetuningSettings = Field(
        default_factory=TaskFinetuningSettings,
        description="How the teacher, and the student without a teacher that it is compared with, are fine-tuned; "
        "the student also at the learning rates of distillation.",
    )
    distillation: TaskDistillationSettings = Field(
        default_factory=TaskDistillationSettings, description="How the student learns from the teacher."
    )
    equal_decisions: float = Field(
        0.99,
        gt=0,
        le=1,
        description="Least share of equal ones among the clear decisions of an int8 file and the student: those whose "
        "most probable class is ahead of the next one by 0.1. Of all decisions 0.97 is needed, or this if it is less.",
    )

    @property
    def alone(self) -> TaskFinetuningSettings:
        """How the student is fine-tuned without a teacher: also at the rates at which it is distilled, to be fair."""
        rates = {*self.finetuning.learning_rates, *self.distillation.learning_rates}
        return self.finetuning.model_copy(update={"learning_rates": sorted(rates)})
