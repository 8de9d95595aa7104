"""The rows of the task that a recipe makes a student for, and their text."""

from collections.abc import Iterator

from datasets import Dataset

from distilrubert.evaluation.tasks.task import TaskDefinition
from distilrubert.evaluation.tasks.task_data import TaskRows, load_rows
from distilrubert.pipeline.commits import pinned_task
from distilrubert.pipeline.run import Run
from distilrubert.pipeline.task_settings import TaskSettings


def settings_of(run: Run) -> TaskSettings:
    """The section of the recipe."""
    assert run.recipe.task is not None
    return run.recipe.task


def load_task_rows(run: Run, *, unlabelled: bool) -> TaskRows:
    """The rows of the recipe's task, with those without labels or without them."""
    settings = settings_of(run)
    return load_rows(pinned_task(run), settings.finetuning.train_limit, settings.unlabelled if unlabelled else None)


def texts_of_task(run: Run, *, is_held_out: bool) -> Iterator[str]:
    """The texts that the student learns from, with labels or without, or those of the validation part."""
    rows = load_task_rows(run, unlabelled=not is_held_out)
    parts: list[Dataset | None] = [rows.validation] if is_held_out else [rows.train, rows.unlabelled]
    for part in parts:
        for column in pinned_task(run).task_kind.text_columns:
            yield from map(_joined, part[column] if part is not None else ())


def test_texts(task: TaskDefinition) -> list[str | tuple[str, ...]]:
    """The texts of a task's test part, those of a pair together."""
    test = load_rows(task).test
    rows = list(zip(*(map(_joined, test[column]) for column in task.task_kind.text_columns), strict=True))
    return [row if len(row) > 1 else row[0] for row in rows]


def _joined(text: str | list[str]) -> str:
    """A text as it is; the words of a tagger's row, with spaces between them."""
    return " ".join(text) if isinstance(text, list) else text
