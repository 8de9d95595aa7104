"""The rows of the task that a recipe makes a student for, and their text."""

from collections.abc import Iterator

from datasets import Dataset

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
            for text in part[column] if part is not None else ():
                yield " ".join(text) if isinstance(text, list) else text
